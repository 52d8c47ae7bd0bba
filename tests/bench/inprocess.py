"""An engine in this very process: no server, no wire. What a peer can reach at best per core.

    inprocess.py --engine onnxruntime --model MODEL.onnx --output NAME --threads N

Standard input: a JSON object a line, {"lists": FILE.npz, "pairs": N, "seconds": S}; 0 seconds only loads the file.
Standard output: a JSON object a line, in the form of `pinnace-runtime bench`.
"""

import argparse
import json
import math
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))

# What to import is known when the engine is: each has an environment of its own.
ENGINES = ["onnxruntime", "openvino-f32", "openvino-bf16"]


def open_scorer(engine: str, model: str, output: str, threads: int):
    """From inputs by name to the values of `output`."""
    if engine == "onnxruntime":
        from scorer import open_session

        session = open_session(model, threads)
        return lambda tensors: session.run([output], tensors)[0]
    from openvino_scorer import OpenVinoScorer

    return OpenVinoScorer(model, output, threads, engine.removeprefix("openvino-"))


def load(path: str) -> list[dict[str, np.ndarray]]:
    lists: dict[int, dict] = {}
    with np.load(path) as file:
        for key in file.files:
            index, name = key.split(":", 1)
            lists.setdefault(int(index), {})[name] = file[key]
    return [lists[index] for index in sorted(lists)]


def measure(score, lists: list, pairs: int, seconds: float) -> dict:
    latencies, number = [], 0
    start = now = time.perf_counter()
    while now < start + seconds:
        score(lists[number % len(lists)])
        number, before, now = number + 1, now, time.perf_counter()
        latencies.append((now - before) * 1000)
    latencies.sort()
    rank = lambda share: latencies[max(0, math.ceil(len(latencies) * share) - 1)]  # noqa: E731
    quantiles = {"p50_ms": rank(0.5), "p99_ms": rank(0.99)} if latencies else None
    elapsed = max(now - start, 1e-9)
    return {
        "mode": "closed", "answered_per_second": number / elapsed, "pairs_per_second": number * pairs / elapsed,
        "latency": quantiles, "client_cpu_seconds": 0.0, "elapsed_seconds": elapsed,
        "total": {"sent": number, "answered": number, "pairs": number * pairs, "failed": 0, "refused": 0, "unanswered": 0},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    score, loaded = open_scorer(arguments.engine, arguments.model, arguments.output, arguments.threads), {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["lists"] not in loaded:
            loaded[asked["lists"]] = load(asked["lists"])
        lists = loaded[asked["lists"]]
        if asked.get("scores"):
            answer = {"scores": score(lists[0]).ravel().tolist()}
        else:
            answer = measure(score, lists, asked["pairs"], asked["seconds"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
