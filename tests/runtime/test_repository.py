"""Several models in one process: Triton's layout and our own, loaded and unloaded one by one, and sharing fairly."""

import json
import shutil
import threading

import make_small_ranker as small
import numpy as np
import pytest
import requests
import scaled
import tritonclient.grpc
import tritonclient.http
from conftest import wait_until
from tritonclient.utils import InferenceServerException


@pytest.fixture
def models(tmp_path):
    """One of each kind."""
    root = tmp_path / "models"
    scaled.write(root / "own", 2.0)
    scaled.write(root / "plain", 3.0, manifest=False)
    scaled.write_triton(root / "triton", {1: 5.0, 2: 7.0}, "version_policy: { all { } }")
    (root / "README").write_text("beside the models")
    return root


def repository(start, root, *flags: str, wait: bool = True, **options):
    return start(None, "--model-repository", str(root), *flags, wait=wait, **options)


def states(runtime) -> dict:
    return {(line["name"], line.get("version", "")): line["state"] for line in runtime.index()}


def get(runtime, path: str):
    return requests.get(f"{runtime.url}/v2/models/{path}", timeout=5)


def right(runtime, model: str, factor: float, seed: int = 1):
    body = scaled.request(3, seed)
    assert scaled.scores(runtime.infer(body, model)) == scaled.expected(body, factor)


def test_each_model_and_version_is_served(start, models):
    runtime = repository(start, models)
    right(runtime, "own", 2.0)
    right(runtime, "plain", 3.0)
    # The highest version where none is named.
    for path, factor in [("triton", 7.0), ("triton/versions/1", 5.0), ("triton/versions/2", 7.0)]:
        right(runtime, path, factor)
    assert set(states(runtime).values()) == {"READY"} and len(states(runtime)) == 4
    assert {("triton", "1"), ("triton", "2")} <= set(states(runtime))
    assert get(runtime, "triton").json()["versions"] == ["1", "2"]
    for path in ["own/ready", "triton/ready", "triton/versions/1/ready"]:
        assert get(runtime, path).status_code == 200
    assert get(runtime, "triton/versions/3/ready").status_code == 404
    assert get(runtime, "other").status_code == 404
    config = get(runtime, "triton/config").json()
    assert config["max_batch_size"] == 64
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 100
    counts = {
        (stats["name"], stats["version"]): stats["inference_stats"]["success"]["count"]
        for stats in get(runtime, "stats").json()["model_stats"]
    }
    assert counts[("triton", "1")] == 1 and counts[("triton", "2")] == 2 and len(counts) == 4
    own = get(runtime, "triton/stats").json()["model_stats"]
    assert [stats["version"] for stats in own] == ["1", "2"]
    assert runtime.metric('pinnace_model_ready{model="triton",version="2"}') == 1
    assert runtime.metric('pinnace_requests_total{model="triton",version="1",outcome="ok"}') == 1


def test_triton_clients(start, models):
    runtime = repository(start, models)
    x = np.float32([[1, 2, 3, 4]])
    for module, port in [(tritonclient.http, runtime.port), (tritonclient.grpc, runtime.grpc_port)]:
        client = module.InferenceServerClient(f"127.0.0.1:{port}")
        tensor = module.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(x)
        for model, version, factor in [("own", "", 2.0), ("triton", "", 7.0), ("triton", "1", 5.0)]:
            assert client.is_model_ready(model, version)
            assert client.infer(model, [tensor], model_version=version).as_numpy("score") == [10 * factor]
        with pytest.raises(InferenceServerException, match="no version"):
            client.infer("triton", [tensor], model_version="9")
    admin = tritonclient.http.InferenceServerClient(f"127.0.0.1:{runtime.admin_port}")
    admin.unload_model("own")
    assert not client.is_model_ready("own")
    admin.load_model("own")
    assert client.is_model_ready("own")
    assert {model["name"] for model in admin.get_model_repository_index()} == {"own", "plain", "triton"}


def test_unload_load_and_new_ones(start, models):
    runtime = repository(start, models)
    assert runtime.load("own", "unload").status_code == 200
    answer = runtime.infer(scaled.request(), "own")
    assert answer.status_code == 503 and "unloaded" in answer.json()["error"]
    assert states(runtime)[("own", "")] == "UNAVAILABLE"
    # What was taken out on purpose does not make the replica unready.
    assert runtime.ready()
    right(runtime, "triton", 7.0)
    wait_until(lambda: runtime.metric("pinnace_versions_in_memory ") == 3)
    scaled.write(models / "own", 11.0)
    assert runtime.load("own").status_code == 200
    right(runtime, "own", 11.0)
    scaled.write(models / "new", 13.0)
    assert runtime.infer(scaled.request(), "new").status_code == 404
    assert runtime.load("new").status_code == 200
    right(runtime, "new", 13.0)
    # A third version; one that goes; one that changes.
    scaled.write_triton(models / "triton", {2: 17.0, 3: 19.0}, "version_policy: { specific { versions: [2, 3] } }")
    loaded = runtime.load("triton").json()["versions"]
    assert [(version["version"], version["unchanged"]) for version in loaded] == [("2", False), ("3", False)]
    right(runtime, "triton/versions/2", 17.0)
    right(runtime, "triton", 19.0)
    assert get(runtime, "triton/versions/1").status_code == 404
    assert all(version["unchanged"] for version in runtime.load("triton").json()["versions"])
    for name, status in [("other", 404), ("..", 404), ("%2e%2e", 404)]:
        url = f"{runtime.admin}/v2/repository/models/{name}/load"
        prepared = requests.Request("POST", url).prepare()
        prepared.url = url
        assert requests.Session().send(prepared, timeout=30).status_code == status


def test_a_version_that_fails_leaves_the_others(start, models):
    runtime = repository(start, models)
    (models / "triton" / "3").mkdir()
    (models / "triton" / "3" / "model.onnx").write_bytes(b"broken")
    answer = runtime.load("triton")
    assert answer.status_code == 422 and answer.json()["error"].startswith("ModelInvalid")
    assert states(runtime)[("triton", "3")] == "UNAVAILABLE"
    right(runtime, "triton", 7.0)
    assert get(runtime, "triton/versions/3/ready").status_code == 404


def test_one_bad_model_does_not_stop_the_others(start, models):
    bad = scaled.write_triton(models / "bad", {1: 2.0}, "optimization { priority: PRIORITY_MAX }")
    (models / "empty").mkdir()
    (models / "empty" / "notes.txt").write_text("no model")
    runtime = repository(start, models, wait=False)
    wait_until(lambda: "optimization is not read here" in str(runtime.index()) and "VERSION/model.onnx" in str(runtime.index()))
    wait_until(lambda: list(states(runtime).values()).count("READY") == 4)
    right(runtime, "own", 2.0)
    answer = runtime.infer(scaled.request(), "bad")
    assert answer.status_code == 503 and "optimization" in answer.json()["error"]
    assert requests.get(f"{runtime.url}/v2/health/ready", timeout=5).status_code == 503
    assert runtime.metric('pinnace_loads_total{model="bad",outcome="ConfigInvalid"}') == 1
    required = repository(start, models, "--require", "own,triton")
    right(required, "triton", 7.0)
    # Mended, and taken out: now all are ready.
    scaled.write_triton(bad, {1: 2.0})
    assert runtime.load("bad").status_code == 200
    assert runtime.load("empty", "unload").status_code == 200
    assert runtime.ready()


def test_repositories_that_cannot_be_served(start, tmp_path, models):
    (tmp_path / "empty").mkdir()
    for place, flags, named in [
        (str(tmp_path / "nowhere"), [], "nowhere"),
        (str(tmp_path / "empty"), [], "has no folders"),
        ("https://models.example/all", [], "cannot be listed"),
        (str(models), ["--require", "own,other"], "other"),
    ]:
        failure = repository(start, place, *flags, wait=False).failure()
        assert failure["reason"] == "ModelNotFound" and named in failure["message"], failure


def test_models_that_come_and_go_are_found(start, models):
    runtime = repository(start, models, "--reload-interval", "50ms")
    new = scaled.write(models.parent / "new", 23.0)
    new.rename(models / "new")
    wait_until(lambda: runtime.infer(scaled.request(), "new").status_code == 200)
    right(runtime, "new", 23.0)
    (models / "new").rename(models.parent / "gone")
    wait_until(lambda: all(name != "new" for name, _ in states(runtime)))
    right(runtime, "own", 2.0)
    # Unloaded by hand stays unloaded.
    assert runtime.load("own", "unload").status_code == 200
    scaled.write(models / "plain", 29.0, manifest=False)
    body = scaled.request()

    def served() -> bool:
        # While its folder is written, it may be gone.
        answer = runtime.infer(body, "plain")
        return answer.status_code == 200 and scaled.scores(answer) == scaled.expected(body, 29.0)

    wait_until(served)
    assert states(runtime)[("own", "")] == "UNAVAILABLE"


def flood(runtime, model: str, body: dict, clients: int):
    """Asks all the time; gives what ends it, and its statuses."""
    done, statuses, data = threading.Event(), [], json.dumps(body)

    def ask():
        connection = requests.Session()
        while not done.is_set():
            answer = connection.post(f"{runtime.url}/v2/models/{model}/infer", data=data, timeout=60)
            statuses.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()

    def end():
        done.set()
        for thread in threads:
            thread.join()

    return end, statuses


def test_a_flood_to_one_does_not_starve_another(start, models, ranker):
    shutil.copytree(ranker, models / "ranker")
    runtime = repository(start, models, "--workers", "1", "--request-timeout", "60s")
    large = small.request(*small.pairs(np.random.default_rng(5), 512))
    clients = 12
    end, statuses = flood(runtime, "ranker", large, clients)
    try:
        wait_until(lambda: len(statuses) >= clients)
        for number in range(30):
            right(runtime, "own", 2.0, number)
        flooded, own = runtime.statistics("ranker"), runtime.statistics("own")["inference_stats"]["queue"]
        run = flooded["inference_stats"]["compute_infer"]["ns"] / flooded["execution_count"]
        # First come, first served would put nearly all clients of the flood before each request.
        assert own["count"] == 30 and own["ns"] / own["count"] <= run * clients / 2
    finally:
        end()
    assert set(statuses) == {200}


def test_a_flood_to_one_leaves_another_its_share_of_the_queue(start, models, ranker):
    shutil.copytree(ranker, models / "ranker")
    flags = ["--workers", "1", "--max-queue", "8", "--request-timeout", "60s"]
    runtime = repository(start, models, *flags)
    large = small.request(*small.pairs(np.random.default_rng(5), 512))
    end, statuses = flood(runtime, "ranker", large, 12)
    answers = []

    def one_of_the_flood_made_room() -> bool:
        answers.append(runtime.infer(scaled.request(), "own"))
        # A line of the metric has the version before the outcome.
        lines = requests.get(f"{runtime.admin}/metrics", timeout=5).text.splitlines()
        displaced = any('model="ranker"' in line and 'outcome="refused_share"' in line for line in lines)
        return displaced and len(answers) >= 60

    try:
        wait_until(lambda: 429 in statuses)
        wait_until(one_of_the_flood_made_room)
    finally:
        end()
    # Who floods is refused; the other only if none of the flood waits at that moment.
    served = sum(answer.status_code == 200 for answer in answers)
    assert served >= len(answers) * 2 / 3, [answer.text for answer in answers if answer.status_code != 200][:3]
    assert set(statuses) == {200, 429}
