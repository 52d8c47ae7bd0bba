"""Short requests run at once on the thread that read them; their scores, and what is counted, are those of an engine's thread."""

import folders
import make_small_ranker as small
import numpy as np
from conftest import configure, wait_until
from onnx import TensorProto, helper
from test_rank_engine import NO_ONNX_RUNTIME, ask, clients


def products() -> bytes:
    """A model whose pairs take next to no time: eight numbers and their weighted sum."""
    weights = np.linspace(-1, 1, 8, dtype=np.float32).reshape(8, 1)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["score"])]
    rows = lambda name, columns: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])  # noqa: E731
    constant = helper.make_tensor("w", TensorProto.FLOAT, [8, 1], weights.ravel())
    return folders.made(helper.make_graph(nodes, "products", [rows("x", 8)], [rows("score", 1)], [constant]))


def inline(runtime) -> float:
    return runtime.metric("pinnace_inline_total")


def test_short_requests_run_at_once_with_the_same_bits(start, tmp_path):
    runtime = start(folders.write(tmp_path / "model", products()).as_uri(), environment=NO_ONNX_RUNTIME)
    x = np.random.default_rng(3).normal(0, 1, (4096, 8)).astype(np.float32)
    sent = 0
    for module, client in clients(runtime):
        # Long enough for an engine's thread, as estimated, or not: the scores are the same.
        whole = ask(module, client, {"x": x}).as_numpy("score")
        before, row = inline(runtime), 0

        def once_more():
            """An engine's thread that has just answered may not rest yet: then it takes the request."""
            nonlocal row
            assert ask(module, client, {"x": x[row : row + 1]}).as_numpy("score") == whole[row]  # noqa: B023
            row += 1
            return inline(runtime) >= before + 5  # noqa: B023

        wait_until(once_more)
        sent += 1 + row
    counts = runtime.statistics()["inference_stats"]
    assert (counts["success"]["count"], counts["queue"]["count"]) == (sent, sent)
    assert runtime.metric("pinnace_batch_requests_count") == sent


def test_long_requests_and_those_that_may_wait_do_not(start, copy, tmp_path):
    runtime = start(copy.as_uri())
    assert runtime.infer(small.request(*small.pairs(np.random.default_rng(4), 4096))).status_code == 200
    assert inline(runtime) == 0
    folder = folders.write(tmp_path / "model", products())
    runtime = start(configure(folder, "batching: {maxQueueDelay: 1ms}\n").as_uri())
    body = {"inputs": [{"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [1.0] * 8}]}
    for _ in range(5):
        assert runtime.infer(body).status_code == 200
    assert inline(runtime) == 0


def test_a_deadline_that_has_passed_is_kept(start, tmp_path):
    runtime = start(folders.write(tmp_path / "model", products()).as_uri())
    body = {"inputs": [{"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [1.0] * 8}]}
    answer = runtime.infer(body | {"parameters": {"timeout": 1}})
    assert answer.status_code == 429 and "deadline" in answer.json()["error"]
    assert (inline(runtime), runtime.statistics()["execution_count"]) == (0, 0)
    assert runtime.infer(body).status_code == 200
