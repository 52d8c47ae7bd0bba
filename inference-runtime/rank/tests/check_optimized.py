#!/usr/bin/env python3
"""Holds rewritten models against ONNX Runtime: same answers, and how much faster.

    check_optimized.py RUNTIME            RUNTIME is the binary pinnace-runtime
    check_optimized.py RUNTIME --measure  small ranker, 1,000 candidates, user once; one thread, interleaved rounds

Needs onnx, onnxruntime and numpy.
"""

import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).parent
CORPUS = HERE / "corpus"
SMALL_RANKER = HERE.parents[2] / "tests" / "models" / "make_small_ranker.py"
TOLERANCE = 2e-5
USERS = {
    "dlrm": ["dense", "sparse[0:20]"],
    "dlrm-dcnv2": ["dense", "sparse[0:20]"],
    "dcn": ["dense", "sparse[0:20]"],
    "wide-and-deep": ["dense", "sparse[0:4,10:22]"],
    "deepfm": ["sparse[3:20]"],
    "xdeepfm": ["sparse[0:20]"],
    "two-tower": ["dense", "user"],
    "mmoe": ["dense", "sparse[0:20]"],
    "din": ["history"],
    "dien": ["history"],
    "sasrec": ["history"],
    "bag-sum": [],
    "bag-mean": [],
    "bag-weighted": ["ids"],
}
TYPES = {"FP32": np.float32, "INT64": np.int64}
ROUNDS, CANDIDATES = 15, 1000


def session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def split(inputs, users):
    """The user of row 0 once, and what belongs to the pairs; and the same with the user repeated."""
    once, repeated = {}, dict(inputs)
    declared = {user.split("[")[0]: user for user in users}
    for name, value in inputs.items():
        if name not in declared:
            once[name] = value
        elif "[" not in declared[name]:
            once[name] = value[:1]
            repeated[name] = np.repeat(value[:1], len(value), 0)
        else:
            ranges = [tuple(map(int, part)) for part in re.findall(r"(\d+):(\d+)", declared[name])]
            own = [column for start, end in ranges for column in range(start, end)]
            other = [column for column in range(value.shape[1]) if column not in own]
            once[f"{name}.user"], once[f"{name}.item"] = value[:1, own], value[:, other]
            repeated[name] = value.copy()
            repeated[name][:, own] = value[:1, own]
    return once, repeated


def optimized(runtime, model, users):
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "out.onnx"
        once = [f"--once={user}" for user in users]
        subprocess.run([runtime, "optimize", model, target, *once], check=True, stdout=subprocess.DEVNULL)
        return target.read_bytes()


def check(runtime):
    worst = 0.0
    models = [path for path in sorted(CORPUS.glob("*.onnx")) if path.stem.split(".")[0] in USERS]
    for path in models:
        users = USERS[path.stem.split(".")[0]]
        answers = json.loads(path.with_suffix(".json").read_text())
        inputs = {
            value["name"]: np.array(value["data"], TYPES[value["datatype"]]).reshape(value["shape"])
            for value in answers["inputs"]
        }
        once, repeated = split(inputs, users)
        expected = session(path.read_bytes()).run(None, repeated)
        got = session(optimized(runtime, path, users)).run(None, once)
        for a, b in zip(expected, got, strict=True):
            assert a.shape == b.shape, f"{path.stem}: {a.shape} {b.shape}"
            worst = max(worst, float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1))))
        assert worst <= TOLERANCE, f"{path.stem}: off by {worst}"
    print(f"{len(models)} rewritten models agree with ONNX Runtime, worst difference {worst:.1e}")


def rate(model, inputs):
    runs, start = 0, time.process_time()
    while (spent := time.process_time() - start) < 0.3:
        model.run(None, inputs)
        runs += 1
    return runs * CANDIDATES / spent


def compare(title, before, after, before_inputs, after_inputs):
    """Pairs a core-second: CPU time, so that neighbours on the machine count less."""
    (a,), (b,) = before.run(None, before_inputs), after.run(None, after_inputs)
    assert np.allclose(a, b, atol=TOLERANCE), f"{title}: answers differ by {np.max(np.abs(a - b))}"
    rates = []
    for _ in range(ROUNDS):
        rates.append((rate(before, before_inputs), rate(after, after_inputs)))
    medians = [statistics.median(column) / 1e3 for column in zip(*rates)]
    ratios = sorted(after / before for before, after in rates)
    print(
        f"{title}: {medians[0]:,.0f} k -> {medians[1]:,.0f} k pairs a core-second, "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}, {ROUNDS} paired rounds)"
    )


def measure(runtime):
    sys.path.insert(0, str(SMALL_RANKER.parent))
    import make_small_ranker

    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        path.write_bytes(make_small_ranker.build(7).SerializeToString())
        users = ["dense", "sparse[0:20]"]
        dense, sparse = make_small_ranker.pairs(rng, CANDIDATES)
        once, repeated = split({"dense": dense, "sparse": sparse}, users)
        before, after = session(path.read_bytes()), session(optimized(runtime, path, users))
        compare("small ranker, user once", before, after, repeated, once)
    for name in ["bag-sum.torchscript-17", "bag-sum.dynamo-20"]:
        path = CORPUS / f"{name}.onnx"
        inputs = {"ids": rng.integers(0, 20, (CANDIDATES, 10)).astype(np.int64)}
        compare(name, session(path.read_bytes()), session(optimized(runtime, path, [])), inputs, inputs)


if __name__ == "__main__":
    (measure if "--measure" in sys.argv else check)(sys.argv[1])
