"""A light model feeds a heavy one: the answer is, to the bit, that of a request to each; and nothing else changes for clients."""

import itertools
import shutil
import subprocess
import sys
import threading

import folders
import make_light_ranker as light
import numpy as np
import onnxruntime
import pytest
import requests
import scaled
from conftest import MODELS, NAME, binary, wait_until
from make_small_ranker import write_manifest
from onnx import TensorProto, helper, numpy_helper
from test_inline import inline
from test_item_table import expected, rows_of, table
from test_rank_engine import NO_ONNX_RUNTIME, ask, clients
from test_repository import flood, get, repository
from test_user_once import as_json
from tritonclient.utils import InferenceServerException

KEEP, K, CONTEXT = 40, 10, 4
CASCADE = f"cascade: {{model: light, keep: {KEEP}}}\n"
HEAVY = (
    "device: cpu\nrequestInputs: [user_dense]\nitemTable: {ids: item, fills: [item_vector]}\n"
    f"topK: {{ids: item, score: score, k: {K}}}\n"
)


def heavy() -> bytes:
    """The user, the item's vector from a table of its own, and a context for each candidate: two layers."""
    rng = np.random.default_rng(11)
    width = light.DENSE + light.VECTOR + CONTEXT
    shapes = {"w1": (width, 256), "w2": (256, 1)}
    constants = [
        numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Concat", ["user_dense", "item_vector", "context"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["positive"]),
        helper.make_node("MatMul", ["positive", "w2"], ["score"]),
    ]
    rows = lambda name, columns: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])  # noqa: E731
    inputs = [rows("user_dense", light.DENSE), rows("item_vector", light.VECTOR), rows("context", CONTEXT)]
    return folders.made(helper.make_graph(nodes, "heavy", inputs, [rows("score", 1)], constants))


def write_heavy(folder, items, config: str):
    """Its rows of the same items are others than the light model's."""
    folders.write(folder, heavy(), config, manifest=False)
    (folder / "items").mkdir()
    vectors = np.random.default_rng(12).normal(0, 1, (len(items), light.VECTOR)).astype(np.float32)
    np.save(folder / "items" / "item.npy", items)
    np.save(folder / "items" / "item_vector.npy", vectors)
    return dict(zip(items.tolist(), vectors))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The light ranker; the heavy one that it feeds, and the same alone."""
    root = tmp_path_factory.mktemp("cascade") / "models"
    script = [sys.executable, MODELS / "make_light_ranker.py", root / "light"]
    subprocess.run(script, check=True, capture_output=True)
    items = np.load(root / "light" / "items" / "item.npy")
    for name, config in [(NAME, HEAVY + CASCADE), ("alone", HEAVY)]:
        write_heavy(root / name, items, config)
    return root


@pytest.fixture
def changeable(models, tmp_path):
    return shutil.copytree(models, tmp_path / "models")


def request(rng, items: np.ndarray, count: int) -> tuple[dict, dict, np.ndarray]:
    """User, ids, and a context for each candidate."""
    context = rng.normal(0, 1, (count, CONTEXT)).astype(np.float32)
    return light.user(rng), {"item": rng.choice(items, count, replace=False)}, context


def two_requests(module, client, user: dict, ids: dict, context: np.ndarray):
    first = ask(module, client, user | ids, "light", parameters={"top_k": KEEP}).as_numpy("ids")
    place = {item: row for row, item in enumerate(ids["item"].tolist())}
    kept = context[[place[item] for item in first.tolist()]]
    form = {"user_dense": user["user_dense"], "item": first, "context": kept}
    return first, ask(module, client, form, "alone")


def test_the_answer_is_that_of_two_requests(start, models):
    runtime = repository(start, models, environment=NO_ONNX_RUNTIME)
    items = np.load(models / "light" / "items" / "item.npy")
    rng = np.random.default_rng(21)
    for count in [1, 3, KEEP, 41, 300]:
        user, ids, context = request(rng, items, count)
        form = user | ids | {"context": context}
        outputs = {x["name"]: x for x in runtime.infer(as_json(form)).json()["outputs"]}
        for module, client in clients(runtime):
            _, second = two_requests(module, client, user, ids, context)
            answer = ask(module, client, form)
            assert answer.as_numpy("ids").tolist() == second.as_numpy("ids").tolist() == outputs["ids"]["data"]
            assert answer.as_numpy("score").tobytes() == second.as_numpy("score").tobytes()
            assert np.float32(outputs["score"]["data"]).tobytes() == answer.as_numpy("score").tobytes()
            assert len(answer.as_numpy("ids")) == min(count, K)
            # Fewer than are kept, or all of them.
            for k, keep in [(3, KEEP), (500, 20), (500, KEEP)]:
                short = ask(module, client, form, parameters={"top_k": k, "keep": keep}).as_numpy("ids")
                assert len(short) == min(k, keep, count)


def test_the_answer_is_that_of_onnx_runtime(start, models):
    runtime = repository(start, models)
    reference, second = (
        onnxruntime.InferenceSession(str(models / name / "model.onnx"), providers=["CPUExecutionProvider"])
        for name in ["light", NAME]
    )
    tables = {name: table(models / "light") for name in ["light"]}
    items = tables["light"]["item"]
    vectors = dict(zip(items.tolist(), np.load(models / NAME / "items" / "item_vector.npy")))
    rng = np.random.default_rng(22)
    user, ids, context = request(rng, items, 400)
    utility = light.utility(expected(reference, user, rows_of(tables["light"], ids["item"])))
    order = np.argsort(-utility)
    kept = order[:KEEP]
    own = np.stack([vectors[item] for item in ids["item"][kept].tolist()])
    repeated = np.repeat(user["user_dense"], KEEP, axis=0)
    (scores,) = second.run(["score"], {"user_dense": repeated, "item_vector": own, "context": context[kept]})
    best = np.argsort(-scores.ravel())
    # Far enough apart that an engine's last bits change nobody's place.
    assert utility[order[KEEP - 1]] - utility[order[KEEP]] > 1e-4
    assert np.diff(scores.ravel()[best[: K + 1]]).max() < -1e-4
    for module, client in clients(runtime):
        answer = ask(module, client, user | ids | {"context": context})
        assert answer.as_numpy("ids").tolist() == ids["item"][kept][best[:K]].tolist()
        assert np.abs(answer.as_numpy("score") - scores[best[:K]]).max() <= 2e-5


def test_each_stage_is_counted_and_the_request_once(start, models):
    runtime = repository(start, models)
    items = np.load(models / "light" / "items" / "item.npy")
    user, ids, context = request(np.random.default_rng(1), items, 100)
    for _ in range(3):
        assert runtime.infer(as_json(user | ids | {"context": context})).status_code == 200
    (_, http), (module, client) = clients(runtime)
    assert len(ask(module, client, user | ids | {"context": context}).as_numpy("ids")) == K
    bad = runtime.infer(as_json(user | ids))
    assert bad.status_code == 400 and '"context" is missing' in bad.json()["error"]
    first, second = runtime.statistics("light"), runtime.statistics(NAME)
    assert (first["inference_count"], second["inference_count"]) == (500, 4 * KEEP)
    assert first["inference_stats"]["success"]["count"] == first["inference_stats"]["fail"]["count"] == 0
    assert second["inference_stats"]["success"]["count"] == 4 and second["inference_stats"]["fail"]["count"] == 1

    def counted(metric: str, model: str, outcome: str) -> float:
        version = get(runtime, model).json()["versions"][0]
        return runtime.metric(f'pinnace_{metric}_total{{model="{model}",version="{version}",outcome="{outcome}"}}')

    for metric, model, outcome, count in [
        ("requests", NAME, "ok", 4), ("requests", NAME, "invalid", 1), ("requests", "light", "ok", 0),
        ("pairs", "light", "ok", 400), ("pairs", "light", "invalid", 100),
        ("pairs", NAME, "ok", 4 * KEEP), ("pairs", NAME, "invalid", 0), ("items", NAME, "ok", 4 * K),
    ]:  # fmt: skip
        assert counted(metric, model, outcome) == count, (metric, model, outcome)
    assert runtime.metric("pinnace_in_flight ") == 0 and runtime.metric("pinnace_in_flight_bytes ") == 0
    # A stranger asks what to send.
    metadata = get(runtime, NAME).json()
    names = [x["name"] for x in metadata["inputs"]]
    assert names == ["user_dense", "context", "item", "user_ids"]
    config = get(runtime, f"{NAME}/config").json()
    assert config["parameters"]["cascade"]["string_value"] == f"light: {KEEP}"
    assert http.is_model_ready(NAME) and client.is_model_ready(NAME)


def refused(runtime, form: dict, status: int, named: str):
    answer = runtime.infer(as_json(form))
    assert answer.status_code == status and named in answer.json()["error"], answer.text
    module, client = clients(runtime)[1]
    with pytest.raises(InferenceServerException, match="UNAVAILABLE" if status == 503 else "INVALID") as error:
        ask(module, client, form)
    assert named in error.value.message()


def test_a_light_model_that_is_not_there_or_does_not_fit(start, changeable):
    runtime = repository(start, changeable)
    items = np.load(changeable / "light" / "items" / "item.npy")
    user, ids, context = request(np.random.default_rng(1), items, 100)
    form = user | ids | {"context": context}
    refused(runtime, user | {"item": np.int64([3])} | {"context": context[:1]}, 400, "light model \"light\" of the cascade")
    # A new version that would end the cascade is refused, and the old one goes on.
    config = (changeable / "light" / "config.yaml").read_text()
    (changeable / "light" / "config.yaml").write_text(config.replace("maxBatchSize: 4096", f"maxBatchSize: {KEEP}"))
    (changeable / "light" / "manifest.json").unlink()
    answer = runtime.load("light")
    assert answer.status_code == 422 and 'the model feeds "ranker" (cascade)' in answer.json()["error"], answer.text
    assert runtime.infer(as_json(form)).status_code == 200
    assert runtime.load("light", "unload").status_code == 200
    refused(runtime, form, 503, 'is fed by "light" (cascade.model), which does not answer')
    module, client = clients(runtime)[1]
    assert get(runtime, f"{NAME}/ready").status_code == 503 and not client.is_model_ready(NAME)
    # It was taken out on purpose.
    assert runtime.ready()
    # Now nothing that works is ended; the heavy one says why it does not answer.
    assert runtime.load("light").status_code == 200
    refused(runtime, form, 503, "which does not fit: cascade.keep is 40")
    assert not runtime.ready()
    (changeable / "light" / "config.yaml").write_text(config)
    assert runtime.load("light").status_code == 200 and runtime.ready()
    assert runtime.infer(as_json(form)).status_code == 200


def test_a_heavy_model_that_cannot_be_fed_is_not_loaded(start, changeable):
    runtime = repository(start, changeable)
    file = changeable / NAME / "config.yaml"
    for old, new, named in [
        (f"keep: {KEEP}", "keep: 0", "cascade.keep is 0"),
        ("model: light", f"model: {NAME}", "it is the model itself"),
        (f", k: {K}}}", f", k: {K}}}\nouputs: {{}}", "ouputs"),
        ("model: light", "model: fed", '"fed" has a cascade itself'),
    ]:
        if "fed" in new:
            shutil.copytree(changeable / NAME, changeable / "fed")
            assert runtime.load("fed").status_code == 200
        file.write_text((HEAVY + CASCADE).replace(old, new))
        answer = runtime.load(NAME)
        assert answer.status_code == 422 and answer.json()["error"].startswith("ConfigInvalid")
        assert named in answer.json()["error"], answer.text
        file.write_text(HEAVY + CASCADE)


def test_one_model_alone_has_no_cascade(start, models, tmp_path):
    folder = shutil.copytree(models / NAME, tmp_path / "one")
    write_manifest(folder)
    failure = start(folder.as_uri(), wait=False).failure()
    assert failure["reason"] == "ConfigInvalid" and "--model-repository" in failure["message"]


@pytest.fixture
def small(tmp_path):
    """Two models of the same rows by id, which are told apart by the factors of their scores."""
    root, rng = tmp_path / "models", np.random.default_rng(3)
    items = {"item": np.arange(64), "x": rng.integers(-9, 10, (64, scaled.WIDTH)).astype(np.float32)}

    def write(name: str, factor: float, more: str = ""):
        config = "device: cpu\nitemTable: {ids: item, fills: [x]}\ntopK: {ids: item}\n" + more
        scaled.write(root / name, factor, config, manifest=False)
        (root / name / "items").mkdir()
        for key, rows in items.items():
            np.save(root / name / "items" / f"{key}.npy", rows)

    def answer(first: float, second: float, keep: int = 8) -> tuple[list[int], list[float]]:
        sums = items["x"].sum(axis=1)
        kept = sorted(range(64), key=lambda item: (-first * sums[item], item))[:keep]
        best = sorted(kept, key=lambda item: (-second * sums[item], item))
        return best, [float(second * sums[item]) for item in best]

    return root, write, answer


FED = "cascade: {model: light, keep: 8}\n"


def test_swaps_of_both_under_load(start, small):
    root, write, answer = small
    write("light", 1.0)
    write(NAME, 2.0, FED)
    runtime = repository(start, root, "--workers", "2")
    right = {str(answer(first, second)) for first in (1.0, -1.0) for second in (2.0, -3.0)}
    body = as_json({"item": np.arange(64)})
    seen, wrong, done = dict.fromkeys(right, 0), [], threading.Event()

    def ask_all_the_time():
        connection = requests.Session()
        while not done.is_set():
            found = connection.post(f"{runtime.url}/v2/models/{NAME}/infer", json=body, timeout=30)
            if found.status_code != 200:
                wrong.append(found.text)
                continue
            outputs = {x["name"]: x["data"] for x in found.json()["outputs"]}
            key = str((outputs["ids"], outputs["score"]))
            if key in right:
                seen[key] += 1
            else:
                wrong.append(key)

    threads = [threading.Thread(target=ask_all_the_time) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number, first in zip(range(20), itertools.cycle([-1.0, 1.0])):
            write("light", first)
            assert runtime.load("light").status_code == 200
            second = [-3.0, 2.0][number // 2 % 2]
            write(NAME, second, FED)
            assert runtime.load(NAME).status_code == 200
            # From now on it is these two.
            before = seen[str(answer(first, second))]
            wait_until(lambda: seen[str(answer(first, second))] > before or wrong)  # noqa: B023
            assert not wrong, wrong[:3]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    assert min(seen.values()) > 0, seen
    wait_until(lambda: runtime.metric("pinnace_versions_in_memory ") == 2)


def test_short_stages_run_at_once_with_the_same_answer(start, small):
    root, write, answer = small
    write("light", 1.0)
    write(NAME, -2.0, FED)
    runtime = repository(start, root, environment=NO_ONNX_RUNTIME)
    module, client = clients(runtime)[1]

    def both_at_once() -> bool:
        before = inline(runtime)
        found = ask(module, client, {"item": np.arange(64)})
        assert (found.as_numpy("ids").tolist(), found.as_numpy("score").tolist()) == answer(1.0, -2.0)
        return inline(runtime) == before + 2

    wait_until(both_at_once)


def test_the_heavy_model_has_a_shadow(start, small):
    """Which sees the candidates that it sees; the light model's sees all."""
    root, write, answer = small
    write("light", 1.0, "shadow: {model: other, percent: 100}\n")
    write(NAME, 2.0, FED + "shadow: {model: twin, percent: 100}\n")
    write("twin", 2.0)
    write("other", 5.0)
    runtime = repository(start, root)
    for _ in range(5):
        (score, ids) = runtime.infer(as_json({"item": np.arange(64)})).json()["outputs"]
        assert (ids["data"], score["data"]) == answer(1.0, 2.0)
    rows = lambda model: runtime.statistics(model)["inference_count"]  # noqa: E731
    wait_until(lambda: (rows("twin"), rows("other")) == (5 * 8, 5 * 64))
    assert runtime.metric("pinnace_shadow_overlap_ratio_sum") == 10


# The light model's own clients share its lane with the cascade; those of another model leave the cascade its share of the queue.
@pytest.mark.parametrize("flooded, least", [("light", 1), ("alone", 26)])
def test_a_flood_refuses_some_and_fails_none(start, models, flooded, least):
    flags = ["--workers", "1", "--max-queue", "8", "--request-timeout", "60s"]
    runtime = repository(start, models, *flags)
    items = np.load(models / "light" / "items" / "item.npy")
    user, ids, context = request(np.random.default_rng(1), items, 200)
    many = {"item": np.tile(items, 2)}
    if flooded == "alone":
        many |= {"user_dense": user["user_dense"], "context": np.zeros((2 * len(items), CONTEXT), np.float32)}
    else:
        many |= user
    end, statuses = flood(runtime, flooded, as_json(many), 12)
    try:
        wait_until(lambda: 429 in statuses)
        answers = [runtime.infer(as_json(user | ids | {"context": context})) for _ in range(40)]
    finally:
        end()
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert sum(answer.status_code == 200 for answer in answers) >= least, [answer.text for answer in answers][:3]
    assert set(statuses) == {200, 429}
    wait_until(lambda: runtime.metric("pinnace_in_flight ") == runtime.metric("pinnace_in_flight_bytes ") == 0)


def test_commands_say_what_they_know(models):
    folder = models / "light"
    inspected = subprocess.run([binary(), "inspect", models / NAME], capture_output=True, text=True, check=True).stdout
    assert f"cascade: scores the {KEEP} best candidates of light" in inspected
    assert "cascade" not in subprocess.run([binary(), "inspect", folder], capture_output=True, text=True).stdout
    checked = subprocess.run([binary(), "check", models / NAME], capture_output=True, text=True).stdout
    assert 'cascade: "light" is not here to be checked' in checked
