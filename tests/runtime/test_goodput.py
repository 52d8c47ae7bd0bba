"""More is asked than can be answered: what is not answered is refused in time, and afterwards all is as before.

How much is answered at ten times the capacity is measured by `make bench-runtime`; here it is counted.
"""

import concurrent.futures
import json
import time

import folders
import numpy as np
import pytest
import requests
from conftest import NAME, wait_until
from onnx import TensorProto, helper, numpy_helper
from wire import bench

ROWS, WIDTH = 16, 1024
TIMEOUT_SECONDS = 0.256


def heavy(folder):
    """Small bodies, much work: 25 MFLOP a pair."""
    rng = np.random.default_rng(2)
    shapes = {"w0": (8, WIDTH), **{f"w{layer}": (WIDTH, WIDTH) for layer in range(1, 13)}, "w13": (WIDTH, 1)}
    weights = {name: rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes, x = [], "x"
    for name in weights:
        nodes.append(helper.make_node("MatMul", [x, name], [f"h-{name}"]))
        nodes.append(helper.make_node("Tanh", [f"h-{name}"], ["score" if name == "w13" else f"x-{name}"]))
        x = f"x-{name}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "heavy", [value("x", TensorProto.FLOAT, ["rows", 8])], [value("score", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    return folders.write(folder, folders.made(graph))


def request() -> tuple[bytes, dict, int]:
    x = np.random.default_rng(3).normal(0, 1, (ROWS, 8)).astype(np.float32)
    tensor = {"name": "x", "shape": [ROWS, 8], "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + x.tobytes(), {"Inference-Header-Content-Length": str(len(head))}, ROWS


def insist(url: str) -> tuple[int, bool]:
    """A client that comes again when it is told to: its tries, and whether it was answered at last."""
    body, headers, _ = request()
    for tries in range(1, 31):
        answer = requests.post(url, data=body, headers=headers, timeout=30)
        if answer.status_code == 200:
            return tries, True
        assert answer.status_code == 429 and int(answer.headers["Retry-After"]) >= 1, answer.text
        time.sleep(int(answer.headers["Retry-After"]))
    return tries, False


def late_starts(runtime) -> float:
    """Runs that began after the time that a request has."""
    lines = requests.get(f"{runtime.admin}/metrics", timeout=5).text.splitlines()
    buckets = [line for line in lines if line.startswith("pinnace_queue_seconds_bucket")]
    bound = lambda line: float(line.split('le="')[1].split('"')[0].replace("+Inf", "inf"))  # noqa: E731
    counts = {bound(line): float(line.rsplit(" ", 1)[1]) for line in buckets}
    in_time = min(limit for limit in counts if limit >= TIMEOUT_SECONDS)
    assert in_time < 2 * TIMEOUT_SECONDS
    return counts[float("inf")] - counts[in_time]


@pytest.mark.parametrize("factor", [1, 2, 5, 10])
def test_more_than_the_capacity(start, tmp_path, factor):
    runtime = start(
        heavy(tmp_path / "heavy").as_uri(), "--workers", "1", "--max-queue", "32", "--request-timeout", f"{TIMEOUT_SECONDS}s",
    )  # fmt: skip
    url = f"{runtime.url}/v2/models/{NAME}/infer"
    quiet = bench(runtime, tmp_path, request(), "--connections", "2", "--duration", "1500ms", "--warm-up", "300ms")
    capacity = quiet["answered_per_second"]
    assert quiet["total"]["answered"] > 0 and quiet["total"]["unanswered"] == 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        insisting = [pool.submit(insist, url) for _ in range(4)]
        rate = str(max(1.0, factor * capacity))
        over = bench(runtime, tmp_path, request(), "--rate", rate, "--connections", "256", "--duration", "3s", "--warm-up", "500ms")
        assert all(done.result()[1] for done in insisting)
    total = over["total"]
    assert total["answered"] > 0 and total["failed"] == total["unanswered"] == 0
    assert total["answered"] + total["refused"] == total["sent"]
    assert late_starts(runtime) == 0
    # Back to normal.
    wait_until(lambda: runtime.metric("pinnace_in_flight ") == 0)
    body, headers, _ = request()
    assert [requests.post(url, data=body, headers=headers, timeout=30).status_code for _ in range(10)] == [200] * 10
