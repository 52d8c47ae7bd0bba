"""Starts aws-sim on a free loopback port, once per test module."""

import pytest
from awssim import binary, start
from fake_cluster import world as running_world


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
    with start(sim_binary, root, ["--s3-root", str(root)]) as running:
        yield running


@pytest.fixture(scope="module")
def eks(sim):
    return sim.client("eks")


@pytest.fixture(scope="module")
def ec2(sim):
    return sim.client("ec2")


@pytest.fixture(scope="module")
def autoscaling(sim):
    return sim.client("autoscaling")


@pytest.fixture
def world(sim_binary, tmp_path):
    """A simulator, the Kubernetes API and the control socket that it uses."""
    with running_world(sim_binary, tmp_path) as running:
        yield running
