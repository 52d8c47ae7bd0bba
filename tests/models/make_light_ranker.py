#!/usr/bin/env python3
"""Writes a light ranker for pre-ranking (as in COLD, Wang et al., 2020), a deterministic model with an item table, as a
model folder.

The user's part once a request: 32 dense features and 8 ids -> 160 -> 128 -> u, 64 wide. An item is a vector i of 64 and
32 statistics s, and both are in the table. [u, i, u * i, s] = 224 -> 128 -> 64 -> 4 heads with sigmoid: 74.2 kFLOP a
pair. Ranked is by the utility of config.yaml.

    make_light_ranker.py OUT [--items 2000] [--seed 7] [--top-k 50]

Prints the digest of the folder.
"""

import argparse
import json
import pathlib

import numpy as np
import onnx
from make_small_ranker import write_manifest
from onnx import TensorProto, helper, numpy_helper

DENSE, IDS, VOCABULARY, WIDTH = 32, 8, 1000, 16
VECTOR, STATISTICS = 64, 32
USER_LAYERS = [DENSE + IDS * WIDTH, 128, VECTOR]
LAYERS = [3 * VECTOR + STATISTICS, 128, 64, 4]
HEADS = ["click", "save", "share", "hide"]
UTILITY = {"click": 1.0, "save": 0.5, "share": 2.0, "hide": -4.0}
# Rows that are drawn at once.
PART = 1 << 16


def build(seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    constants = {
        "table": rng.normal(0, 0.5, (IDS * VOCABULARY, WIDTH)).astype(np.float32),
        "offsets": (np.arange(IDS, dtype=np.int64) * VOCABULARY).reshape(1, IDS),
        "flat": np.array([-1, IDS * WIDTH], np.int64),
    }
    nodes = [
        helper.make_node("Add", ["user_ids", "offsets"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["embedded"], axis=0),
        helper.make_node("Reshape", ["embedded", "flat"], ["embeddings"]),
        helper.make_node("Concat", ["user_dense", "embeddings"], ["user0"], axis=1),
        *layers(rng, "user", USER_LAYERS, constants),
        helper.make_node("Mul", ["user2", "item_vector"], ["product"]),
        helper.make_node("Concat", ["user2", "item_vector", "product", "item_statistics"], ["pair0"], axis=1),
        *layers(rng, "pair", LAYERS, constants),
        helper.make_node("Sigmoid", ["pair3"], ["heads"]),
        helper.make_node("Split", ["heads"], HEADS, axis=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "light_ranker",
        [
            value("user_dense", TensorProto.FLOAT, ["pairs", DENSE]),
            value("user_ids", TensorProto.INT64, ["pairs", IDS]),
            value("item_vector", TensorProto.FLOAT, ["pairs", VECTOR]),
            value("item_statistics", TensorProto.FLOAT, ["pairs", STATISTICS]),
        ],
        [value(head, TensorProto.FLOAT, ["pairs", 1]) for head in HEADS],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="pinnace")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def layers(rng: np.random.Generator, name: str, sizes: list[int], constants: dict) -> list[onnx.NodeProto]:
    """NAME0 -> NAME1 -> ..., with Relu between them but not behind the last."""
    nodes = []
    for layer, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        weights, bias = f"{name}_w{layer}", f"{name}_b{layer}"
        constants[weights] = rng.normal(0, inputs**-0.5, (inputs, outputs)).astype(np.float32)
        constants[bias] = rng.normal(0, 0.05, outputs).astype(np.float32)
        last = layer == len(sizes) - 2
        sum_ = f"{name}{layer + 1}" if last else f"{name}_sum{layer}"
        nodes.append(helper.make_node("Gemm", [f"{name}{layer}", weights, bias], [sum_]))
        if not last:
            nodes.append(helper.make_node("Relu", [sum_], [f"{name}{layer + 1}"]))
    return nodes


def item_ids(count: int) -> np.ndarray:
    """Ids as shops have them: neither dense nor in order."""
    return np.random.default_rng(count).permutation(count) * 1009 + 7


def vectors(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    rows = [rng.normal(0, 1, (count, width)).astype(np.float32) for width in (VECTOR, STATISTICS)]
    return rows[0], rows[1]


def write_items(folder: pathlib.Path, count: int, seed: int) -> None:
    """In parts, so that a large table is never in memory."""
    items = folder / "items"
    items.mkdir(exist_ok=True)
    np.save(items / "item.npy", item_ids(count))
    rng = np.random.default_rng(seed + 2)
    shapes = {"item_vector": VECTOR, "item_statistics": STATISTICS}
    files = [
        np.lib.format.open_memmap(items / f"{name}.npy", "w+", np.float32, (count, width))
        for name, width in shapes.items()
    ]
    for start in range(0, count, PART):
        part = min(PART, count - start)
        for file, rows in zip(files, vectors(rng, part)):
            file[start : start + part] = rows
    for file in files:
        file.flush()


def user(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "user_dense": rng.normal(0, 1, (1, DENSE)).astype(np.float32),
        "user_ids": rng.integers(0, VOCABULARY, (1, IDS)),
    }


def utility(heads: dict[str, np.ndarray]) -> np.ndarray:
    """As the runtime computes it, in double precision."""
    return sum(weight * heads[name].ravel().astype(np.float64) for name, weight in sorted(UTILITY.items()))


def write_sample(folder: pathlib.Path, ids: np.ndarray, seed: int) -> None:
    datatypes = {"float32": "FP32", "int64": "INT64"}
    tensors = user(np.random.default_rng(seed + 1)) | {"item": ids[:16]}
    inputs = [
        {"name": name, "shape": list(x.shape), "datatype": datatypes[str(x.dtype)], "data": x.ravel().tolist()}
        for name, x in tensors.items()
    ]
    (folder / "samples").mkdir(exist_ok=True)
    (folder / "samples" / "list.request.json").write_text(json.dumps({"inputs": inputs}) + "\n")


def configuration(top_k: int) -> str:
    weights = ", ".join(f"{name}: {weight}" for name, weight in UTILITY.items())
    return (
        "device: cpu\nmaxBatchSize: 4096\nrequestInputs: [user_dense, user_ids]\n"
        "itemTable: {ids: item, fills: [item_vector, item_statistics]}\n"
        f"topK: {{ids: item, k: {top_k}, utility: {{sum: {{{weights}}}}}}}\n"
        f"inputs: {{user_ids: {{vocabularies: [{VOCABULARY}]}}}}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--top-k", type=int, default=50)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "model.onnx").write_bytes(build(arguments.seed).SerializeToString(deterministic=True))
    (arguments.out / "config.yaml").write_text(configuration(arguments.top_k))
    write_items(arguments.out, arguments.items, arguments.seed)
    write_sample(arguments.out, item_ids(arguments.items), arguments.seed)
    print(write_manifest(arguments.out))


if __name__ == "__main__":
    main()
