"""Starts aws-sim on a free loopback port, once per test module."""

import socket
import subprocess
import urllib.error

import pytest
from awssim import ROOT, Sim, binary, eventually


@pytest.fixture(scope="session")
def sim_binary():
    return binary()


@pytest.fixture(scope="module")
def sim(sim_binary, tmp_path_factory):
    root = tmp_path_factory.mktemp("s3")
    models = root / "models" / "ranker" / "1"
    models.mkdir(parents=True)
    (models / "model.onnx").write_bytes(bytes(range(256)) * 40)
    (models / "manifest.json").write_text("{}")
    (root / "models" / "top.txt").write_text("top")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = root / "aws-sim.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [
                sim_binary,
                "serve",
                "--listen",
                f"127.0.0.1:{port}",
                "--iam-policy",
                str(ROOT / "terraform/modules/operator-iam/policy.json"),
                "--s3-root",
                str(root),
                "--time-scale",
                "600",
            ],
            stderr=out,
        )
    running = Sim(f"http://127.0.0.1:{port}")

    def healthy():
        assert process.poll() is None, log.read_text()
        try:
            return running.control("GET", "health")["status"] == "ok"
        except (urllib.error.URLError, ConnectionError):
            return False

    eventually(healthy, "the simulator answers")
    yield running
    process.terminate()
    process.wait(timeout=10)


@pytest.fixture(scope="module")
def eks(sim):
    return sim.client("eks")


@pytest.fixture(scope="module")
def ec2(sim):
    return sim.client("ec2")


@pytest.fixture(scope="module")
def autoscaling(sim):
    return sim.client("autoscaling")
