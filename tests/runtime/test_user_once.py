"""What belongs to the request is sent once: the answers are those of the request that repeats it, to the bit on `rank`."""

import concurrent.futures
import threading

import make_small_ranker as small
import numpy as np
import pytest
import requests
from conftest import configure
from test_rank_engine import ask, clients, parameters
from tritonclient.utils import InferenceServerException

DECLARED = "requestInputs: [dense, 'sparse[0:20]']\n"
TOLERANCE = 2e-5
ENGINES = ["rank", "onnxruntime"]


def request_lists(count: int):
    """Different users, 1 to 30 candidates each."""
    rng = np.random.default_rng(21)
    return [small.pairs(rng, int(rng.integers(1, 31))) for _ in range(count)]


def forms(dense, sparse) -> list[dict]:
    """Ways to send the same request: repeated, and once."""
    parts = {"sparse.user": sparse[:1, :20].copy(), "sparse.item": sparse[:, 20:].copy()}
    repeated = {"sparse.user": sparse[:, :20].copy(), "sparse.item": sparse[:, 20:].copy()}
    return [
        {"dense": dense, "sparse": sparse},
        {"dense": dense[:1], "sparse": sparse},
        {"dense": dense[:1]} | parts,
        {"dense": dense} | parts,
        {"dense": dense[:1]} | repeated,
    ]


def as_json(arrays: dict) -> dict:
    names = {"float32": "FP32", "int64": "INT64"}
    return {
        "inputs": [
            {"name": name, "shape": list(x.shape), "datatype": names[str(x.dtype)], "data": x.ravel().tolist()}
            for name, x in arrays.items()
        ]
    }


def refused(runtime, form: dict, named: str):
    """By every door, with a message that has `named` in it."""
    answer = runtime.infer(as_json(form))
    assert answer.status_code == 400 and named in answer.json()["error"], answer.text
    for module, client in clients(runtime):
        with pytest.raises(InferenceServerException) as error:
            ask(module, client, form)
        assert named in error.value.message()


def scores(answer: dict) -> np.ndarray:
    return np.float32(answer["outputs"][0]["data"])


@pytest.mark.parametrize("engine", ENGINES)
def test_once_is_repeated(start, copy, session, engine):
    runtime = start(configure(copy, f"engine: {engine}\n{DECLARED}").as_uri())
    assert parameters(runtime)["engine"] == engine
    assert parameters(runtime)["request_inputs"] == "dense sparse[0:20]"
    assert "pinnace_rank" in requests.get(f"{runtime.url}/v2", timeout=5).json()["extensions"]
    for dense, sparse in request_lists(10):
        (expected,) = session.run(None, {"dense": dense, "sparse": sparse})
        answers = [scores(runtime.infer(as_json(form)).json()) for form in forms(dense, sparse)]
        for module, client in clients(runtime):
            answers += [ask(module, client, form).as_numpy("score") for form in forms(dense, sparse)]
        for answer in answers:
            assert np.abs(answer - expected).max() <= TOLERANCE
            assert (answer == answers[0]).all()


def test_the_same_bits_as_without_the_declaration(start, copy, ranker):
    """The user's columns stand first in this model's sums."""
    plain = start(ranker.as_uri())
    declared = start(configure(copy, DECLARED).as_uri())
    rng = np.random.default_rng(2)
    mixed = [np.concatenate(part) for part in zip(*[small.pairs(rng, count) for count in [3, 1, 5]])]
    for dense, sparse in [*request_lists(10), tuple(mixed)]:
        for module, client in clients(declared):
            repeated = {"dense": dense, "sparse": sparse}
            expected = ask(*clients(plain)[0], repeated).as_numpy("score")
            assert ask(module, client, repeated).as_numpy("score").tobytes() == expected.tobytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_requests_of_different_users_share_a_run(start, copy, session, engine):
    batching = "batching: {maxBatchSize: 256, maxQueueDelay: 500ms}\n"
    runtime = start(configure(copy, f"engine: {engine}\n{DECLARED}{batching}").as_uri())
    asked = request_lists(16)
    together = threading.Barrier(len(asked))

    def send(index: int):
        form = forms(*asked[index])[index % 5]
        together.wait(30)
        return scores(runtime.infer(as_json(form)).json())

    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(send, range(len(asked))))
    for (dense, sparse), answer in zip(asked, answers, strict=True):
        (expected,) = session.run(None, {"dense": dense, "sparse": sparse})
        assert np.abs(answer - expected).max() <= TOLERANCE
    assert runtime.statistics()["execution_count"] < 16


def test_what_does_not_fit_is_named(start, copy):
    runtime = start(configure(copy, DECLARED + "topK: {ids: 'sparse[20]'}\n").as_uri())
    dense, sparse = small.pairs(np.random.default_rng(3), 4)
    user, item = sparse[:1, :20].copy(), sparse[:, 20:].copy()
    outside = user.copy()
    outside[0, 3] = 10**9
    bad = [
        ({"dense": dense[:2], "sparse": sparse}, '"dense": shape is [2, 13]; its first dimension is 1, or 4'),
        ({"dense": dense[:1], "sparse": sparse[:, :20].copy()}, '"sparse": shape is [4, 20]'),
        ({"dense": dense[:1], "sparse.user": user}, '"sparse.item" is missing'),
        ({"dense": dense[:1], "sparse.item": item}, '"sparse.user" is missing'),
        ({"dense": dense[:1], "sparse": sparse, "sparse.user": user}, "whole and in parts"),
        ({"dense": dense, "sparse.user": sparse[:3, :20].copy(), "sparse.item": item}, '"sparse.user": shape is [3, 20]'),
        ({"dense": dense[:1], "sparse.user": outside, "sparse.item": item}, '"sparse.user" has id 1000000000'),
        ({"dense": dense[:1], "sparse.user": user, "sparse.items": item}, '"sparse.item" is missing'),
    ]
    for form, named in bad:
        refused(runtime, form, named)
    once = {"dense": dense[:1], "sparse.user": user, "sparse.item": item}
    best = [ask(module, client, once, parameters={"top_k": 2}).as_numpy("ids") for module, client in clients(runtime)]
    assert best[0].tolist() == best[1].tolist() and set(best[0]) <= set(sparse[:, 20])


def test_one_row_without_the_declaration_is_refused(start, ranker):
    runtime = start(ranker.as_uri())
    dense, sparse = small.pairs(np.random.default_rng(3), 4)
    answer = runtime.infer(as_json({"dense": dense[:1], "sparse": sparse}))
    assert answer.status_code == 400, answer.text
