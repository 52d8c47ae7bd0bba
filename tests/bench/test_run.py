"""A whole run, as short as it can be: the result is valid, whatever the machine is doing beside it."""

import gzip
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from bench import cpu, models
from bench.stage import IN_PROCESS, OPENVINO_BF16, OPENVINO_F32

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
RUNTIME = os.environ.get("PINNACE_RUNTIME", str(TARGET / "debug" / "pinnace-runtime"))
# A build with several engines has one contender more.
OTHER_ENGINE = "pinnace on ONNX Runtime http"
OURS = {"pinnace http", "pinnace grpc", "pinnace bf16 http", "without a model http", "without a model grpc"}


def run(folder: pathlib.Path, *options: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable, "-m", "bench", "--runtime", RUNTIME, "--rounds", "1", "--seconds", "0.2", "--bodies", "3",
        "--rows", "1,16", "--open-rows", "16", "--foreign-limit", "1", "--peers", "", "--result", folder / "runtime.json",
        "--page", folder / "runtime.md", *options,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "tests")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def measured(folder):
    done = run(folder, "--parts", "same-bytes,list-shaped,start")
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "runtime.json").read_text()), (folder / "runtime.md").read_text()


def test_every_sample_has_its_figures(measured):
    results, _ = measured
    samples = results["samples"]
    assert not [sample["failure"] for sample in samples if sample["failure"]]
    capacity = [s for s in samples if s["section"] == "same bytes" and s["purpose"] == "capacity"]
    found = {(s["contender"], s["rows"]) for s in capacity if s["contender"] != OTHER_ENGINE}
    assert found == {(n, r) for n in OURS | {IN_PROCESS} for r in (1, 16)}
    for sample in samples:
        total = sample["total"]
        assert total["pairs"] == total["answered"] * sample["rows"] > 0
        assert 0 <= sample["foreign_share"] <= 1
        # On a machine that is very busy no request both began and ended in so short a window.
        assert sample["p50_ms"] is None or sample["p50_ms"] <= sample["p99_ms"]
        assert sample["core_us_per_pair"] == pytest.approx(sample["server_cpu_seconds"] * 1e6 / total["pairs"])


def test_the_samples_are_kept_beside_the_page(measured, folder):
    results, _ = measured
    assert json.loads(gzip.decompress((folder / "runtime.json.gz").read_bytes())) == results


def test_open_loops_run_at_shares_of_the_own_capacity(measured):
    results, _ = measured
    opened = [s for s in results["samples"] if s["purpose"] == "open"]
    assert {(s["contender"], s["share"]) for s in opened if s["contender"] != OTHER_ENGINE} == {(n, share) for n in OURS for share in (0.5, 0.7, 0.9)}
    for name in OURS:
        half, most = (next(s["rate"] for s in opened if (s["contender"], s["share"]) == (name, x)) for x in (0.5, 0.9))
        assert most == pytest.approx(half * 1.8)


def test_start_memory_and_size_are_measured(measured):
    start = measured[0]["start"]
    assert 0 < start["median_start_seconds"] < 60
    assert start["median_peak_rss_mib"] > 5 and start["binary_mib"] > 1


def test_the_page_is_written_from_the_result(measured):
    results, text = measured
    assert "## Targets" in text and "| A: same bytes, same graph, f32 |" in text
    assert text.count("| pinnace http |") >= 3
    # Peers that were left out are said to be.
    assert "- KServe (same bytes): left out by --peers" in text
    assert {"Triton with ONNX Runtime", OPENVINO_F32, OPENVINO_BF16} <= results["absent"]["same bytes"].keys()


def test_a_large_request_alone_by_engine_threads(tmp_path):
    done = run(tmp_path, "--parts", "large")
    assert done.returncode == 0, done.stderr
    samples = json.loads((tmp_path / "runtime.json").read_text())["samples"]
    threads = {f"pinnace, {number} http" for number in ("1 engine thread", "2 engine threads")}
    assert {(s["contender"], s["rows"]) for s in samples} == {(name, rows) for name in threads for rows in (1024, 4096)}
    text = (tmp_path / "runtime.md").read_text()
    assert "| pinnace, 1 engine thread http | 4,096 |" in text and text.count("1.00x | ") >= 2


def test_any_model_folder(tmp_path):
    folder = models.small_ranker(tmp_path / "mine").folder
    done = run(tmp_path, "--model", str(folder), "--parts", "same-bytes,big-table")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "runtime.json").read_text())
    assert results["model"]["folder"] == "mine"
    # The targets are the small ranker's, and so are the other models.
    assert {sample["section"] for sample in results["samples"]} == {"same bytes"}
    assert "## Targets" not in (tmp_path / "runtime.md").read_text()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--model", "/nowhere"], "error: /nowhere: no model.onnx in it"),
        (["--peers", "kserve,nobody"], "--peers: nobody unknown; there are kserve,"),
        (["--parts", "all"], "--parts: all unknown"),
        (["--rounds", "0"], "are at least 1"),
        (["--rows", "1,100000"], "its maxBatchSize is 4096"),
    ],
)
def test_bad_options_are_named(tmp_path, options, said):
    done = run(tmp_path, *options)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr


def test_whoever_is_ended_leaves_no_server_behind(tmp_path):
    command = [sys.executable, "-m", "bench", "--runtime", RUNTIME, "--peers", "", "--result", tmp_path / "r", "--page", tmp_path / "p"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "tests")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        # The first sample is told when all servers are up, and stopped but for one.
        lines = iter(process.stderr.readline, "")
        assert any("core-us/pair" in line for line in lines)
        every = cpu.processes()
        started = cpu.tree(process.pid, every) - {process.pid}
        assert len(started) >= 3
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    left = {pid: cpu.processes()[pid] for pid in started & cpu.processes().keys()}
    # A number may have been given to somebody else since.
    assert not [pid for pid, now in left.items() if now.session == every[pid].session]
