"""Clients of a served model: one that asks all the time and counts, one that compares answers with ONNX Runtime."""

import http.client
import json
import sys
import threading
import time

import numpy as np

from .world import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests" / "models"))
import make_small_ranker  # noqa: E402


def inputs(rng, pairs):
    """Dense features and ids within the vocabularies of the small ranker."""
    dense = rng.normal(size=(pairs, make_small_ranker.DENSE)).astype(np.float32)
    sparse = np.stack([rng.integers(0, n, pairs) for n in make_small_ranker.VOCABULARIES], axis=1).astype(np.int64)
    return dense, sparse


def body(dense, sparse):
    tensor = lambda name, kind, a: {"name": name, "shape": list(a.shape), "datatype": kind, "data": a.ravel().tolist()}
    return json.dumps({"inputs": [tensor("dense", "FP32", dense), tensor("sparse", "INT64", sparse)]})


def ask(host, model, text, timeout=10.0, port=8000):
    """One request on a connection of its own. Returns (HTTP status, scores)."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", f"/v2/models/{model}/infer", text, headers)
        response = connection.getresponse()
        content = response.read()
        scores = json.loads(content)["outputs"][0]["data"] if response.status == 200 else None
        return response.status, scores
    finally:
        connection.close()


class Steady:
    """Asks from `threads` threads until it is stopped. Every request is counted: answered, refused (429) or failed."""

    def __init__(self, host, model, threads=2, pause=0.01):
        self.host, self.model, self.pause = host, model, pause
        self.answered = self.refused = 0
        self.failures = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]

    def _run(self, seed):
        rng = np.random.default_rng(seed)
        bodies = [body(*inputs(rng, 8)) for _ in range(20)]
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                status, _ = ask(self.host, self.model, bodies[turn % len(bodies)])
                failure = None if status in (200, 429) else f"HTTP {status}"
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, failure = 0, f"{type(error).__name__}: {error}"
            with self._lock:
                self.answered += status == 200
                self.refused += status == 429
                if failure:
                    self.failures.append((time.strftime("%H:%M:%S"), failure))
            self._stop.wait(self.pause)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def summary(self):
        return f"{self.answered} answered, {self.refused} refused, {len(self.failures)} failed"


def largest_difference(host, model, folder, requests=100, pairs=32):
    """Asks `requests` times and compares with ONNX Runtime on the same inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(11)
    worst = 0.0
    for _ in range(requests):
        dense, sparse = inputs(rng, pairs)
        status, scores = ask(host, model, body(dense, sparse))
        if status != 200:
            raise AssertionError(f"HTTP {status}")
        (expected,) = session.run(["score"], {"dense": dense, "sparse": sparse})
        worst = max(worst, float(np.abs(np.array(scores, np.float32) - expected.ravel()).max()))
    return worst
