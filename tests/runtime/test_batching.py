"""Requests that wait together share a run, and each gets the answer that it would have got alone."""

import concurrent.futures
import json
import threading

import folders
import make_small_ranker as small
import numpy as np
import onnxruntime
import requests
from conftest import NAME, configure, wait_until
from onnx import TensorProto, helper


def lists(count: int):
    rng = np.random.default_rng(11)
    return [small.pairs(rng, int(rng.integers(1, 9))) for _ in range(count)]


def ask_at_once(runtime, bodies: list[dict]) -> list[np.ndarray]:
    together = threading.Barrier(len(bodies))

    def ask(body):
        together.wait(30)
        return np.float32(runtime.infer(body).json()["outputs"][0]["data"])

    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(ask, bodies))


def assert_right(folder, asked: list, answers: list[np.ndarray]):
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for (dense, sparse), answer in zip(asked, answers, strict=True):
        expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
        assert np.abs(answer - expected).max() <= 1e-6


def test_joined_answers_equal_single_answers(start, copy):
    folder = configure(copy, "batching: {maxBatchSize: 64, maxQueueDelay: 500ms}\n")
    runtime = start(folder.as_uri())
    batching = requests.get(f"{runtime.url}/v2/models/{NAME}/config", timeout=5).json()["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 500_000
    asked = lists(16)
    assert_right(folder, asked, ask_at_once(runtime, [small.request(*pairs) for pairs in asked]))
    counts = runtime.statistics()
    rows = sum(len(dense) for dense, _ in asked)
    assert (counts["inference_count"], counts["inference_stats"]["success"]["count"]) == (rows, 16)
    # 16 requests of 1 to 8 rows, up to 64 rows a run, and half a second to come in.
    assert 2 <= counts["execution_count"] < 16
    assert 8 < max(entry["batch_size"] for entry in counts["batch_stats"]) <= 64
    assert runtime.metric('pinnace_batch_requests_bucket{le="1.0"}') < runtime.metric("pinnace_batch_requests_count") == 16


def test_what_waits_is_taken_together_without_a_delay(start, ranker):
    runtime = start(ranker.as_uri(), "--workers", "1")
    asked = lists(12)
    bodies = [small.request(*pairs) for pairs in asked]
    large = json.dumps(small.request(*small.pairs(np.random.default_rng(5), 4096)))
    url = f"{runtime.url}/v2/models/{NAME}/infer"
    requests_sent = 0

    def joined():
        """While the only engine has a long list, short ones gather."""
        nonlocal requests_sent
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(requests.post, url, data=large, timeout=30)
            assert_right(ranker, asked, ask_at_once(runtime, bodies))
            assert first.result().status_code == 200
        requests_sent += len(bodies) + 1
        return runtime.statistics()["execution_count"] < requests_sent

    wait_until(joined)
    assert runtime.statistics()["inference_stats"]["queue"]["count"] == requests_sent


def test_one_by_one_if_the_config_says_so(start, copy):
    folder = configure(copy, "batching: {maxBatchSize: 1, maxQueueDelay: 100ms}\n")
    runtime = start(folder.as_uri(), "--workers", "1")
    asked = lists(12)
    assert_right(folder, asked, ask_at_once(runtime, [small.request(*pairs) for pairs in asked]))
    assert runtime.statistics()["execution_count"] == 12
    assert "dynamic_batching" not in requests.get(f"{runtime.url}/v2/models/{NAME}/config", timeout=5).json()


def listwise(folder):
    """Scores that depend on the whole list: a softmax over its rows."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "columns"], ["sum"], keepdims=0),
        helper.make_node("Softmax", ["sum"], ["score"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "listwise",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
        [helper.make_tensor("columns", TensorProto.INT64, [1], [1])],
    )
    return folders.write(folder, folders.made(graph), "device: cpu\nbatching: {maxQueueDelay: 200ms}\n")


def test_a_model_that_compares_rows_is_not_joined(start, tmp_path):
    runtime = start(listwise(tmp_path / "listwise").as_uri(), "--workers", "1")
    values = [np.random.default_rng(i).normal(0, 1, (i + 1, 2)).astype(np.float32) for i in range(8)]
    tensor = lambda x: {"name": "x", "shape": list(x.shape), "datatype": "FP32", "data": x.ravel().tolist()}  # noqa: E731
    for x, answer in zip(values, ask_at_once(runtime, [{"inputs": [tensor(x)]} for x in values])):
        exponents = np.exp(x.sum(axis=1))
        assert np.abs(answer - exponents / exponents.sum()).max() <= 1e-6
    assert runtime.statistics()["execution_count"] == 8
    assert "dynamic_batching" not in requests.get(f"{runtime.url}/v2/models/{NAME}/config", timeout=5).json()
