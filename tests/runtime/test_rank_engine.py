"""The engine of our own: its answers are those of ONNX Runtime, which it does not need; and when it is not chosen, why."""

import json
import pathlib
import shutil
import subprocess

import folders
import make_small_ranker as small
import numpy as np
import onnx
import onnxruntime
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from conftest import NAME, REPOSITORY, binary, configure, lists
from onnx import TensorProto, helper
from test_batching import listwise
from tritonclient.utils import InferenceServerException

CORPUS = REPOSITORY / "inference-runtime" / "rank" / "tests" / "corpus"
TOLERANCE = 2e-5
# As `check` has it.
BF16_TOLERANCE = 0.01
# A library that is not there: who needs it fails.
NO_ONNX_RUNTIME = {"ORT_DYLIB_PATH": "/nonexistent/libonnxruntime.so"}
TYPES = {"FP32": np.float32, "INT64": np.int64}


def parameters(runtime) -> dict:
    config = requests.get(f"{runtime.url}/v2/models/{NAME}/config", timeout=5).json()
    return {"backend": config["backend"]} | {key: value["string_value"] for key, value in config["parameters"].items()}


def clients(runtime):
    return [
        (tritonclient.http, tritonclient.http.InferenceServerClient(f"127.0.0.1:{runtime.port}")),
        (tritonclient.grpc, tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{runtime.grpc_port}")),
    ]


def ask(module, client, arrays: dict, model: str = NAME, **options):
    names = {np.dtype(value): key for key, value in TYPES.items()}
    tensors = []
    for name, value in arrays.items():
        tensors.append(module.InferInput(name, list(value.shape), names[value.dtype]))
        tensors[-1].set_data_from_numpy(value)
    return client.infer(model, tensors, **options)


def test_triton_clients_without_onnx_runtime(start, ranker, session):
    runtime = start(ranker.as_uri(), environment=NO_ONNX_RUNTIME)
    assert parameters(runtime)["backend"] == parameters(runtime)["engine"] == "rank"
    assert "not_rank" not in parameters(runtime)
    assert runtime.metric(f'pinnace_engine_info{{model="{NAME}",version="1",engine="rank",not_rank=""}} 1') == 1
    for module, client in clients(runtime):
        metadata = client.get_model_metadata(NAME)
        platform = metadata["platform"] if isinstance(metadata, dict) else metadata.platform
        assert platform == "rank_onnx"
        for dense, sparse in lists(50):
            answer = ask(module, client, {"dense": dense, "sparse": sparse}).as_numpy("score")
            expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
            assert answer.shape == expected.shape and np.abs(answer - expected).max() <= TOLERANCE


@pytest.mark.parametrize(
    "name", ["dlrm.dynamo-20", "mmoe.torchscript-17", "din.dynamo-17", "bag-weighted.torchscript-20"]
)
def test_models_of_the_corpus(start, tmp_path, name):
    content = (CORPUS / f"{name}.onnx").read_bytes()
    known = json.loads((CORPUS / f"{name}.json").read_text())
    inputs = {x["name"]: np.array(x["data"], TYPES[x["datatype"]]).reshape(x["shape"]) for x in known["inputs"]}
    reference = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    runtime = start(folders.write(tmp_path / "model", content).as_uri(), environment=NO_ONNX_RUNTIME)
    names = [output.name for output in reference.get_outputs()]
    for module, client in clients(runtime):
        answer = ask(module, client, inputs)
        for output, expected in zip(names, reference.run(None, inputs)):
            difference = np.abs(answer.as_numpy(output) - expected) / np.maximum(np.abs(expected), 1)
            assert difference.max() <= TOLERANCE, output


def test_an_id_outside_of_its_table_is_refused(start, tmp_path, ranker):
    """Without declared vocabularies too."""
    folder = folders.write(tmp_path / "model", (ranker / "model.onnx").read_bytes())
    runtime = start(folder.as_uri())
    dense, sparse = small.pairs(np.random.default_rng(1), 2)
    sparse[1, 25] = 10**6
    for module, client in clients(runtime):
        with pytest.raises(InferenceServerException, match="1000000|outside of a table") as error:
            ask(module, client, {"dense": dense, "sparse": sparse})
        assert error.value.status() in ["400", "StatusCode.INVALID_ARGUMENT"]
    assert runtime.infer(small.request(*small.pairs(np.random.default_rng(1), 2))).status_code == 200


def unknown_operator() -> bytes:
    """Bitwise operators are not in the set."""
    rows = lambda name, kind: helper.make_tensor_value_info(name, kind, ["rows", 2])  # noqa: E731
    nodes = [helper.make_node("Round", ["x"], ["y"], name="rounding")]
    return folders.made(helper.make_graph(nodes, "g", [rows("x", TensorProto.FLOAT)], [rows("y", TensorProto.FLOAT)]))


def test_another_operator_falls_to_onnx_runtime(start, tmp_path):
    runtime = start(folders.write(tmp_path / "model", unknown_operator()).as_uri())
    shown = parameters(runtime)
    assert shown["backend"] == shown["engine"] == "onnxruntime"
    assert "rounding" in shown["not_rank"] and "Round" in shown["not_rank"]
    labels = f'model="{NAME}",version="1",engine="onnxruntime",not_rank="operators"'
    assert runtime.metric(f"pinnace_engine_info{{{labels}}} 1") == 1
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.4, 1.6]}]}
    assert runtime.infer(body).json()["outputs"][0]["data"] == [0.0, 2.0]


def test_a_listwise_model_falls_to_onnx_runtime(start, tmp_path):
    runtime = start(listwise(tmp_path / "listwise").as_uri())
    assert parameters(runtime)["engine"] == "onnxruntime" and "listwise" in parameters(runtime)["not_rank"]


def test_the_configuration_chooses(start, copy, session):
    runtime = start(configure(copy, "engine: onnxruntime\n").as_uri())
    assert parameters(runtime)["not_rank"] == "config.yaml says engine: onnxruntime"
    dense, sparse = lists(1)[0]
    answer = runtime.infer(small.request(dense, sparse)).json()["outputs"][0]["data"]
    assert np.abs(np.float32(answer) - session.run(None, {"dense": dense, "sparse": sparse})[0]).max() <= 1e-6


def test_bf16(start, copy, session):
    """Half the bits of each factor; the score of a pair is the same alone and in its list."""
    runtime = start(configure(copy, "precision: bf16\n").as_uri(), environment=NO_ONNX_RUNTIME)
    assert (parameters(runtime)["engine"], parameters(runtime)["precision"]) == ("rank", "bf16")
    for dense, sparse in lists(10):
        score = lambda dense, sparse: runtime.infer(small.request(dense, sparse)).json()["outputs"][0]["data"]  # noqa: E731
        answer = score(dense, sparse)
        expected = session.run(["score"], {"dense": dense, "sparse": sparse})[0]
        difference = np.abs(np.float32(answer) - expected).max()
        assert TOLERANCE < difference <= BF16_TOLERANCE
        assert score(dense[-1:], sparse[-1:]) == answer[-1:]


def sets_here() -> list[str]:
    flags = set((pathlib.Path("/proc/cpuinfo").read_text().partition("flags")[2]).split("\n")[0].split())
    needed = {"portable": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx2", "fma", "avx512f"}}
    needed["avx512-bf16"] = needed["avx512"] | {"avx512_bf16"}
    return [name for name, flags_needed in needed.items() if flags_needed <= flags]


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_every_instruction_set_gives_the_same_bits(start, copy, precision):
    folder = configure(copy, f"precision: {precision}\n")
    dense, sparse = small.pairs(np.random.default_rng(9), 30)
    answers = {}
    for name in sets_here():
        runtime = start(folder.as_uri(), environment={"PINNACE_INSTRUCTION_SET": name})
        assert parameters(runtime)["instruction_set"] == name
        answers[name] = runtime.infer(small.request(dense, sparse)).json()["outputs"][0]["data"]
        runtime.stop()
    assert len(answers) == len(sets_here()) and all(answer == answers["portable"] for answer in answers.values())


def test_an_unknown_instruction_set_is_refused(ranker):
    command = [binary(), "serve", "--model-uri", ranker.as_uri(), "--model-name", NAME, "--instruction-set", "sse9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "--instruction-set" in done.stderr
    assert "none of portable, avx2, avx512, avx512-bf16" in done.stderr


@pytest.mark.parametrize(
    "text, named",
    [
        ("precision: fp8\n", '"fp8" is neither f32 nor bf16'),
        ("precision: bf16\nengine: onnxruntime\n", "precision: bf16 is for the engine rank"),
        ("engine: fast\n", "fast"),
        ("requestInputs: [dens]\n", "dens"),
        ("requestInputs: ['sparse[0:27]']\n", "sparse[0:27]"),
        ("requestInputs: ['sparse[4]']\n", "sparse[4]"),
        ("requestInputs: [dense, sparse]\n", "all inputs"),
        ("topK: {ids: sparse}\n", "topK.ids"),
        ("topK: {ids: 'sparse[3]'}\nrequestInputs: ['sparse[0:20]']\n", "sparse[3]"),
    ],
)
def test_bad_configurations(start, copy, text, named):
    failure = start(configure(copy, text).as_uri(), wait=False).failure()
    assert failure["reason"] == "ConfigInvalid" and named in failure["message"]


def test_rank_does_not_run_on_a_gpu(start, copy):
    failure = start(configure(copy, "engine: rank\n").as_uri(), "--device", "gpu", wait=False).failure()
    assert failure["reason"] == "ConfigInvalid" and "device: cpu" in failure["message"]


def test_rank_is_wanted_and_does_not_take_the_model(start, tmp_path):
    folder = folders.write(tmp_path / "model", unknown_operator(), "device: cpu\nengine: rank\n")
    failure = start(folder.as_uri(), wait=False).failure()
    assert failure["reason"] == "ModelInvalid"
    assert "rounding" in failure["message"] and "engine: auto" in failure["message"]


def test_onnx_runtime_is_needed_and_missing(start, tmp_path):
    folder = folders.write(tmp_path / "model", unknown_operator())
    failure = start(folder.as_uri(), wait=False, environment=NO_ONNX_RUNTIME).failure()
    assert "ORT_DYLIB_PATH" in failure["message"] and "rounding" in failure["message"]


def test_top_k(start, copy, session):
    runtime = start(configure(copy, "topK: {ids: 'sparse[25]', k: 5}\n").as_uri())
    dense, sparse = small.pairs(np.random.default_rng(4), 40)
    (scores,) = session.run(None, {"dense": dense, "sparse": sparse})
    best = sorted(range(40), key=lambda i: (-scores[i], sparse[i, 25]))
    for module, client in clients(runtime):
        for given, k in [({}, 5), ({"parameters": {"top_k": 12}}, 12), ({"parameters": {"top_k": 400}}, 40)]:
            answer = ask(module, client, {"dense": dense, "sparse": sparse}, **given)
            assert answer.as_numpy("ids").tolist() == sparse[best[:k], 25].tolist()
            assert np.abs(answer.as_numpy("score") - scores[best[:k]]).max() <= TOLERANCE
        whole = ask(module, client, {"dense": dense, "sparse": sparse}, parameters={"top_k": 0})
        assert whole.as_numpy("score").shape == (40,) and whole.as_numpy("ids") is None
    assert runtime.metric("pinnace_items_total") == 2 * (5 + 12 + 40 + 40)
    assert runtime.metric("pinnace_pairs_total") == 2 * 4 * 40
    body = small.request(dense, sparse) | {"parameters": {"top_k": -1}}
    assert runtime.infer(body).status_code == 400


def test_candidates_without_a_score_are_dropped(start, tmp_path):
    """The logarithm of what is negative is NaN, that of 0 infinite."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Log", ["x"], ["score"]), helper.make_node("Neg", ["item"], ["opposite"])]
    inputs = [value("x", TensorProto.FLOAT, ["rows", 1]), value("item", TensorProto.INT64, ["rows", 1])]
    outputs = [value("score", TensorProto.FLOAT, ["rows", 1]), value("opposite", TensorProto.INT64, ["rows", 1])]
    config = "device: cpu\ntopK: {ids: item, score: score}\noutputs: {score: {nonFinite: dropCandidate}}\n"
    folder = folders.write(tmp_path / "logarithm", folders.made(helper.make_graph(nodes, "g", inputs, outputs)), config)
    # Zeros would be refused at warm-up.
    one = [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}, {"name": "item", "shape": [1, 1], "datatype": "INT64", "data": [0]}]
    (folder / "samples").mkdir()
    (folder / "samples" / "one.request.json").write_text(json.dumps({"inputs": one}))
    small.write_manifest(folder)
    runtime = start(folder.as_uri())

    def ask(x: list, **parameters):
        tensors = [
            {"name": "x", "shape": [len(x), 1], "datatype": "FP32", "data": x},
            {"name": "item", "shape": [len(x), 1], "datatype": "INT64", "data": list(range(len(x)))},
        ]
        return runtime.infer({"inputs": tensors, "parameters": parameters})

    answer = {output["name"]: output for output in ask([2, -1, 0, 4, 3], top_k=4).json()["outputs"]}
    assert answer["ids"]["data"] == [3, 4, 0] and answer["opposite"]["data"] == [-3, -4, 0]
    assert answer["score"]["shape"] == [3, 1]
    nothing = {output["name"]: output for output in ask([-1, 0], top_k=4).json()["outputs"]}
    assert nothing["ids"]["data"] == [] and nothing["ids"]["shape"] == [0]
    assert runtime.metric(f'pinnace_dropped_candidates_total{{model="{NAME}",version="1"}}') == 4
    assert runtime.metric("pinnace_items_total") == 3
    whole = ask([2, -1])
    assert whole.status_code == 500 and '"score" is NaN or infinity at element 1' in whole.json()["error"]
    assert ask([2, 1], top_k=0).status_code == 200


def test_top_k_needs_to_know_the_ids(start, ranker):
    runtime = start(ranker.as_uri())
    dense, sparse = small.pairs(np.random.default_rng(4), 2)
    for module, client in clients(runtime):
        with pytest.raises(InferenceServerException, match="topK.ids"):
            ask(module, client, {"dense": dense, "sparse": sparse}, parameters={"top_k": 1})
    answer = runtime.infer(small.request(dense, sparse) | {"outputs": [{"name": "ids"}]})
    assert answer.status_code == 400 and '"ids"' in answer.json()["error"]


def test_weights_in_a_file_beside_the_model(start, ranker, tmp_path, session):
    folder = tmp_path / "external"
    shutil.copytree(ranker, folder)
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    assert (folder / "weights.bin").stat().st_size > 10**6
    small.write_manifest(folder)
    runtime = start(folder.as_uri(), environment=NO_ONNX_RUNTIME)
    dense, sparse = lists(1)[0]
    answer = runtime.infer(small.request(dense, sparse)).json()["outputs"][0]["data"]
    assert np.abs(np.float32(answer) - session.run(None, {"dense": dense, "sparse": sparse})[0]).max() <= TOLERANCE


def test_a_model_without_kernels_falls_to_onnx_runtime(start, tmp_path):
    rows = lambda name, kind: helper.make_tensor_value_info(name, kind, ["rows", 2])  # noqa: E731
    nodes = [helper.make_node("IsNaN", ["x"], ["y"], name="missing")]
    graph = helper.make_graph(nodes, "g", [rows("x", TensorProto.FLOAT)], [rows("y", TensorProto.BOOL)])
    runtime = start(folders.write(tmp_path / "model", folders.made(graph)).as_uri())
    shown = parameters(runtime)
    assert shown["engine"] == "onnxruntime" and "missing" in shown["not_rank"]
    labels = f'model="{NAME}",version="1",engine="onnxruntime",not_rank="slow"'
    assert runtime.metric(f"pinnace_engine_info{{{labels}}} 1") == 1
