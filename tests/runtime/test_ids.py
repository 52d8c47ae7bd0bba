"""Ids are right, or there is an error: the model answers the rows of its tables that were read, whatever the door."""

import json
import struct
import subprocess
import sys

import folders
import make_small_ranker as small
import numpy as np
import pytest
import requests
import tritonclient.grpc as triton
from conftest import NAME
from onnx import TensorProto, helper, numpy_helper
from test_commands import run
from test_docs import blocks
from test_grpc import channel, stub
from test_item_table import put
from test_rank_engine import ask, clients
from test_user_once import as_json, refused
from tritonclient.utils import InferenceServerException

COLUMNS, ROWS, OFFSETS = 3, 1000, [0, 300, 700]
# By farmhash64 among 1,000 rows, as pyfarmhash 0.5.1 (`fingerprint64(text) % 1000`) has them.
HASHED = {"abc": 385, "4711": 21, "-5": 816, "": 263, "9223372036854775807": 319}
HASH = "inputs: {sparse: {vocabularies: [1000], policies: [{hash: farmhash64}]}}\n"
ENGINES = ["rank", "onnxruntime"]


def model(offsets: list | None = None, datatype=TensorProto.INT64) -> bytes:
    """Answers which rows of one table its ids read: the table has 0, 1, 2 ... in its rows."""
    constants = {"table": np.arange(ROWS, dtype=np.float32).reshape(ROWS, 1), "flat": np.array([-1, COLUMNS])}
    nodes = [helper.make_node("Gather", ["table", "ids"], ["found"]), helper.make_node("Reshape", ["found", "flat"], ["rows"])]
    if offsets is None:
        nodes[0].input[1] = "sparse"
    else:
        constants["offsets"] = np.array(offsets)
        nodes.insert(0, helper.make_node("Add", ["sparse", "offsets"], ["ids"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "rows", [value("sparse", datatype, ["n", COLUMNS])], [value("rows", TensorProto.FLOAT, ["n", COLUMNS])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return folders.made(graph)


def write(folder, config: str = "", engine: str = "rank", **options):
    return folders.write(folder / "model", model(**options), f"device: cpu\nengine: {engine}\n{config}")


def numbers(*rows) -> dict:
    return {"sparse": np.array(rows, np.int64)}


def rows_of(runtime, arrays: dict) -> list:
    """By every door, the same."""
    answer = runtime.infer(as_json(arrays))
    assert answer.status_code == 200, answer.text
    rows = np.float32(answer.json()["outputs"][0]["data"]).reshape(-1, COLUMNS).astype(int).tolist()
    for module, client in clients(runtime):
        assert ask(module, client, arrays).as_numpy("rows").astype(int).tolist() == rows
    return rows


def replaced(runtime) -> float:
    return runtime.metric(f'pinnace_replaced_ids_total{{model="{NAME}",version="1",input="sparse"}}')


def told(folder, named: str):
    """A mistake of the configuration, by `check` and by `serve` alike."""
    (problem,) = [line for line in run("check", folder, code=1).splitlines() if line.startswith("problem: ConfigInvalid")]
    assert named in problem, problem


@pytest.mark.parametrize("engine", ENGINES)
def test_default_rows(start, tmp_path, engine):
    config = "inputs: {sparse: {vocabularies: [10, 20, 30], policies: [{defaultRow: 9}, refuse, {defaultRow: 0}]}}\n"
    runtime = start(write(tmp_path, config, engine).as_uri())
    assert rows_of(runtime, numbers([9, 19, 29])) == [[9, 19, 29]] and replaced(runtime) == 0
    assert rows_of(runtime, numbers([10, 0, 30], [-1, 1, -(2**63)], [1, 2, 3])) == [[9, 0, 0], [9, 1, 0], [1, 2, 3]]
    assert replaced(runtime) == 3 * 4
    refused(runtime, numbers([0, 20, 0]), '"sparse" has id 20 at element 1 (column 1), outside its vocabulary of 20')
    refused(runtime, numbers([0, -1, 0]), "has id -1 at element 1 (column 1)")


def test_parts_of_a_table_are_known_without_a_declaration(start, tmp_path):
    folder = write(tmp_path, offsets=OFFSETS)
    runtime = start(folder.as_uri())
    assert rows_of(runtime, numbers([299, 399, 299])) == [[299, 699, 999]]
    refused(runtime, numbers([300, 0, 0]), "id 300 at element 0 (column 0), outside its vocabulary of 300")
    refused(runtime, numbers([0, 0, 0], [0, 400, 0]), "id 400 at element 4 (column 1), outside its vocabulary of 400")
    refused(runtime, numbers([0, 0, -1]), "id -1 at element 2 (column 2), outside its vocabulary of 300")
    text = run("inspect", folder, library="/none")
    for column, size in enumerate([300, 400, 300]):
        assert f"  sparse[{column}:{column + 1}]              {size} (the model's tables), others are refused\n" in text
    # ONNX Runtime would not know.
    (folder / "config.yaml").write_text("device: cpu\nengine: onnxruntime\n")
    assert "the model's tables" not in run("inspect", folder)


def test_a_declaration_is_within_the_tables(start, tmp_path):
    config = "inputs: {sparse: {vocabularies: [300, 401, 300]}}\n"
    folder = write(tmp_path, config, offsets=OFFSETS)
    message = "inputs.sparse.vocabularies: 401 ids in column 1, for which the model's table has 400 rows"
    told(folder, message)
    failure = start(folder.as_uri(), wait=False).failure()
    assert failure["reason"] == "ConfigInvalid" and message in failure["message"]
    (folder / "config.yaml").write_text("device: cpu\nengine: rank\ninputs: {sparse: {vocabularies: [200]}}\n")
    small.write_manifest(folder)
    assert "  sparse[0:3]              200 (config.yaml), others are refused\n" in run("inspect", folder)


@pytest.mark.parametrize("datatype", [TensorProto.INT64, TensorProto.INT32])
@pytest.mark.parametrize("engine", ENGINES)
def test_hashed_text_by_every_door(start, tmp_path, engine, datatype):
    runtime = start(write(tmp_path, HASH, engine, datatype=datatype).as_uri())
    texts = np.array([["abc", "4711", ""], ["-5", "9223372036854775807", "abc"]], np.object_)
    expected = [[HASHED[text] for text in row] for row in texts]
    body = {"inputs": [{"name": "sparse", "shape": [2, 3], "datatype": "BYTES", "data": texts.tolist()}]}
    assert runtime.infer(body).json()["outputs"][0]["data"] == np.float32(expected).ravel().tolist()
    for module, client in clients(runtime):
        tensor = module.InferInput("sparse", [2, 3], "BYTES")
        forms = [{}] if module is triton else [{"binary_data": True}, {"binary_data": False}]
        for form in forms:
            tensor.set_data_from_numpy(texts, **form)
            assert client.infer(NAME, [tensor]).as_numpy("rows").tolist() == expected
    request = triton.service_pb2.ModelInferRequest(model_name=NAME)
    tensor = request.inputs.add(name="sparse", datatype="BYTES", shape=[2, 3])
    tensor.contents.bytes_contents.extend(text.encode() for text in texts.ravel())
    with channel(runtime) as opened:
        (raw,) = stub(opened).ModelInfer(request).raw_output_contents
    assert np.frombuffer(raw, np.float32).tolist() == np.float32(expected).ravel().tolist()


def test_hashed_numbers_are_their_digits(start, tmp_path):
    runtime = start(write(tmp_path, HASH).as_uri())
    rows = rows_of(runtime, numbers([4711, -5, 2**63 - 1]))
    assert rows == [[HASHED["4711"], HASHED["-5"], HASHED["9223372036854775807"]]]
    assert runtime.metric("pinnace_replaced_ids_total") == 0


def test_metadata_says_text(start, tmp_path):
    runtime = start(write(tmp_path, HASH).as_uri())
    for _, client in clients(runtime):
        metadata, config = client.get_model_metadata(NAME), client.get_model_config(NAME)
        if isinstance(metadata, dict):
            assert metadata["inputs"][0]["datatype"] == "BYTES" and config["input"][0]["data_type"] == "TYPE_STRING"
        else:
            assert metadata.inputs[0].datatype == "BYTES" and config.config.input[0].data_type == 13


def binary(values: bytes, shape: list, size: int | None = None) -> tuple[bytes, dict]:
    size = len(values) if size is None else size
    tensor = {"name": "sparse", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + values, {"Inference-Header-Content-Length": str(len(head))}


def prefixed(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


WHOLE = prefixed(b"a", b"b", b"c")
BAD_TEXT = {
    "a length past the end": (prefixed(b"a", b"b") + struct.pack("<I", 2) + b"c", [1, 3], "element 2 of 3 has 2 bytes by its length, 1 are left"),
    "the largest length": (struct.pack("<I", 2**32 - 1) + b"abcdefgh", [1, 3], "has 4294967295 bytes by its length, 8 are left"),
    "half a length": (WHOLE[:-3], [1, 3], "element 2 of 3 has no length: 2 bytes are left"),
    "too few": (WHOLE, [2, 3], "element 3 of 6 has no length: 0 bytes are left"),
    "too many": (prefixed(*[b"x"] * 4), [1, 3], "5 bytes are left after 3 elements"),
    "nothing": (b"", [1, 3], "element 0 of 3 has no length"),
    "a shape of much": (WHOLE, [2**40, 3], "element 3 of 3298534883328 has no length"),
    "a shape beyond all": (WHOLE, [2**62, 3], "is too large"),
    "a negative shape": (WHOLE, [-1, 3], "negative dimension"),
}  # fmt: skip


def test_bad_text_is_refused_by_name(start, tmp_path):
    runtime = start(write(tmp_path, HASH).as_uri())
    url = f"{runtime.url}/v2/models/{NAME}/infer"
    for what, (values, shape, named) in BAD_TEXT.items():
        body, headers = binary(values, shape)
        answer = requests.post(url, data=body, headers=headers, timeout=30)
        assert answer.status_code == 400 and named in answer.json()["error"] and '"sparse"' in answer.text.replace("\\", ""), what
        request = triton.service_pb2.ModelInferRequest(model_name=NAME, raw_input_contents=[values])
        request.inputs.add(name="sparse", datatype="BYTES", shape=shape)
        with channel(runtime) as opened, pytest.raises(triton.grpc.RpcError) as error:
            stub(opened).ModelInfer(request)
        assert error.value.code() == triton.grpc.StatusCode.INVALID_ARGUMENT and named in error.value.details(), what
    for data, named in [
        (["a", "b"], "3 elements: 2 elements"),
        (["a"] * 4, "more than 3 elements"),
        ([1, 2, 3], "expected a string"),
        (["a", None, "b"], "expected a string"),
    ]:
        body = {"inputs": [{"name": "sparse", "shape": [1, 3], "datatype": "BYTES", "data": data}]}
        answer = runtime.infer(body)
        assert answer.status_code == 400 and named in answer.json()["error"], answer.text
    body, headers = binary(WHOLE, [1, 3], size=len(WHOLE) + 1)
    answer = requests.post(url, data=body, headers=headers, timeout=30)
    assert "15 bytes are left of the body" in answer.json()["error"]


@pytest.mark.parametrize("config", ["", "inputs: {sparse: {vocabularies: [9], policies: [refuse, refuse, {hash: xxh64}]}}\n"])
def test_text_is_refused_where_not_all_is_hashed(start, tmp_path, config):
    runtime = start(write(tmp_path, config).as_uri())
    for module, client in clients(runtime):
        tensor = module.InferInput("sparse", [1, 3], "BYTES")
        tensor.set_data_from_numpy(np.array([["a", "b", "c"]], np.object_))
        with pytest.raises(InferenceServerException, match='"BYTES" is not one of .*inputs that are hashed'):
            client.infer(NAME, [tensor])


def test_users_text_comes_once(start, tmp_path):
    runtime = start(write(tmp_path, f'requestInputs: ["sparse[0:2]"]\n{HASH}').as_uri())
    user, items = np.array([["abc", "4711"]], np.object_), np.array([["-5"], [""]], np.object_)
    expected = [[HASHED["abc"], HASHED["4711"], HASHED[item]] for item in ["-5", ""]]
    for module, client in clients(runtime):
        tensors = []
        for name, values in [("sparse.user", user), ("sparse.item", items)]:
            tensors.append(module.InferInput(name, list(values.shape), "BYTES"))
            tensors[-1].set_data_from_numpy(values)
        assert client.infer(NAME, tensors).as_numpy("rows").tolist() == expected
    body = {
        "inputs": [
            {"name": "sparse.user", "shape": [1, 2], "datatype": "BYTES", "data": user.tolist()},
            {"name": "sparse.item", "shape": [2, 1], "datatype": "INT64", "data": [-5, 4711]},
        ]
    }
    expected[1][2] = HASHED["4711"]
    assert runtime.infer(body).json()["outputs"][0]["data"] == np.float32(expected).ravel().tolist()


def test_an_item_table_has_hashed_rows(start, tmp_path):
    config = f'requestInputs: ["sparse[0:2]"]\nitemTable: {{ids: item, fills: [sparse.item]}}\n{HASH}'
    folder = write(tmp_path, config)
    (folder / "items").mkdir()
    np.save(folder / "items" / "item.npy", np.array([7, 8]))
    np.save(folder / "items" / "sparse.item.npy", np.array([[4711], [-5]]))
    small.write_manifest(folder)
    runtime = start(folder.as_uri())
    user = {"name": "sparse.user", "shape": [1, 2], "datatype": "BYTES", "data": ["abc", ""]}
    body = {"inputs": [user, {"name": "item", "shape": [2], "datatype": "INT64", "data": [8, 7]}]}
    expected = [[HASHED["abc"], HASHED[""], HASHED[item]] for item in ["-5", "4711"]]
    assert runtime.infer(body).json()["outputs"][0]["data"] == np.float32(expected).ravel().tolist()
    rows = [
        {"name": "item", "shape": [1], "datatype": "INT64", "data": [7]},
        {"name": "sparse.item", "shape": [1, 1], "datatype": "BYTES", "data": ["abc"]},
    ]
    delta = put(runtime, json.dumps({"base": "0", "target": "1", "inputs": rows}).encode())
    assert delta.status_code == 200, delta.text
    expected[1][2] = HASHED["abc"]
    assert runtime.infer(body).json()["outputs"][0]["data"] == np.float32(expected).ravel().tolist()
    body["inputs"][1]["datatype"] = "BYTES"
    body["inputs"][1]["data"] = ["8", "7"]
    answer = runtime.infer(body)
    assert answer.status_code == 400 and '"BYTES" is not one of' in answer.json()["error"]


def test_goldens_are_verified(start, tmp_path):
    golden = HASH.replace("farmhash64", 'farmhash64, goldens: {"abc": 385, "4711": %d}')
    folder = write(tmp_path, golden % 21)
    assert "the model can be served" in run("check", folder)
    (folder / "config.yaml").write_text("device: cpu\nengine: rank\n" + golden % 22)
    small.write_manifest(folder)
    message = 'inputs.sparse.policies: farmhash64 makes row 21 of 1000 of "4711", goldens say 22'
    told(folder, message)
    failure = start(folder.as_uri(), wait=False).failure()
    assert failure["reason"] == "ConfigInvalid" and message in failure["message"]


def test_the_reference_does_what_it_says(start, tmp_path):
    page = "../reference/runtime-config.md"
    (config,) = [block for block in blocks(page, "yaml") if "policies" in block]
    (client,) = [block for block in blocks(page, "python") if "BYTES" in block]
    nodes = [helper.make_node("Concat", ["sparse", "site"], ["ids"], axis=1), helper.make_node("Gather", ["table", "ids"], ["rows"])]
    value = helper.make_tensor_value_info
    inputs = [value("sparse", TensorProto.INT64, ["n", 3]), value("site", TensorProto.INT64, ["n", 1])]
    outputs = [value("rows", TensorProto.FLOAT, ["n", 4, 1])]
    table = numpy_helper.from_array(np.arange(10**5, dtype=np.float32).reshape(-1, 1), "table")
    content = folders.made(helper.make_graph(nodes, "rows", inputs, outputs, [table]))
    runtime = start(folders.write(tmp_path / "model", content, "device: cpu\nengine: rank\n" + config).as_uri())
    assert f'"{NAME}"' in client
    script = client.replace("localhost:8000", f"127.0.0.1:{runtime.port}") + "print(answer.as_numpy('rows').astype(int).tolist())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [[[99999], [0], [19], [385]], [[0], [0], [0], [21]]]
    assert replaced(runtime) == 2


def test_answers_tell_ids_that_were_sent(tmp_path):
    config = "topK: {ids: 'sparse[2]', utility: {sum: {'rows[0]': 1}}}\n"
    told(write(tmp_path, config + HASH), "topK.ids: sparse[2] has a policy (every value by farmhash64)")
