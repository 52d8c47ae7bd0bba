"""Models of a given size, most of which is in one place: a table that is looked up in, weights of products, or an item table."""

import pathlib

import folders
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 64
FEATURES = 512
MIB = 2**20


def floats(shape: tuple[int, ...]) -> np.ndarray:
    """Like trained ones in size; no two rows are the same, and no zero pages."""
    return np.random.default_rng(7).random(shape, dtype=np.float32) - np.float32(0.5)


def rows(name: str, kind: int, columns: int):
    return helper.make_tensor_value_info(name, kind, ["rows", columns])


def table(mib: int) -> onnx.ModelProto:
    """Two ids, looked up in a table of so many MiB; their rows added up."""
    weights = floats((mib * MIB // 4 // WIDTH, WIDTH))
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"]),
        helper.make_node("ReduceSum", ["found", "axes"], ["score"], keepdims=0),
    ]
    constants = [numpy_helper.from_array(weights, "table"), helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])]
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])
    return model(helper.make_graph(nodes, "table", [rows("ids", TensorProto.INT64, 2)], [score], constants))


def products(mib: int) -> onnx.ModelProto:
    """Layers of so many MiB together."""
    layer = FEATURES * 4 * FEATURES
    count = max(2, mib * MIB // 4 // layer // 2 * 2)
    sizes = [(FEATURES, 4 * FEATURES), (4 * FEATURES, FEATURES)] * (count // 2)
    nodes, constants, last = [], [], "x"
    for at, size in enumerate(sizes):
        constants.append(numpy_helper.from_array(floats(size) / np.float32(FEATURES), f"w{at}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{at}"], [f"h{at}"]))
        nodes.append(helper.make_node("Relu", [f"h{at}"], [f"r{at}"]))
        last = f"r{at}"
    last_shape = [rows(last, TensorProto.FLOAT, FEATURES)]
    return model(helper.make_graph(nodes, "products", [rows("x", TensorProto.FLOAT, FEATURES)], last_shape, constants))


def model(graph) -> onnx.ModelProto:
    made = onnx.load_from_string(folders.made(graph))
    onnx.checker.check_model(made)
    return made


def write(folder: pathlib.Path, made: onnx.ModelProto, config: str, outside: bool) -> pathlib.Path:
    """The weights in a file of their own (`outside`), as exporters write large models, or in the model."""
    folder.mkdir(parents=True)
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 1024} if outside else {}
    onnx.save(made, folder / "model.onnx", **options)
    (folder / "config.yaml").write_text(config)
    return folder
