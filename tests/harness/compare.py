"""Answers of a served model against ONNX Runtime on the same inputs."""

import pathlib
import sys

import numpy as np
import onnxruntime

from .base import ROOT, session

sys.path.insert(0, str(ROOT / "tests" / "models"))
import make_small_ranker as ranker  # noqa: E402


def one_request(seed: int = 1, pairs: int = 4) -> dict:
    return ranker.request(*ranker.pairs(np.random.default_rng(seed), pairs))


def largest_difference(address: str, model: str, folder: pathlib.Path, count: int = 100, seed: int = 3) -> float:
    """Asks for `count` lists of 1 to 64 candidates, and returns the largest difference of a score."""
    reference = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    rng, largest = np.random.default_rng(seed), 0.0
    with session() as http:
        for _ in range(count):
            dense, sparse = ranker.pairs(rng, int(rng.integers(1, 65)))
            answer = http.post(f"http://{address}/v2/models/{model}/infer", json=ranker.request(dense, sparse), timeout=15)
            answer.raise_for_status()
            (output,) = answer.json()["outputs"]
            assert output["name"] == "score" and output["shape"] == [len(dense)], output
            (expected,) = reference.run(["score"], {"dense": dense, "sparse": sparse})
            largest = max(largest, float(np.abs(np.float32(output["data"]) - expected).max()))
    return largest
