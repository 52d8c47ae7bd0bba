"""Items are named by their ids: the answers are those of the request that sends their rows, whatever the door and the engine;
and rows change while requests go on."""

import concurrent.futures
import hashlib
import json
import subprocess
import sys
import threading

import make_light_ranker as light
import make_small_ranker as small
import numpy as np
import onnxruntime
import pytest
import requests
from conftest import MODELS, NAME
from test_rank_engine import ask, clients, parameters
from test_user_once import as_json, refused

ENGINES = ["rank", "onnxruntime"]
TOLERANCE = 2e-5
FILLED = ["item_vector", "item_statistics"]


@pytest.fixture(scope="session")
def light_ranker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("light") / "ranker"
    subprocess.run([sys.executable, MODELS / "make_light_ranker.py", folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def folder(light_ranker, tmp_path):
    """A copy that a test may change."""
    subprocess.run(["cp", "-r", light_ranker, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def reference(light_ranker):
    return onnxruntime.InferenceSession(str(light_ranker / "model.onnx"), providers=["CPUExecutionProvider"])


def change(folder, old: str, new: str):
    config = folder / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    small.write_manifest(folder)
    return folder


def table(folder) -> dict[str, np.ndarray]:
    return {name: np.load(folder / "items" / f"{name}.npy") for name in ["item", *FILLED]}


def rows_of(items: dict, ids: np.ndarray) -> dict[str, np.ndarray]:
    place = {item: row for row, item in enumerate(items["item"].tolist())}
    rows = [place[item] for item in ids.tolist()]
    return {name: items[name][rows] for name in FILLED}


def expected(reference, user: dict, rows: dict) -> dict[str, np.ndarray]:
    count = len(rows["item_vector"])
    repeated = {name: np.repeat(value, count, axis=0) for name, value in user.items()}
    return dict(zip(light.HEADS, reference.run(light.HEADS, repeated | rows)))


def delta(base: str, target: str, rows: dict, removed=()) -> bytes:
    """As docs/how-to/item-table.md makes it."""
    datatypes = {"float32": "FP32", "int64": "INT64"}
    inputs = [
        {"name": name, "shape": x.shape, "datatype": datatypes[str(x.dtype)], "parameters": {"binary_data_size": x.nbytes}}
        for name, x in rows.items()
    ]
    head = {"base": base, "target": target, "inputs": inputs, "removed": list(removed)}
    return json.dumps(head).encode() + b"".join(x.tobytes() for x in rows.values())


def put(runtime, body: bytes, digest: str | None = None) -> requests.Response:
    digest = digest or "sha256:" + hashlib.sha256(body).hexdigest()
    url = f"{runtime.admin}/v2/models/{NAME}/items"
    return requests.put(url, data=body, headers={"Pinnace-Digest": digest}, timeout=30)


@pytest.mark.parametrize("engine", ENGINES)
def test_ids_are_rows(start, folder, reference, engine):
    runtime = start(change(folder, "device: cpu", f"device: cpu\nengine: {engine}").as_uri())
    assert parameters(runtime)["item_table"] == "item: item_vector item_statistics"
    rng, items = np.random.default_rng(5), table(folder)
    for count in [1, 7, 300]:
        ids, user = rng.choice(items["item"], count), light.user(rng)
        rows = rows_of(items, ids)
        heads = expected(reference, user, rows)
        for form in [user | {"item": ids}, user | rows]:
            answers = [
                ask(module, client, form, parameters={"top_k": 0}) for module, client in clients(runtime)
            ]
            asked = as_json(form) | {"parameters": {"top_k": 0}}
            outputs = {x["name"]: np.float32(x["data"]) for x in runtime.infer(asked).json()["outputs"]}
            assert outputs.keys() == set(light.HEADS)
            for name, scores in heads.items():
                assert np.abs(outputs[name] - scores.ravel()).max() <= TOLERANCE
                for answer in answers:
                    assert answer.as_numpy(name).tobytes() == outputs[name].tobytes()


def test_rows_in_bf16_are_rounded_rows(start, folder):
    """As if a client had sent them rounded: to the bit."""
    runtime = start(change(folder, "fills:", "precision: bf16, fills:").as_uri())
    rng, items = np.random.default_rng(5), table(folder)
    ids, user = rng.choice(items["item"], 100), light.user(rng)
    bits = {name: rows.view(np.uint32) for name, rows in rows_of(items, ids).items()}
    rounded = {name: (x + 0x7FFF + ((x >> 16) & 1)) & 0xFFFF0000 for name, x in bits.items()}
    rounded = {name: x.astype(np.uint32).view(np.float32) for name, x in rounded.items()}
    for module, client in clients(runtime):
        one, other = (ask(module, client, user | form, parameters={"top_k": 0}) for form in ({"item": ids}, rounded))
        for name in light.HEADS:
            assert one.as_numpy(name).tobytes() == other.as_numpy(name).tobytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_requests_of_different_users_share_a_run(start, folder, reference, engine):
    batching = "batching: {maxBatchSize: 256, maxQueueDelay: 500ms}"
    runtime = start(change(folder, "device: cpu", f"device: cpu\nengine: {engine}\n{batching}").as_uri())
    rng, items = np.random.default_rng(9), table(folder)
    asked = [(light.user(rng), rng.choice(items["item"], int(rng.integers(1, 20)))) for _ in range(16)]
    together = threading.Barrier(len(asked))

    def send(number: int) -> dict:
        user, ids = asked[number]
        # Every other one sends the rows.
        own = rows_of(items, ids) if number % 2 else {"item": ids}
        together.wait(30)
        return runtime.infer(as_json(user | own) | {"parameters": {"top_k": 0}}).json()

    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(send, range(len(asked))))
    for (user, ids), answer in zip(asked, answers, strict=True):
        heads = expected(reference, user, rows_of(items, ids))
        for output in answer["outputs"]:
            assert np.abs(np.array(output["data"]) - heads[output["name"]].ravel()).max() <= TOLERANCE
    assert runtime.statistics()["execution_count"] < 16


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_by_utility(start, folder, reference, engine):
    runtime = start(change(folder, "device: cpu", f"device: cpu\nengine: {engine}").as_uri())
    rng, items = np.random.default_rng(6), table(folder)
    ids, user = rng.choice(items["item"], 400, replace=False), light.user(rng)
    utility = light.utility(expected(reference, user, rows_of(items, ids)))
    best = np.argsort(-utility)[:50]
    for module, client in clients(runtime):
        answer = ask(module, client, user | {"item": ids})
        assert set(light.HEADS) == {name for name in light.HEADS if answer.as_numpy(name).shape == (50, 1)}
        found = answer.as_numpy("utility")
        assert np.abs(found - utility[best]).max() <= 1e-4 and (np.diff(found) <= 0).all()
        # Neighbours closer than the tolerance may change places.
        own = {item: value for item, value in zip(ids.tolist(), utility)}
        assert np.abs([own[item] for item in answer.as_numpy("ids").tolist()] - found).max() <= 1e-4
        # What it says of the heads is what it ranks by.
        heads = {name: answer.as_numpy(name) for name in light.HEADS}
        assert np.abs(light.utility(heads) - found).max() <= 1e-12
    rows = as_json(user | rows_of(items, ids))
    refused = runtime.infer(rows)
    assert refused.status_code == 400 and 'send the input "item"' in refused.json()["error"]


def test_a_product_ranks(start, folder, reference):
    old = folder.joinpath("config.yaml").read_text().partition("utility: ")[2].splitlines()[0]
    change(folder, old, "{product: {click: 1, save: 0.5}}}")
    runtime = start(folder.as_uri())
    rng, items = np.random.default_rng(7), table(folder)
    ids, user = rng.choice(items["item"], 60, replace=False), light.user(rng)
    heads = expected(reference, user, rows_of(items, ids))
    wanted = np.sort(heads["click"].ravel() * heads["save"].ravel() ** 0.5)[::-1][:3]
    asked = as_json(user | {"item": ids}) | {"parameters": {"top_k": 3}, "outputs": [{"name": "utility"}]}
    (answer,) = runtime.infer(asked).json()["outputs"]
    assert answer["datatype"] == "FP64" and np.abs(np.array(answer["data"]) - wanted).max() <= 1e-5


def test_metadata_names_the_ids(start, light_ranker):
    runtime = start(light_ranker.as_uri())
    metadata = requests.get(f"{runtime.url}/v2/models/{NAME}", timeout=5).json()
    assert [(x["name"], x["datatype"], x["shape"]) for x in metadata["inputs"]] == [
        ("user_dense", "FP32", [-1, 32]), ("user_ids", "INT64", [-1, 8]), ("item", "INT64", [-1]),
    ]  # fmt: skip


def test_what_does_not_fit_is_named(start, light_ranker):
    runtime = start(light_ranker.as_uri())
    items, user = table(light_ranker), light.user(np.random.default_rng(1))
    ids = items["item"][:3]
    unknown = np.array([ids[0], 3], np.int64)
    for form, named in [
        (user | {"item": unknown}, '"item" has id 3 at element 1, which is not in the item table (revision "0", 2000 items)'),
        (user | {"item": ids} | rows_of(items, ids), "send the ids, or the values"),
        (user | {"item": ids.reshape(3, 1)}, "INT64 of shape [3, 1]"),
        (user | {"item": np.tile(ids, 1366)}, "maxBatchSize"),
        (user | {"items": ids}, "the items' ids as \"item\""),
    ]:
        refused(runtime, form, named)
    assert runtime.metric("pinnace_item_table_unknown_ids_total{") == 3


def test_an_item_may_stand_in(start, folder):
    items, user = table(folder), light.user(np.random.default_rng(1))
    default = int(items["item"][5])
    change(folder, "fills:", f"defaultId: {default}, fills:")
    runtime = start(folder.as_uri())
    answers = [
        runtime.infer(as_json(user | {"item": np.array(ids)}) | {"parameters": {"top_k": 0}}).json()["outputs"]
        for ids in ([default, default], [3, -4])
    ]
    assert answers[0] == answers[1]
    assert runtime.metric("pinnace_item_table_unknown_ids_total{") == 2


def test_deltas(start, light_ranker, reference):
    runtime = start(light_ranker.as_uri())
    rng, items = np.random.default_rng(8), table(light_ranker)
    changed = {"item": np.concatenate([items["item"][:20], [3, 5]])}
    changed |= dict(zip(FILLED, light.vectors(rng, 22)))
    removed = items["item"][30:32].tolist()
    first = delta("0", "1", changed, removed)
    state = {"revision": "1", "items": 2000}
    for answer in [put(runtime, first), put(runtime, first)]:
        assert answer.status_code == 200 and answer.json().items() >= state.items()
    assert not answer.json()["changed"]
    bad = dict(changed, item_vector=changed["item_vector"].copy())
    bad["item_vector"][7, 3] = np.nan
    two = {name: rows[:2] for name, rows in changed.items()}
    for body, status, named in [
        (delta("0", "2", two), 409, 'base is "0", the table is at revision "1"'),
        (delta("1", "2", bad), 400, f'"item_vector": row 7 (id {items["item"][7]})'),
        (delta("1", "2", {"item": two["item"]}), 400, '"item_vector" is missing'),
        (delta("1", "2", dict(two, item_vector=changed["item_vector"])), 400, "there are 2 ids"),
        (delta("1", "2", {}, removed), 400, "is not in the table"),
        (delta("1", "1", two), 400, "other than base"),
        (b"{}", 400, "missing field `base`"),
    ]:
        answer = put(runtime, body)
        assert answer.status_code == status and named in answer.json()["error"], answer.text
    assert "send it again" in put(runtime, first, "sha256:" + 64 * "0").json()["error"]
    url = f"{runtime.admin}/v2/models/{NAME}/items"
    assert "Pinnace-Digest is missing" in requests.put(url, data=first, timeout=5).json()["error"]
    assert requests.post(url, data=first, timeout=5).status_code == 405
    assert requests.get(url.replace(NAME, "other"), timeout=5).status_code == 404
    # Not for clients.
    assert requests.put(url.replace(runtime.admin, runtime.url), data=first, timeout=5).status_code == 404
    assert requests.get(url, timeout=5).json().items() >= state.items()
    user = light.user(rng)
    heads = expected(reference, user, {name: changed[name] for name in FILLED})
    asked = as_json(user | {"item": changed["item"]}) | {"parameters": {"top_k": 0}}
    for output in runtime.infer(asked).json()["outputs"]:
        assert np.abs(np.array(output["data"]) - heads[output["name"]].ravel()).max() <= TOLERANCE
    gone = runtime.infer(as_json(user | {"item": np.array(removed)}))
    assert gone.status_code == 400 and f"has id {removed[0]}" in gone.json()["error"]
    labels = f'model="{NAME}",version="1"'
    assert runtime.metric(f'pinnace_item_table_info{{{labels},revision="1"}} 1') == 1
    assert runtime.metric(f'pinnace_item_table_info{{{labels},revision="0"}} 1') == 0
    assert runtime.metric(f"pinnace_item_table_items{{{labels}}}") == 2000
    assert runtime.metric(f"pinnace_item_table_age_seconds{{{labels}}}") >= 0
    for outcome, count in [("applied", 1), ("repeated", 1), ("conflict", 1), ("invalid", 8)]:
        assert runtime.metric(f'pinnace_item_table_updates_total{{model="{NAME}",outcome="{outcome}"}}') == count


def test_deltas_of_the_folder_are_applied_at_load(start, folder):
    items = table(folder)
    row = {name: rows[:1].copy() for name, rows in items.items()}
    row["item_vector"] += 1
    (folder / "deltas").mkdir()
    (folder / "deltas" / "0001").write_bytes(delta("0", "a", row))
    (folder / "deltas" / "0002").write_bytes(delta("a", "b", {}, items["item"][20:21].tolist()))
    small.write_manifest(folder)
    runtime = start(folder.as_uri())
    state = requests.get(f"{runtime.admin}/v2/models/{NAME}/items", timeout=5).json()
    assert state == {"revision": "b", "items": 1999, "changed": False}
    (folder / "deltas" / "0003").write_bytes(delta("a", "c", row))
    small.write_manifest(folder)
    failure = start(folder.as_uri(), wait=False).failure()
    assert failure["reason"] == "ModelInvalid" and failure["message"].startswith('deltas/0003: base is "a"')


@pytest.mark.parametrize("batching", ["", "batching: {maxBatchSize: 256, maxQueueDelay: 5ms}\n"])
def test_every_answer_is_of_one_state_while_deltas_come(start, folder, batching):
    """All items have the same row, another one in each state: an answer whose scores differ is of two."""
    items, user = table(folder), light.user(np.random.default_rng(2))
    ids = items["item"][:64]
    vectors = np.random.default_rng(3).normal(0, 1, (41, light.VECTOR)).astype(np.float32)

    def state(number: int) -> dict[str, np.ndarray]:
        vector = np.tile(vectors[number], (len(items["item"]), 1))
        return {"item": items["item"], "item_vector": vector, "item_statistics": vector[:, :32].copy()}

    for name, rows in state(0).items():
        np.save(folder / "items" / f"{name}.npy", rows)
    change(folder, "device: cpu\n", f"device: cpu\n{batching}")
    runtime = start(folder.as_uri())
    body = as_json(user | {"item": ids}) | {"parameters": {"top_k": 0}, "outputs": [{"name": "click"}]}
    done = threading.Event()

    def read() -> list[float]:
        seen = []
        with requests.Session() as session:
            while not done.is_set() or not seen:
                answer = session.post(f"{runtime.url}/v2/models/{NAME}/infer", json=body, timeout=30)
                assert answer.status_code == 200, answer.text
                scores = set(answer.json()["outputs"][0]["data"])
                assert len(scores) == 1
                seen += scores
        return seen

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for number in range(1, 41):
                answer = put(runtime, delta(str(number - 1), str(number), state(number)))
                assert answer.status_code == 200, answer.text
        finally:
            done.set()
        seen = [reader.result() for reader in readers]
    assert len({score for one in seen for score in one}) > 5


def test_bad_files_are_named(start, folder):
    vectors = np.load(folder / "items" / "item_vector.npy")
    vectors[3, 1] = np.inf
    np.save(folder / "items" / "item_vector.npy", vectors)
    small.write_manifest(folder)
    failure = start(folder.as_uri(), wait=False).failure()
    assert failure["reason"] == "ModelInvalid"
    assert failure["message"].startswith("items/item_vector.npy: row 3 (id "), failure
    (folder / "items" / "item_vector.npy").unlink()
    small.write_manifest(folder)
    failure = start(folder.as_uri(), wait=False).failure()
    assert failure["message"].startswith("items/item_vector.npy: No such file"), failure
