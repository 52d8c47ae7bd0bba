"""Models that tests build by hand, and their folders."""

import pathlib

import make_small_ranker as small
import onnx
from onnx import helper


def made(graph: onnx.GraphProto) -> bytes:
    """The model of a graph: opset 17, in an IR that every ONNX Runtime of today reads."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def write(folder: pathlib.Path, content: bytes, config: str = "device: cpu\n", manifest: bool = True) -> pathlib.Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "config.yaml").write_text(config)
    if manifest:
        small.write_manifest(folder)
    return folder
