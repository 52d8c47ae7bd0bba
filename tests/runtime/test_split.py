"""Large requests are split over the engine threads that rest: the scores are those of one thread, and so are the errors."""

import threading

import make_small_ranker as small
import numpy as np
import pytest
from conftest import configure, wait_until
from test_rank_engine import NO_ONNX_RUNTIME, ask, clients

USER_ONCE = "requestInputs: [dense, 'sparse[0:20]']\n"


def split(runtime) -> float:
    return runtime.metric("pinnace_split_total")


@pytest.mark.parametrize("config", ["", USER_ONCE, USER_ONCE + "precision: bf16\n"])
def test_the_scores_of_one_thread_to_the_bit(start, copy, config):
    folder = configure(copy, config)
    alone = start(folder.as_uri(), "--workers", "1", environment=NO_ONNX_RUNTIME)
    shared = start(folder.as_uri(), "--workers", "3", environment=NO_ONNX_RUNTIME)
    sizes = [1, 500, 1024, 2049, 4096]
    for (module, one), (_, several) in zip(clients(alone), clients(shared), strict=True):
        for seed, rows in enumerate(sizes):
            tensors = dict(zip(("dense", "sparse"), small.pairs(np.random.default_rng(seed), rows), strict=True))
            expected = ask(module, one, tensors).as_numpy("score")
            before = split(shared)

            def same():
                """Until threads rest that can take parts."""
                got = ask(module, several, tensors).as_numpy("score")  # noqa: B023
                assert got.tobytes() == expected.tobytes()  # noqa: B023
                return rows < 1024 or split(shared) > before  # noqa: B023

            wait_until(same)
    assert split(alone) == 0
    counts = shared.statistics()["inference_stats"]
    assert counts["compute_infer"]["count"] == counts["success"]["count"]


def test_many_at_once_get_the_scores_that_each_has_alone(start, copy):
    runtime = start(copy.as_uri(), "--workers", "2")
    bodies = [small.request(*small.pairs(np.random.default_rng(seed), rows)) for seed, rows in enumerate([3, 1500, 64, 4096])]
    expected = [runtime.infer(body).json()["outputs"] for body in bodies]
    failures = []

    def client(own: int):
        for turn in range(6):
            which = (own + turn) % len(bodies)
            answer = runtime.infer(bodies[which])
            if answer.status_code != 200 or answer.json()["outputs"] != expected[which]:
                failures.append((which, answer.text[:200]))

    threads = [threading.Thread(target=client, args=[own]) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_best_candidates_and_one_error_for_a_bad_pair(start, copy):
    # No vocabularies: ids are checked where they are looked up.
    (copy / "config.yaml").write_text("device: cpu\n")
    runtime = start(configure(copy, "topK: {ids: 'sparse[20]'}\n").as_uri(), "--workers", "2")
    dense, sparse = small.pairs(np.random.default_rng(5), 4096)
    body = small.request(dense, sparse)
    scores = runtime.infer(body).json()["outputs"][0]["data"]
    best = runtime.infer(body | {"parameters": {"top_k": 5}}).json()["outputs"]
    assert best[0]["data"] == sorted(scores, reverse=True)[:5]
    sparse[4000, 25] = 2**40
    refused = runtime.infer(small.request(dense, sparse))
    assert refused.status_code == 400 and "outside its vocabulary" in refused.json()["error"]
    # One of each is counted, whatever the number of parts.
    assert runtime.metric('pinnace_requests_total{model="ranker",version="1",outcome="invalid"}') == 1
    assert runtime.infer(body).json()["outputs"][0]["data"] == scores
