#!/usr/bin/env python3
"""Writes the small ranker, a deterministic ranking model, as a model folder.

13 dense features and 26 categorical ids a pair; ids index one concatenated embedding table (16 floats a
row), then 429 -> 224 -> 192 -> 46 -> 1. That is 147,982 multiply-adds, 0.296 MFLOP a pair. Of these, the
dense features and the first 20 ids belong to the user.

    make_small_ranker.py OUT [--seed 7] [--corrupt] [--device cpu|gpu] [--table-factor N]

Prints the digest of the folder (of its manifest.json), as `spec.model.digest` wants it.
"""

import argparse
import hashlib
import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DENSE, SPARSE, WIDTH = 13, 26, 16
LAYERS = [DENSE + SPARSE * WIDTH, 224, 192, 46, 1]
# Different sizes, so that an offset error cannot go unnoticed; 33 k rows of 64 bytes are 2.1 MB.
VOCABULARIES = [500 + 61 * column for column in range(SPARSE)]
# Rows of the table that are drawn at once.
PART = 1 << 20


def build(seed: int, table_factor: int = 1) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    vocabularies = [size * table_factor for size in VOCABULARIES]
    offsets = np.concatenate([[0], np.cumsum(vocabularies)[:-1]]).astype(np.int64)
    constants = {
        "table": embeddings(rng, sum(vocabularies)),
        "offsets": offsets.reshape(1, SPARSE),
        "flat": np.array([-1, SPARSE * WIDTH], np.int64),
        "column": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Add", ["sparse", "offsets"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["embedded"], axis=0),
        helper.make_node("Reshape", ["embedded", "flat"], ["embeddings"]),
        helper.make_node("Concat", ["dense", "embeddings"], ["x0"], axis=1),
    ]
    for layer, (inputs, outputs) in enumerate(zip(LAYERS, LAYERS[1:])):
        scale = (2.0 / inputs) ** 0.5
        constants[f"w{layer}"] = rng.normal(0, scale, (inputs, outputs)).astype(np.float32)
        constants[f"b{layer}"] = rng.normal(0, 0.05, outputs).astype(np.float32)
        last = layer == len(LAYERS) - 2
        product = f"logit{layer}"
        nodes.append(helper.make_node("Gemm", [f"x{layer}", f"w{layer}", f"b{layer}"], [product]))
        activation = "Sigmoid" if last else "Relu"
        nodes.append(helper.make_node(activation, [product], [f"x{layer + 1}"]))
    nodes.append(helper.make_node("Reshape", [f"x{len(LAYERS) - 1}", "column"], ["score"]))
    graph = helper.make_graph(
        nodes,
        "small_ranker",
        [
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["pairs", DENSE]),
            helper.make_tensor_value_info("sparse", TensorProto.INT64, ["pairs", SPARSE]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["pairs"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="pinnace")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def embeddings(rng: np.random.Generator, rows: int) -> np.ndarray:
    """In parts, so that a large table is never there in double precision."""
    parts = [rng.normal(0, 0.5, (min(PART, rows - start), WIDTH)).astype(np.float32) for start in range(0, rows, PART)]
    return np.concatenate(parts)


def pairs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """One list: the dense features and the first 20 ids are the user's, and the same in all its pairs."""
    dense = np.tile(rng.normal(0, 1, (1, DENSE)).astype(np.float32), (count, 1))
    sparse = np.stack([rng.integers(0, size, count) for size in VOCABULARIES], axis=1).astype(np.int64)
    sparse[:, :20] = sparse[0, :20]
    return dense, sparse


def request(dense: np.ndarray, sparse: np.ndarray) -> dict:
    return {
        "inputs": [
            {"name": "dense", "shape": list(dense.shape), "datatype": "FP32", "data": dense.ravel().tolist()},
            {"name": "sparse", "shape": list(sparse.shape), "datatype": "INT64", "data": sparse.ravel().tolist()},
        ]
    }


def write_samples(folder: pathlib.Path, model: onnx.ModelProto, seed: int) -> None:
    """Requests with the answers ONNX Runtime gives them: warm-up, and a check at load."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed + 1)
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    for name, count in [("one", 1), ("list", 16)]:
        dense, sparse = pairs(rng, count)
        (score,) = session.run(["score"], {"dense": dense, "sparse": sparse})
        answer = {"name": "score", "datatype": "FP32", "shape": list(score.shape), "data": score.tolist()}
        (samples / f"{name}.request.json").write_text(json.dumps(request(dense, sparse)) + "\n")
        (samples / f"{name}.response.json").write_text(json.dumps({"outputs": [answer]}) + "\n")


def write_manifest(folder: pathlib.Path) -> str:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            content = path.read_bytes()
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            files[path.relative_to(folder).as_posix()] = {"digest": digest, "size": len(content)}
    text = json.dumps({"version": 1, "files": files}, indent=2) + "\n"
    (folder / "manifest.json").write_text(text)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--table-factor", type=int, default=1, help="vocabularies are so many times larger")
    parser.add_argument("--corrupt", action="store_true", help="damage model.onnx, with a manifest that fits")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = build(arguments.seed, arguments.table_factor)
    content = model.SerializeToString(deterministic=True)
    if arguments.corrupt:
        content = content[: len(content) // 2]
    (arguments.out / "model.onnx").write_bytes(content)
    vocabularies = ", ".join(str(size * arguments.table_factor) for size in VOCABULARIES)
    (arguments.out / "config.yaml").write_text(
        f"device: {arguments.device}\nmaxBatchSize: 4096\ninputs:\n  sparse:\n    vocabularies: [{vocabularies}]\n"
    )
    write_samples(arguments.out, model, arguments.seed)
    print(write_manifest(arguments.out))


if __name__ == "__main__":
    main()
