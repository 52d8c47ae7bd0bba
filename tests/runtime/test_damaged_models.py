"""Model folders that are cut short or have a wrong bit: refused with the file and the remedy, never served wrongly."""

import json
import os
import pathlib
import shutil
import subprocess

import make_small_ranker as small
import numpy as np
import pytest
from conftest import binary, digest_of

FILES = ["model.onnx", "config.yaml", "manifest.json", "samples/one.request.json", "samples/list.response.json"]
POINTS = [0, 1, 0.25, 0.5, 0.9, -1]
CORPUS = pathlib.Path(__file__).resolve().parents[2] / "inference-runtime" / "rank" / "tests" / "corpus"


def check(folder: pathlib.Path) -> tuple[int, str]:
    """What `check`, which loads a folder as `serve` does, says of it; ONNX Runtime is not there to help."""
    environment = {"PATH": os.environ["PATH"], "ORT_DYLIB_PATH": "/none/libonnxruntime.so"}
    done = subprocess.run([binary(), "check", folder], capture_output=True, text=True, env=environment, timeout=60)
    said = done.stdout + done.stderr
    # 101 and signals are crashes.
    assert done.returncode in (0, 1) and "panicked" not in said, (done.returncode, said)
    return done.returncode, said


def cut(content: bytes, point: float) -> bytes:
    size = int(point * len(content)) if 0 < point < 1 else point
    return content[:size]


def spoil(folder: pathlib.Path, name: str, content: bytes, fitting: bool):
    (folder / name).write_bytes(content)
    if fitting and name != "manifest.json":
        small.write_manifest(folder)


@pytest.mark.parametrize("name", FILES)
def test_cut_files_do_not_fit_the_manifest(copy, name):
    whole = (copy / name).read_bytes()
    for point in POINTS:
        spoil(copy, name, cut(whole, point), fitting=False)
        code, said = check(copy)
        if name == "manifest.json" and point == -1:
            # The last byte is a line feed.
            assert code == 0
            continue
        remedy = "write it again" if name == "manifest.json" else "restore the file, or write it with"
        assert code == 1 and name in said and remedy in said, (point, said)


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_cut_files_with_a_manifest_that_fits(copy, name):
    """The upload was broken before the manifest was written: what is left is no model, or is said to be good for a reason."""
    whole = (copy / name).read_bytes()
    for point in POINTS:
        spoil(copy, name, cut(whole, point), fitting=True)
        code, said = check(copy)
        if code == 0:
            # A configuration may end after any key, and less of it is one too; whitespace at an end says nothing.
            assert name == "config.yaml" or point == -1, (name, point, said)
        else:
            # Without a word on the device it is a GPU; without ONNX Runtime only `rank` reads the model.
            others = {"config.yaml": "the device is gpu", "model.onnx": "not an ONNX model: "}
            named = [name, others.get(name, f'sample "{pathlib.Path(name).name.split(".")[0]}"')]
            assert "problem: " in said and any(text in said for text in named), (point, said)


def test_bits_of_the_model_are_caught_by_the_digest(copy):
    whole = (copy / "model.onnx").read_bytes()
    for place in np.random.default_rng(4).integers(0, 8 * len(whole), 20):
        content = bytearray(whole)
        content[place // 8] ^= 1 << (place % 8)
        spoil(copy, "model.onnx", bytes(content), fitting=False)
        code, said = check(copy)
        assert code == 1 and "model.onnx has digest" in said and "restore the file" in said


def small_folder(folder: pathlib.Path) -> pathlib.Path:
    """A model of the corpus of which every byte matters, with its known answer as a sample."""
    known = json.loads((CORPUS / "deepfm.dynamo-20.json").read_text())
    (folder / "samples").mkdir(parents=True)
    shutil.copy(CORPUS / "deepfm.dynamo-20.onnx", folder / "model.onnx")
    (folder / "config.yaml").write_text("device: cpu\nengine: rank\n")
    (folder / "samples" / "known.request.json").write_text(json.dumps({"inputs": known["inputs"]}))
    (folder / "samples" / "known.response.json").write_text(json.dumps({"outputs": known["outputs"]}))
    small.write_manifest(folder)
    return folder


def flips(folder: pathlib.Path, seed: int, count: int) -> int:
    """Bits with a manifest that fits: either refused with a reason, or the sample's answer is right. How many are refused."""
    assert check(folder)[0] == 0
    whole, refused = (folder / "model.onnx").read_bytes(), 0
    # The graph is what is most easily broken: half of the bits are of the first and last two kilobytes.
    ends = np.concatenate([np.arange(2048), np.arange(len(whole) - 2048, len(whole))])
    rng = np.random.default_rng(seed)
    for at in range(count):
        content = bytearray(whole)
        content[int(rng.choice(ends)) if at % 2 else int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        spoil(folder, "model.onnx", bytes(content), fitting=True)
        code, said = check(folder)
        if code == 1:
            refused += 1
            assert "problem: ModelInvalid: " in said or "problem: ConfigInvalid: " in said, said
    return refused


def test_bits_of_the_graph(tmp_path):
    assert flips(small_folder(tmp_path / "model"), 1, 40) > 5


@pytest.mark.long
def test_many_bits_of_the_graph(tmp_path):
    assert flips(small_folder(tmp_path / "model"), 2, 2000) > 200


def test_serve_says_the_same(start, copy):
    whole = (copy / "model.onnx").read_bytes()
    spoil(copy, "model.onnx", cut(whole, 0.5), fitting=False)
    failure = start(copy.as_uri(), wait=False).failure()
    assert failure["reason"] == "DigestMismatch" and "model.onnx" in failure["message"] and "upload" in failure["message"]
    spoil(copy, "model.onnx", cut(whole, 0.5), fitting=True)
    failure = start(copy.as_uri(), wait=False).failure()
    assert failure["reason"] == "ModelInvalid" and "model.onnx" in failure["message"]


def test_a_damaged_cache_is_not_served(start, ranker, tmp_path):
    """What lies in the cache is verified again at each start."""
    digest = digest_of(ranker / "manifest.json")
    first = start(ranker.as_uri(), "--model-digest", digest)
    body = small.request(*small.pairs(np.random.default_rng(6), 4))
    expected = first.infer(body).json()["outputs"][0]["data"]
    assert first.stop() == 0
    (cached,) = (tmp_path / "cache" / "sha256").iterdir()
    for name in ["model.onnx", "config.yaml", "manifest.json"]:
        content = (cached / name).read_bytes()
        (cached / name).write_bytes(content[: len(content) // 2])
        again = start(ranker.as_uri(), "--model-digest", digest)
        assert again.infer(body).json()["outputs"][0]["data"] == expected
        assert again.stop() == 0
