#!/usr/bin/env python3
"""Writes DLRM-DCNv2 in full width as a model folder, with tables that fit into the memory of a small machine.

13 dense features -> 512 -> 256 -> 128; 26 embeddings of 128; three low-rank cross layers (3,456 -> 512 -> 3,456);
1,024 -> 1,024 -> 512 -> 256 -> 1: 16.03 million multiply-adds a pair, 32.06 MFLOP. The tables of the original have
hundreds of gigabytes; here each has 10,000 rows (133 MB in all).

    make_dcnv2.py OUT [--seed 7]
"""

import argparse
import pathlib

import make_small_ranker as small
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DENSE, SPARSE, WIDTH, ROWS = 13, 26, 128, 10_000
CROSS_LAYERS, RANK = 3, 512
BOTTOM, TOP = [DENSE, 512, 256, WIDTH], [1024, 1024, 512, 256, 1]


class Builder:
    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], {}

    def node(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def weights(self, name: str, inputs: int, outputs: int) -> str:
        scale = (1.0 / inputs) ** 0.5
        return self.constant(name, self.rng.normal(0, scale, (inputs, outputs)).astype(np.float32))

    def bias(self, name: str, size: int) -> str:
        return self.constant(name, self.rng.normal(0, 0.05, size).astype(np.float32))

    def perceptron(self, name: str, value: str, sizes: list[int]) -> str:
        for layer, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
            weights, bias = self.weights(f"{name}.{layer}.w", inputs, outputs), self.bias(f"{name}.{layer}.b", outputs)
            value = self.node("Gemm", [value, weights, bias], f"{name}.{layer}")
            if outputs > 1:
                value = self.node("Relu", [value], f"{name}.{layer}.relu")
        return value

    def cross(self, first: str, width: int) -> str:
        value = first
        for layer in range(CROSS_LAYERS):
            name = f"cross.{layer}"
            low = self.node("MatMul", [value, self.weights(f"{name}.v", width, RANK)], f"{name}.low")
            gemm = [low, self.weights(f"{name}.w", RANK, width), self.bias(f"{name}.b", width)]
            high = self.node("Gemm", gemm, f"{name}.high")
            product = self.node("Mul", [first, high], f"{name}.product")
            value = self.node("Add", [product, value], name)
        return value


def build(seed: int) -> onnx.ModelProto:
    made = Builder(seed)
    offsets = (np.arange(SPARSE, dtype=np.int64) * ROWS).reshape(1, SPARSE)
    rows = made.node("Add", ["sparse", made.constant("offsets", offsets)], "rows")
    table = made.rng.standard_normal((SPARSE * ROWS, WIDTH), np.float32) * np.float32(0.2)
    gathered = made.node("Gather", [made.constant("table", table), rows], "gathered", axis=0)
    flat = made.constant("flat", np.array([-1, SPARSE * WIDTH], np.int64))
    embeddings = made.node("Reshape", [gathered, flat], "embeddings")
    bottom = made.perceptron("bottom", "dense", BOTTOM)
    joined = made.node("Concat", [bottom, embeddings], "x0", axis=1)
    width = (SPARSE + 1) * WIDTH
    logit = made.perceptron("top", made.cross(joined, width), [width, *TOP])
    probability = made.node("Sigmoid", [logit], "probability")
    made.node("Reshape", [probability, made.constant("column", np.array([-1], np.int64))], "score")
    inputs = [
        helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["pairs", DENSE]),
        helper.make_tensor_value_info("sparse", TensorProto.INT64, ["pairs", SPARSE]),
    ]
    output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["pairs"])
    constants = [numpy_helper.from_array(value, name) for name, value in made.constants.items()]
    graph = helper.make_graph(made.nodes, "dlrm_dcnv2", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="pinnace")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "model.onnx").write_bytes(build(arguments.seed).SerializeToString(deterministic=True))
    (arguments.out / "config.yaml").write_text(
        f"device: cpu\nmaxBatchSize: 4096\ninputs:\n  sparse:\n    vocabularies: [{ROWS}]\n"
    )
    print(small.write_manifest(arguments.out))


if __name__ == "__main__":
    main()
