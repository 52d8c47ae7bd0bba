"""The how-to pages do what they say: their commands are run as they stand."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import folders
import numpy as np
import onnx
import requests
from conftest import NAME, REPOSITORY, binary, configure, free_port, wait_until
from onnx import TensorProto, helper, numpy_helper

HOW_TO = REPOSITORY / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (HOW_TO / page).read_text(), re.DOTALL | re.MULTILINE)


def shell(script: str, folder: pathlib.Path, check: bool = True) -> subprocess.CompletedProcess:
    path = f"{pathlib.Path(binary()).resolve().parent}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def exported(path: pathlib.Path):
    """What export.py writes, for machines without PyTorch."""
    rng = np.random.default_rng(0)
    shapes = {"table": (1000, 16), "w0": (109, 64), "b0": (64,), "w1": (64, 1), "b1": (1,)}
    constants = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    constants |= {"flat": np.array([-1, 96], np.int64), "last": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Gather", ["table", "sparse"], ["rows"]),
        helper.make_node("Reshape", ["rows", "flat"], ["embedded"]),
        helper.make_node("Concat", ["dense", "embedded"], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["y"]),
        helper.make_node("Sigmoid", ["y"], ["s"]),
        helper.make_node("Squeeze", ["s", "last"], ["score"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("dense", TensorProto.FLOAT, ["pairs", 13]), value("sparse", TensorProto.INT64, ["pairs", 6])]
    outputs = [value("score", TensorProto.FLOAT, ["pairs"])]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    path.write_bytes(folders.made(helper.make_graph(nodes, "mine", inputs, outputs, weights)))


def test_serve_your_model(tmp_path):
    page = "serve-your-model.md"
    (export,) = blocks(page, "python")
    (tmp_path / "export.py").write_text(export)
    first, inspect, configuration, sample, check, serve, ask = blocks(page, "sh")
    if importlib.util.find_spec("torch") and importlib.util.find_spec("onnx"):
        shell(first, tmp_path)
    else:
        (tmp_path / "model").mkdir()
        exported(tmp_path / "model" / "model.onnx")
    assert shell(inspect, tmp_path).stdout.startswith("engine: rank\n")
    shell(configuration + sample, tmp_path)
    assert "the model can be served" in shell(check, tmp_path).stdout
    ports = [free_port() for _ in range(3)]
    names = ["listen", "grpc-listen", "admin-listen"]
    flags = " ".join(f"--{name} 127.0.0.1:{port}" for name, port in zip(names, ports))
    serve = "exec " + serve.strip().replace("/tmp/pinnace", str(tmp_path / "cache")) + " " + flags
    path = f"{pathlib.Path(binary()).resolve().parent}:{os.environ['PATH']}"
    server = subprocess.Popen(["bash", "-euc", serve], cwd=tmp_path, env=os.environ | {"PATH": path})
    try:
        wait_until(lambda: requests.get(f"http://127.0.0.1:{ports[0]}/v2/health/ready", timeout=5).ok)
        (score,) = json.loads(shell(ask.replace("localhost:8000", f"127.0.0.1:{ports[0]}"), tmp_path).stdout)["outputs"]
        assert score["shape"] == [1] and 0 < score["data"][0] < 1
    finally:
        server.terminate()
        server.wait(30)


def test_user_once(start, copy, tmp_path):
    page = "user-once.md"
    (configuration,), (client,), (optimize,) = (blocks(page, language) for language in ["yaml", "python", "sh"])
    declared = "".join(line + "\n" for line in configuration.splitlines() if line.startswith("requestInputs"))
    runtime = start(configure(copy, declared).as_uri())
    script = client.replace("localhost:8000", f"127.0.0.1:{runtime.port}")
    assert f'"{NAME}"' in script
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    shutil.copy(copy / "model.onnx", tmp_path / "model.onnx")
    shell(optimize, tmp_path)
    rewritten = onnx.load(tmp_path / "once.onnx").graph.input
    inputs = {value.name: value.type.tensor_type.shape.dim[0] for value in rewritten}
    assert set(inputs) == {"dense", "sparse.user", "sparse.item"}
    assert inputs["dense"].dim_value == inputs["sparse.user"].dim_value == 1


def test_models(start, copy, tmp_path):
    load, named, serve = blocks("models.md", "sh")
    runtime = start(copy.as_uri())

    def run(script: str) -> dict:
        (version,) = json.loads(shell(script.replace("localhost:8002", f"127.0.0.1:{runtime.admin_port}"), tmp_path).stdout)["versions"]
        return version

    assert run(load)["unchanged"]
    configure(copy, "share: 2\n")
    version = run(named)
    assert (version["version"], version["unchanged"]) == ("2024-06-02", False)
    assert requests.get(f"{runtime.admin}/load", timeout=5).json()["revision"] == "r8"
    assert "--model-repository" in shell("pinnace-runtime serve --help", tmp_path).stdout and "--model-repository models" in serve
def test_item_table(start, copy, tmp_path):
    page = "item-table.md"
    (configuration,), (make, ask, change) = blocks(page, "yaml"), blocks(page, "python")
    check, again = blocks(page, "sh")
    folder = copy.rename(tmp_path / "model")
    python = lambda script: subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=tmp_path)  # noqa: E731
    python(make)
    added = "".join(line + "\n" for line in configuration.splitlines() if not line.startswith(("#", "device")))
    configure(folder, added)
    assert "the model can be served" in shell(check, tmp_path).stdout
    runtime = start(folder.as_uri())
    assert f'"{NAME}"' in ask and f"/{NAME}/" in change
    python(ask.replace("localhost:8000", f"127.0.0.1:{runtime.port}"))
    python(change.replace("localhost:8002", f"127.0.0.1:{runtime.admin_port}"))
    assert "the model can be served" in shell(again, tmp_path).stdout
    runtime = start(folder.as_uri())
    state = requests.get(f"{runtime.admin}/v2/models/{NAME}/items", timeout=5).json()
    assert (state["revision"], state["items"]) == ("2026-11-28", 3)
