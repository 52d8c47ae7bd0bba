"""Small models that are told apart by their answers: the score is the sum of a row, times the model's factor."""

import json
import pathlib
import shutil

import folders
import numpy as np
from onnx import TensorProto, helper

WIDTH = 4


def model(factor: float, padding: int = 0) -> bytes:
    """With so many floats more that the answer does not need."""
    weights = [factor] * WIDTH + [0.0] * padding
    nodes = [
        helper.make_node("Slice", ["all", "from", "to"], ["weights"]),
        helper.make_node("Mul", ["x", "weights"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "columns"], ["score"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
        [
            helper.make_tensor("all", TensorProto.FLOAT, [len(weights)], weights),
            helper.make_tensor("from", TensorProto.INT64, [1], [0]),
            helper.make_tensor("to", TensorProto.INT64, [1], [WIDTH]),
            helper.make_tensor("columns", TensorProto.INT64, [1], [1]),
        ],
    )
    return folders.made(graph)


def write(folder: pathlib.Path, factor: float, config: str = "device: cpu\n", manifest: bool = True, padding: int = 0):
    """A folder of ours; what was there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    return folders.write(folder, model(factor, padding), config, manifest)


CONFIG_PBTXT = """
name: "NAME"
platform: "onnxruntime_onnx"
max_batch_size: 64
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "score" data_type: TYPE_FP32 dims: [ ] } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
instance_group [ { kind: KIND_CPU } ]
"""


def write_triton(folder: pathlib.Path, versions: dict[int, float], more: str = ""):
    """A folder as Triton has it: a factor for each version."""
    for version, factor in versions.items():
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
        (folder / str(version) / "model.onnx").write_bytes(model(factor))
    (folder / "config.pbtxt").write_text(CONFIG_PBTXT.replace("NAME", folder.name) + more)
    return folder


def request(rows: int = 1, seed: int = 0) -> dict:
    """Whole numbers, whose sums are exact."""
    x = np.random.default_rng(seed).integers(-9, 10, (rows, WIDTH))
    data = [float(value) for value in x.ravel()]
    return {"inputs": [{"name": "x", "shape": [rows, WIDTH], "datatype": "FP32", "data": data}]}


def expected(body: dict, factor: float) -> list[float]:
    x = np.float32(body["inputs"][0]["data"]).reshape(-1, WIDTH)
    return [float(value) for value in factor * x.sum(axis=1)]


def scores(answer) -> list[float]:
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text)["outputs"][0]["data"]
