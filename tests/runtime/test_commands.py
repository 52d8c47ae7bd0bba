"""The commands beside `serve`: what they print, what they write, and that a mistake has one line that names it."""

import json
import os
import pathlib
import subprocess
import sys

import make_small_ranker as small
import pytest
from conftest import MODELS, REPOSITORY, binary, configure

CORPUS = REPOSITORY / "inference-runtime" / "rank" / "tests" / "corpus"


def run(*arguments, code: int = 0, library: str | None = None) -> str:
    """Standard output, or standard error of a run that must fail."""
    if library is None:
        found = subprocess.run([sys.executable, MODELS / "ort_library"], check=True, capture_output=True, text=True)
        library = found.stdout.strip()
    environment = {"ORT_DYLIB_PATH": library, "PATH": os.environ["PATH"]}
    done = subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_help_says_what_each_command_is_for():
    text = run("--help")
    for name in ["serve", "inspect", "check", "manifest", "optimize"]:
        assert f"\n  {name} " in text
        assert "Usage: pinnace-runtime" in run(name, "--help")
    assert "NAME.user" in run("optimize", "--help")


def test_inspect_shows_engine_inputs_and_plan(ranker):
    text = run("inspect", ranker, "--once", "dense", "--once", "sparse[0:20]", library="/none")
    assert text.startswith("engine: rank\n")
    for line in ["sparse.user", "sparse.item", "once a request", "once a pair", "rows: independent", "plan:"]:
        assert line in text
    assert "once a request" not in run("inspect", ranker / "model.onnx", library="/none")


def test_inspect_says_why_it_is_not_rank(ranker, copy, tmp_path):
    text = run("inspect", ranker, "--device", "gpu", library="/none")
    assert text.startswith("engine: onnxruntime (device: ") and "rank would run it so:" in text
    text = run("inspect", configure(copy, "engine: onnxruntime\n"), library="/none")
    assert text.startswith("engine: onnxruntime (configured: ")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    text = run("inspect", broken, library="/none")
    assert text.startswith("engine: onnxruntime (operators: not an ONNX model: ") and text.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["inspect", "{model}", "--once", "dens"], "dens"),
        (["inspect", "{model}", "--once", "sparse[0:27]"], "sparse[0:27]"),
        (["inspect", "/none.onnx"], "/none.onnx"),
        (["optimize", "{model}", "{out}", "--once", "dens"], "dens"),
        (["optimize", "{model}", "{out}", "--once", "sparse[x]"], "sparse[x]"),
        (["optimize", "/none.onnx", "{out}"], "/none.onnx"),
        (["optimize", "{model}", "/none/out.onnx"], "/none/out.onnx"),
        (["manifest", "/none"], "/none"),
    ],
)
def test_mistakes_are_named(ranker, tmp_path, arguments, named):
    places = {"model": ranker / "model.onnx", "out": tmp_path / "out.onnx"}
    assert named in run(*[argument.format(**places) for argument in arguments], code=1)


def test_optimize_says_what_it_did(ranker, tmp_path):
    out = tmp_path / "out.onnx"
    text = run("optimize", ranker / "model.onnx", out, "--once", "dense", "--once", "sparse[0:20]")
    assert "one row a request: dense, sparse[0:20]" in text and str(out.stat().st_size) in text


def test_manifest_is_the_one_that_serve_wants(copy):
    expected = small.write_manifest(copy)
    written = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").unlink()
    digest = run("manifest", copy).strip()
    assert json.loads((copy / "manifest.json").read_text()) == written
    # The same files; the text of the manifest is ours.
    assert digest.startswith("sha256:") and len(digest) == len(expected)
    assert digest in run("check", copy)
    (copy / "model.onnx").unlink()
    assert "no model.onnx" in run("manifest", copy, code=1)


def test_check_of_a_good_folder(ranker):
    text = run("check", ranker)
    assert text.splitlines()[1:] == [
        "engine: rank",
        "samples: 2",
        text.splitlines()[3],
        "the model can be served",
    ]
    assert text.splitlines()[3].startswith("rank and onnxruntime agree: largest difference ")


def test_check_without_onnx_runtime(ranker):
    text = run("check", ranker, library="/none")
    assert "engines not compared: ONNX Runtime" in text and "the model can be served" in text


def test_check_names_every_problem(copy):
    (copy / "extra.txt").write_text("not listed")
    wrong = {"outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": [9]}]}
    (copy / "samples" / "one.response.json").write_text(json.dumps(wrong))
    request = json.loads((copy / "samples" / "list.request.json").read_text())
    del request["inputs"][0]
    (copy / "samples" / "list.request.json").write_text(json.dumps(request))
    text = run("check", copy, code=1)
    problems = [line for line in text.splitlines() if line.startswith("problem: ")]
    named = [
        "samples/list.request.json has digest",
        "samples/one.response.json has digest",
        "extra.txt is not in",
        '"dense" is missing',
        'sample "one"',
    ]
    assert len(problems) == len(named) and text.endswith("5 problems\n")
    for problem in named:
        assert any(problem in line for line in problems), (problem, text)


@pytest.mark.parametrize(
    "config, named",
    [
        ("devise: cpu\n", "devise"),
        ("requestInputs: [dens]\n", "requestInputs"),
        ("inputs: {sparse: {vocabularies: [1, 2]}}\n", "2 entries"),
        ("topK: {ids: dense}\n", "topK.ids"),
    ],
)
def test_check_names_the_key(copy, config, named):
    (copy / "config.yaml").write_text("device: cpu\n" + config)
    run("manifest", copy)
    text = run("check", copy, code=1)
    assert "problem: ConfigInvalid: config.yaml: " in text and named in text and text.endswith("1 problem\n")


def test_check_of_a_model_for_onnx_runtime(copy):
    text = run("check", configure(copy, "engine: onnxruntime\n"))
    assert "engine: onnxruntime (config.yaml says engine: onnxruntime)" in text
    assert "rank and onnxruntime agree" in text


def test_check_and_inspect_in_bf16(copy):
    configure(copy, "precision: bf16\n")
    text = run("check", copy)
    assert "rank and onnxruntime agree" in text and "best pairs, which are the best tenth of each list" in text
    kept, of = (int(text.partition(word)[2].split()[0]) for word in ["bf16 keeps ", "of the "])
    assert 20 <= of and 0.9 * of <= kept <= of
    text = run("inspect", copy, library="/none")
    assert "precision: bf16\n" in text and " bf16+relu+round " in text
    text = run("inspect", configure(copy, "engine: onnxruntime\n"), code=1)
    assert "precision: bf16" in text and "say precision: f32" in text


def test_models_of_the_corpus_pass_the_check(tmp_path: pathlib.Path):
    for name in ["dcn.dynamo-20", "two-tower.torchscript-17", "lightgbm-regressor"]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes((CORPUS / f"{name}.onnx").read_bytes())
        (folder / "config.yaml").write_text("device: cpu\n")
        run("manifest", folder)
        assert "rank and onnxruntime agree" in run("check", folder)
