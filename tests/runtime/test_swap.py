"""A model is replaced in place: no request is lost, each answer is of one version, and a bad one never takes over."""

import contextlib
import itertools
import json
import threading

import make_small_ranker as small
import numpy as np
import pytest
import requests
import scaled
import tritonclient.grpc
from conftest import NAME, digest_of, wait_until

# No version is given: it is the digest's first digits.
UNNAMED = {"PINNACE_MODEL_VERSION": ""}


def version_of(folder) -> str:
    return digest_of(folder / "manifest.json").removeprefix("sha256:")[:12]


@contextlib.contextmanager
def clients(runtime, factors: dict[str, float]):
    """Four clients over HTTP and one over gRPC that ask all the time. Gives counts by version, and what went wrong."""
    counts, wrong, done = dict.fromkeys(factors, 0), [], threading.Event()

    def check(version: str, answer: list[float], body: dict):
        if answer != scaled.expected(body, factors[version]):
            wrong.append((version, answer))
        counts[version] += 1

    def http(seed: int):
        connection = requests.Session()
        for number in itertools.count():
            if done.is_set():
                return
            body = scaled.request(1 + number % 7, seed + number)
            answer = connection.post(f"{runtime.url}/v2/models/{NAME}/infer", json=body, timeout=30)
            if answer.status_code == 200:
                check(answer.json()["model_version"], answer.json()["outputs"][0]["data"], body)
            else:
                wrong.append(answer.text)

    def grpc():
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{runtime.grpc_port}") as client:
            for number in itertools.count():
                if done.is_set():
                    return
                body = scaled.request(1 + number % 7, number)
                (tensor,) = body["inputs"]
                x = tritonclient.grpc.InferInput("x", tensor["shape"], "FP32")
                x.set_data_from_numpy(np.float32(tensor["data"]).reshape(tensor["shape"]))
                try:
                    answer = client.infer(NAME, [x])
                    check(answer.get_response().model_version, answer.as_numpy("score").tolist(), body)
                except Exception as error:  # noqa: BLE001: whatever it is, a request was lost
                    wrong.append(repr(error))

    threads = [threading.Thread(target=http, args=[1000 * seed]) for seed in range(4)]
    threads.append(threading.Thread(target=grpc))
    for thread in threads:
        thread.start()
    try:
        yield counts, wrong
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("swaps", [50, pytest.param(1000, marks=pytest.mark.long)])
def test_swaps_under_load(start, tmp_path, swaps):
    folder, factors = tmp_path / "model", {}
    for factor in [3.0, 5.0]:
        factors[version_of(scaled.write(folder, factor))] = factor
    runtime = start(folder.as_uri(), "--workers", "2", environment=UNNAMED)
    with clients(runtime, factors) as (counts, wrong):
        for swap in range(swaps):
            scaled.write(folder, [3.0, 5.0][swap % 2])
            answer = runtime.load()
            assert answer.status_code == 200, answer.text
            (loaded,) = answer.json()["versions"]
            assert (loaded["version"], loaded["unchanged"]) == (version_of(folder), False)
            # From now on there is no other.
            answer = runtime.infer(scaled.request())
            assert answer.json()["model_version"] == version_of(folder)
            before = sum(counts.values())
            wait_until(lambda: sum(counts.values()) > before or wrong)
            assert not wrong, wrong[:3]
    assert not wrong, wrong[:3]
    assert min(counts.values()) > swaps / 4, counts
    assert runtime.metric("pinnace_loads_total") == swaps + 1
    # What was replaced is gone from memory, and the cache keeps the one before.
    wait_until(lambda: runtime.metric("pinnace_versions_in_memory ") == 1)
    assert len(list((tmp_path / "cache" / "sha256").iterdir())) == 2


def damage(folder, what: str):
    model = folder / "model.onnx"
    if what == "truncated":
        content = model.read_bytes()
        scaled.write(folder, 5.0)
        model.write_bytes(content[: len(content) // 2])
        small.write_manifest(folder)
    elif what == "digest":
        scaled.write(folder, 5.0)
        content = bytearray(model.read_bytes())
        content[-1] ^= 1
        model.write_bytes(content)
    elif what == "size":
        scaled.write(folder, 5.0)
        model.write_bytes(model.read_bytes() + b"x")
    elif what == "config":
        scaled.write(folder, 5.0, config="devise: cpu\n")
    elif what == "sample":
        scaled.write(folder, 5.0)
        (folder / "samples").mkdir()
        answer = {"outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": [12345.0]}]}
        (folder / "samples" / "one.request.json").write_text(json.dumps(scaled.request()))
        (folder / "samples" / "one.response.json").write_text(json.dumps(answer))
        small.write_manifest(folder)
    elif what == "manifest":
        (folder / "manifest.json").unlink()
    else:
        raise ValueError(what)


BAD = [
    ("truncated", 422, "ModelInvalid", "model"),
    ("digest", 422, "DigestMismatch", "model.onnx has digest"),
    ("size", 422, "DigestMismatch", "model.onnx has"),
    ("config", 422, "ConfigInvalid", "devise"),
    ("sample", 422, "ModelInvalid", "known answer"),
    ("manifest", 404, "ModelNotFound", "manifest.json"),
]


def test_a_bad_one_leaves_the_old_one(start, tmp_path):
    folder = scaled.write(tmp_path / "model", 3.0)
    runtime = start(folder.as_uri(), environment=UNNAMED)
    good = version_of(folder)
    with clients(runtime, {good: 3.0}) as (counts, wrong):
        for what, status, reason, named in BAD:
            damage(scaled.write(folder, 3.0), what)
            answer = runtime.load()
            assert answer.status_code == status, answer.text
            assert answer.json()["error"].startswith(reason) and named in answer.json()["error"], answer.text
            (listed,) = runtime.index()
            assert (listed["version"], listed["state"]) == (good, "READY")
            assert listed["reason"] == answer.json()["error"]
            assert runtime.metric(f'pinnace_loads_total{{model="{NAME}",outcome="{reason}"}}') >= 1
            assert runtime.ready()
        # The same as before: nothing to do, and the reason is gone.
        scaled.write(folder, 3.0)
        (loaded,) = runtime.load().json()["versions"]
        assert (loaded["version"], loaded["unchanged"]) == (good, True)
        assert runtime.index()[0].get("reason", "") == ""
        before = sum(counts.values())
        wait_until(lambda: sum(counts.values()) > before or wrong)
    assert not wrong, wrong[:3]


def test_one_that_does_not_fit_is_refused_before_it_is_loaded(start, tmp_path):
    folder = scaled.write(tmp_path / "model", 3.0)
    limit = 1 << 30
    runtime = start(folder.as_uri(), "--memory-limit", str(limit), environment=UNNAMED)
    scaled.write(folder, 5.0)
    assert runtime.load().status_code == 200
    scaled.write(folder, 3.0, padding=100 << 20)
    answer = runtime.load()
    assert answer.status_code == 507, answer.text
    assert answer.json()["error"].startswith("NoMemory") and f"of {limit} bytes are free" in answer.json()["error"]
    body = scaled.request(3)
    assert scaled.scores(runtime.infer(body)) == scaled.expected(body, 5.0)
    assert runtime.metric('pinnace_versions_in_memory ') == 1


def load_revision(runtime) -> str:
    return requests.get(f"{runtime.admin}/load", timeout=5).json()["revision"]


def test_parameters_of_a_load(start, tmp_path):
    folder = scaled.write(tmp_path / "model", 3.0)
    flags = ["--model-digest", digest_of(folder / "manifest.json"), "--revision", "r1"]
    runtime = start(folder.as_uri(), *flags)
    assert load_revision(runtime) == "r1"
    scaled.write(folder, 5.0)
    digest = digest_of(folder / "manifest.json")
    # The digest that was given at the start still holds, and that model is there.
    assert runtime.load().json()["versions"][0]["unchanged"]
    answer = runtime.load(digest="sha256:" + "0" * 64)
    assert answer.status_code == 422 and answer.json()["error"].startswith("DigestMismatch")
    assert load_revision(runtime) == "r1"
    (loaded,) = runtime.load(digest=digest, version="2", revision="r2").json()["versions"]
    assert loaded == {"version": "2", "digest": digest, "unchanged": False}
    assert load_revision(runtime) == "r2"
    answer = runtime.infer(scaled.request(2))
    assert answer.json()["model_version"] == "2"
    assert scaled.scores(answer) == scaled.expected(scaled.request(2), 5.0)
    base = f"{runtime.url}/v2/models/{NAME}/versions"
    assert requests.post(f"{base}/2/infer", json=scaled.request(), timeout=30).status_code == 200
    answer = requests.post(f"{base}/1/infer", json=scaled.request(), timeout=30)
    assert answer.status_code == 404 and '"2" is served' in answer.json()["error"]
    for parameters, named in [({"config": "{}"}, "config"), ({"digest": "x"}, "digest"), ({"version": "a/b"}, "version")]:
        answer = runtime.load(**parameters)
        assert answer.status_code == 400 and named in answer.json()["error"], answer.text
    answer = runtime.load("other")
    assert answer.status_code == 404 and "other" in answer.json()["error"]
    assert len(runtime.index()) == 1
    # Another version without a name of its own is the revision.
    scaled.write(folder, 7.0)
    assert runtime.load(digest=digest_of(folder / "manifest.json"), version="3").status_code == 200
    assert load_revision(runtime) == "3"


def test_clients_load_nothing(start, tmp_path):
    runtime = start(scaled.write(tmp_path / "model", 3.0).as_uri())
    for what in ["load", "unload"]:
        answer = requests.post(f"{runtime.url}/v2/repository/models/{NAME}/{what}", json={}, timeout=5)
        assert answer.status_code == 404
    assert scaled.scores(runtime.infer(scaled.request())) == scaled.expected(scaled.request(), 3.0)


def test_new_versions_are_found(start, tmp_path):
    folder = scaled.write(tmp_path / "model", 3.0)
    runtime = start(folder.as_uri(), "--reload-interval", "50ms", environment=UNNAMED)
    served = lambda: runtime.infer(scaled.request()).json()["model_version"]  # noqa: E731
    assert served() == version_of(folder)
    # A folder that is being written is read again when it is complete.
    new = scaled.write(tmp_path / "new", 5.0)
    folder.rename(tmp_path / "old")
    new.rename(folder)
    wait_until(lambda: served() == version_of(folder))
    failures = lambda: runtime.metric(f'pinnace_loads_total{{model="{NAME}",outcome="ConfigInvalid"}}')  # noqa: E731
    broken = scaled.write(tmp_path / "broken", 5.0, config="devise: cpu\n")
    folder.rename(tmp_path / "older")
    broken.rename(folder)
    wait_until(lambda: failures() == 1)
    assert "devise" in runtime.index()[0]["reason"]
    good = scaled.write(tmp_path / "good", 7.0)
    folder.rename(tmp_path / "oldest")
    good.rename(folder)
    wait_until(lambda: served() == version_of(folder))
    # A broken one is tried once, however often it is looked at.
    assert failures() == 1


def test_a_pinned_digest_is_not_watched(start, tmp_path):
    folder = scaled.write(tmp_path / "model", 3.0)
    flags = ["--model-digest", digest_of(folder / "manifest.json"), "--reload-interval", "1s"]
    failure = start(folder.as_uri(), *flags, wait=False).failure()
    assert failure["reason"] == "ConfigInvalid" and "--reload-interval" in failure["message"]
