"""What is sent."""

import json
import struct

import numpy as np
import pytest

from bench import models, wires
from bench.lists import Ids, Input, Lists, once
from bench.models import BadModel
from bench.stage import Scorer

INPUTS = [
    Input("dense", "FP32", (3,), once=()),
    Input("sparse", "INT64", (4,), (10, 20, 30, 1000), once=((0, 2),)),
]


def test_the_same_lists_each_time_and_all_different():
    first, again = (Lists(INPUTS).make("random", 8, 200) for _ in range(2))
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(first, again) for name in a)
    assert len({tensors["dense"].tobytes() for tensors in first}) == 200


def test_a_list_has_one_user_and_many_candidates():
    (tensors,) = Lists(INPUTS).make("list", 64, 1)
    assert (tensors["dense"] == tensors["dense"][0]).all()
    assert (tensors["sparse"][:, :2] == tensors["sparse"][0, :2]).all()
    assert len(np.unique(tensors["sparse"][:, 3])) > 10
    sent = once(INPUTS, tensors)
    assert {name: values.shape for name, values in sent.items()} == {
        "dense": (1, 3), "sparse.user": (1, 2), "sparse.item": (64, 2),
    }  # fmt: skip
    assert np.array_equal(sent["sparse.item"], tensors["sparse"][:, 2:])


def test_ids_are_in_their_vocabulary_and_zipf():
    drawn = Ids(1000, uniform=False).draw(np.random.default_rng(1), 100_000)
    assert drawn.min() >= 0 and drawn.max() < 1000
    counts = np.sort(np.bincount(drawn, minlength=1000))[::-1]
    # P(first) / P(tenth) = 10^1.05
    assert counts[0] / counts[9] == pytest.approx(11.2, rel=0.15)
    flat = np.bincount(Ids(1000, uniform=True).draw(np.random.default_rng(1), 100_000), minlength=1000)
    assert flat.max() < 200


@pytest.mark.parametrize("wire", [wires.V2Http("ranker", "score"), wires.V2Grpc("ranker", "score"), wires.Base64Json("/p")])
def test_the_file_of_bodies_is_what_the_client_reads(wire, tmp_path):
    lists = Lists(INPUTS).make("random", 5, 3)
    wires.write(tmp_path / "bodies", wire, lists, 5)
    content, parts = (tmp_path / "bodies").read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<I", content)
        parts.append(content[4 : 4 + length])
        content = content[4 + length :]
    assert len(parts) == 6
    assert parts[1] == wire.encode(lists[0])[2] and lists[2]["dense"].tobytes() in parts[5] or wire.name.startswith("JSON")


def test_top_k_asks_for_the_best_and_expects_them():
    wire = wires.V2Http("ranker", "score", top_k=2)
    (tensors,) = Lists(INPUTS).make("random", 3, 1)
    _, headers, body = wire.encode(tensors)
    head = json.loads(body[: int(headers[wires.BINARY_HEADER])])
    assert head["parameters"] == {"top_k": 2} and [output["name"] for output in head["outputs"]] == ["score", "ids"]
    assert wire.expected(np.array([1.0, 3.0, 2.0])).tolist() == [3.0, 2.0]
    # The answer: two scores, then two ids behind them.
    outputs = [{"name": "score", "datatype": "FP32", "shape": [2]}, {"name": "ids", "datatype": "INT64", "shape": [2]}]
    answer = json.dumps({"outputs": outputs}).encode()
    content = answer + np.array([3, 2], np.float32).tobytes() + np.array([7, 8]).tobytes()
    assert wire.decode({wires.BINARY_HEADER: str(len(answer))}, content).tolist() == [3.0, 2.0]


def test_a_model_without_what_the_benchmark_needs_is_named(tmp_path):
    with pytest.raises(BadModel, match="no model.onnx"):
        models.read(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(BadModel, match="no manifest.json"):
        models.read(tmp_path)
    with pytest.raises(BadModel, match=r"'sparse\[1\]' is neither"):
        models.parse_once(["sparse[1]"])
    assert models.parse_once(["dense", "sparse[0:4,10:20]"]) == {"dense": (), "sparse": ((0, 4), (10, 20))}


def test_the_small_ranker_is_understood(tmp_path):
    model = models.small_ranker(tmp_path / "ranker")
    assert model.once == models.SMALL_RANKER_ONCE and model.output == "score"
    assert [given.shape for given in model.inputs] == [(13,), (26,)] and len(model.inputs[1].vocabularies) == 26
    more = models.configured(model, tmp_path / "more", requestInputs=model.once)
    assert models.read(more.folder).once == model.once
    bare = models.without_arithmetic(model, tmp_path / "bare")
    assert models.read(bare.folder).inputs[0].shape == (13,)


def test_the_light_ranker_names_its_items(tmp_path):
    model = models.light_ranker(tmp_path / "light", items=300)
    assert model.once == ["user_dense", "user_ids"] and model.output == "utility"
    (tensors,) = model.lists().make("list", 20, 1)
    sent = model.sent_once(tensors)
    assert {name: values.shape for name, values in sent.items()} == {"user_dense": (1, 32), "user_ids": (1, 8), "item": (20,)}
    place = {item: row for row, item in enumerate(np.load(model.folder / "items" / "item.npy").tolist())}
    rows = np.load(model.folder / "items" / "item_vector.npy")[[place[item] for item in sent["item"].tolist()]]
    assert np.array_equal(rows, tensors["item_vector"])
    assert model.scores(Scorer, tensors).shape == (20,)
