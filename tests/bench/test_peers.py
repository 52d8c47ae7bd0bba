"""Peers that are not there, or do not do what they are taken for."""

import importlib
import pathlib
import sys
import types
from dataclasses import dataclass, replace

import numpy as np
import pytest

from bench import stage
from bench.models import BF16_TOLERANCE, Model
from bench.processes import Unavailable
from bench.stage import LEFT_OUT, OPENVINO_BF16, OPENVINO_F32, Setup, Stage

MODEL = Model(pathlib.Path("/nowhere"), [], "score")


def staged(folder: pathlib.Path, peers: tuple[str, ...] = ()) -> Stage:
    return Stage(Setup(None, folder, folder, 1, peers), {0}, {})


def test_openvino_that_is_left_out_or_cannot_be_installed_is_named(tmp_path, monkeypatch):
    out = staged(tmp_path)
    out.add_openvino(MODEL)
    assert out.absent == {OPENVINO_F32: LEFT_OUT, OPENVINO_BF16: LEFT_OUT}

    def fails(*_):
        raise Unavailable("cannot be installed: no wheel")

    monkeypatch.setattr(stage, "install", fails)
    broken = staged(tmp_path, ("openvino",))
    broken.add_openvino(MODEL)
    assert broken.absent == dict.fromkeys((OPENVINO_F32, OPENVINO_BF16), "cannot be installed: no wheel")
    assert not broken.contenders


def test_a_python_without_openvino_says_so(tmp_path, monkeypatch):
    # This one may have it: a module that cannot be imported stands before it.
    (tmp_path / "openvino.py").write_text("raise ImportError('no openvino here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(stage, "install", lambda *_: pathlib.Path(sys.executable))
    with staged(tmp_path, ("openvino",)) as out:
        out.add_openvino(MODEL)
    assert out.absent[OPENVINO_BF16] == "openvino-bf16 in process ended: ImportError: no openvino here"


@dataclass
class Answers:
    """A contender that is off by so much."""

    off: float
    name: str = "peer"

    def scores(self, _load) -> np.ndarray:
        return np.float32([0.5 + self.off, 0.25])

    def expected(self, scores: np.ndarray) -> np.ndarray:
        return scores


@pytest.mark.parametrize("off, in_bf16, admitted", [(0.0, False, True), (0.005, False, False), (0.005, True, True), (0.02, True, False)])
def test_only_who_answers_as_onnx_runtime_does_is_measured(tmp_path, off, in_bf16, admitted):
    out = staged(tmp_path)
    model = replace(MODEL, tolerance=BF16_TOLERANCE) if in_bf16 else MODEL
    out.references[(MODEL.path, "random")] = np.float32([0.5, 0.25])
    out.admit(Answers(off), model, "random")
    assert [contender.name for contender in out.contenders] == ["peer"] * admitted
    assert admitted or out.absent["peer"].startswith("its answers differ from ONNX Runtime's by")


@pytest.fixture
def openvino(monkeypatch):
    """The little of OpenVINO that is used; it computes in `computes_in`, whatever it was asked for."""
    fake = types.ModuleType("openvino")
    fake.Type = types.SimpleNamespace(f32="f32", bf16="bf16")
    fake.computes_in, fake.asked = "bf16", None

    class Core:
        def compile_model(self, path, device, asked):
            fake.asked = (path, device, asked)
            request = types.SimpleNamespace(infer=lambda tensors, **_: {"score": tensors["x"] * 2})
            return types.SimpleNamespace(get_property=lambda _: fake.computes_in, create_infer_request=lambda: request)

    fake.Core = Core
    monkeypatch.setitem(sys.modules, "openvino", fake)
    monkeypatch.delitem(sys.modules, "openvino_scorer", raising=False)
    fake.scorer = importlib.import_module("openvino_scorer").OpenVinoScorer
    yield fake
    sys.modules.pop("openvino_scorer", None)


def test_openvino_is_set_up_as_onnx_runtime_is(openvino):
    score = openvino.scorer("m.onnx", "score", 1, "bf16")
    path, device, asked = openvino.asked
    assert (path, device) == ("m.onnx", "CPU")
    assert (asked["INFERENCE_NUM_THREADS"], asked["NUM_STREAMS"], asked["PERFORMANCE_HINT"]) == (1, 1, "LATENCY")
    assert score({"x": np.float32([1.5])}).tolist() == [3.0]


def test_openvino_that_has_no_bf16_here_is_not_measured_for_it(openvino):
    openvino.computes_in = "f32"
    with pytest.raises(RuntimeError, match="asked for bf16, OpenVINO computes in f32 here"):
        openvino.scorer("m.onnx", "score", 1, "bf16")
