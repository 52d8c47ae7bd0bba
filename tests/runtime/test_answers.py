"""Answers are those of ONNX Runtime in Python on the same inputs, in JSON and in binary."""

import json
import time

import make_small_ranker as small
import numpy as np
import pytest
import requests
from conftest import NAME, lists


def binary_request(dense: np.ndarray, sparse: np.ndarray) -> tuple[bytes, int]:
    head = small.request(dense, sparse)
    for tensor, values in zip(head["inputs"], [dense, sparse]):
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": values.nbytes}
    head["outputs"] = [{"name": "score", "parameters": {"binary_data": True}}]
    text = json.dumps(head).encode()
    return text + dense.tobytes() + sparse.tobytes(), len(text)


def test_hundred_json_answers(start, ranker, session):
    runtime = start(ranker.as_uri())
    largest = 0.0
    for dense, sparse in lists(100):
        answer = runtime.infer(small.request(dense, sparse)).json()
        (output,) = answer["outputs"]
        expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
        assert (output["name"], output["datatype"], output["shape"]) == ("score", "FP32", [len(dense)])
        largest = max(largest, float(np.abs(np.float32(output["data"]) - expected).max()))
    assert largest <= 1e-6
    assert runtime.metric("pinnace_requests_total") == 100
    assert runtime.metric("pinnace_pairs_total") == sum(len(dense) for dense, _ in lists(100))


def test_hundred_binary_answers(start, ranker, session):
    runtime = start(ranker.as_uri())
    connection = requests.Session()
    for dense, sparse in lists(100):
        body, length = binary_request(dense, sparse)
        headers = {"Inference-Header-Content-Length": str(length)}
        answer = connection.post(f"{runtime.url}/v2/models/{NAME}/infer", data=body, headers=headers, timeout=30)
        head = int(answer.headers["Inference-Header-Content-Length"])
        (output,) = json.loads(answer.content[:head])["outputs"]
        values = np.frombuffer(answer.content[head:], np.float32)
        assert output["parameters"]["binary_data_size"] == values.nbytes
        expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
        assert np.abs(values - expected).max() <= 1e-6


def test_triton_client_unchanged(start, ranker, session):
    client_module = pytest.importorskip("tritonclient.http")
    runtime = start(ranker.as_uri(), "--model-version", "7")
    client = client_module.InferenceServerClient(f"127.0.0.1:{runtime.port}")
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(NAME) and client.is_model_ready(NAME, "7") and not client.is_model_ready(NAME, "8")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata(NAME)["versions"] == ["7"]
    assert client.get_model_config(NAME)["max_batch_size"] == 4096
    assert client.get_model_config(NAME)["dynamic_batching"]["priority_levels"] == 3
    assert client.get_model_repository_index()[0]["state"] == "READY"
    dense, sparse = lists(1)[0]
    expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
    for binary in [True, False]:
        inputs = [
            client_module.InferInput("dense", dense.shape, "FP32"),
            client_module.InferInput("sparse", sparse.shape, "INT64"),
        ]
        for tensor, values in zip(inputs, [dense, sparse]):
            tensor.set_data_from_numpy(values, binary_data=binary)
        outputs = [client_module.InferRequestedOutput("score", binary_data=binary)]
        for wanted in [outputs, None]:
            result = client.infer(NAME, inputs, outputs=wanted, request_id="r1")
            assert np.abs(result.as_numpy("score") - expected).max() <= 1e-6
            assert result.get_response()["id"] == "r1"
    result = client.infer(NAME, inputs, priority=3, timeout=4_000_000)
    assert np.abs(result.as_numpy("score") - expected).max() <= 1e-6
    assert "statistics" in client.get_server_metadata()["extensions"]
    asked = [client.get_inference_statistics(*names) for names in [(), (NAME,), (NAME, "7")]]
    assert asked[0] == asked[1] == asked[2]
    client.close()


def test_statistics_count_requests_rows_and_runs(start, ranker):
    runtime = start(ranker.as_uri(), "--workers", "1")
    empty = runtime.statistics()
    assert (empty["inference_count"], empty["last_inference"], empty["batch_stats"]) == (0, 0, [])
    sizes = [1, 7, 7]
    for size in sizes:
        assert runtime.infer(small.request(*small.pairs(np.random.default_rng(5), size))).status_code == 200
    assert runtime.infer({}).status_code == 400
    counts = runtime.statistics()
    stats = counts["inference_stats"]
    assert (counts["inference_count"], counts["execution_count"]) == (sum(sizes), 3)
    names = ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output"]
    assert [stats[name]["count"] for name in names] == [3, 1, 3, 3, 3, 3]
    phases = sum(stats[name]["ns"] for name in names[2:])
    assert 0 < stats["compute_infer"]["ns"] <= phases <= stats["success"]["ns"]
    by_size = {entry["batch_size"]: entry["compute_infer"]["count"] for entry in counts["batch_stats"]}
    assert by_size == {1: 1, 7: 2}
    assert time.time() - counts["last_inference"] / 1000 < 60
    assert requests.get(f"{runtime.url}/v2/models/other/stats", timeout=5).status_code == 404


def test_bad_bodies_name_their_fault(start, ranker):
    runtime = start(ranker.as_uri(), "--max-body-bytes", "100000")
    good = small.request(*lists(1)[0])
    url = f"{runtime.url}/v2/models/{NAME}/infer"

    def refused(status: int, named: str, data: bytes, **headers):
        answer = requests.post(url, data=data, headers=headers, timeout=30)
        assert answer.status_code == status, answer.text
        assert named in answer.json()["error"]

    def changed(index: int, **fields) -> bytes:
        tensors = [dict(tensor) for tensor in good["inputs"]]
        tensors[index] |= fields
        return json.dumps({"inputs": tensors}).encode()

    refused(400, "not an infer request", b"")
    refused(400, "not an infer request", b"{" * 1000)
    refused(400, "inputs", b"{}")
    refused(400, '"sparse" is missing', json.dumps({"inputs": good["inputs"][:1]}).encode())
    refused(400, "dense", changed(0, shape=[1, 12]))
    refused(400, "sparse", changed(1, datatype="INT32"))
    refused(400, "vocabulary", changed(1, data=[10**9] * len(good["inputs"][1]["data"])))
    refused(400, "Inference-Header-Content-Length", b"{}", **{"Inference-Header-Content-Length": "9"})
    refused(400, "Inference-Header-Content-Length", b"{}", **{"Inference-Header-Content-Length": "x"})
    refused(413, "100000 bytes", b"x" * 100001)
    refused(415, "Content-Encoding", b"x", **{"Content-Encoding": "gzip"})
    chunks = (b"x" * 10000 for _ in range(11))
    assert requests.post(url, data=chunks, timeout=30).status_code == 413
    nan = np.full((1, small.DENSE), np.nan, np.float32)
    body, length = binary_request(nan, lists(1)[0][1][:1])
    refused(400, "NaN", body, **{"Inference-Header-Content-Length": str(length)})
    for path in ["/v2/models/other/infer", f"/v2/models/{NAME}/versions/9/infer"]:
        assert requests.post(runtime.url + path, json=good, timeout=30).status_code == 404
    assert requests.get(url, timeout=30).status_code == 405
    assert runtime.infer(good).status_code == 200
