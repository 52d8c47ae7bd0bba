"""Triton's own load generator drives the server unchanged, and none of its requests fails."""

import csv
import json
import os
import pathlib
import subprocess

import make_small_ranker as small
import numpy as np
import nvidia.cuda_runtime
import pytest
from conftest import NAME, REPOSITORY

BINARY = REPOSITORY / ".cache" / "perf-analyzer" / "bin" / "perf_analyzer"


def perf_analyzer(folder: pathlib.Path, address: str, *flags: str) -> dict:
    """Runs it with requests whose ids are in their vocabularies; gives the row of its report."""
    assert BINARY.exists(), "run tests/tools/setup"
    dense, sparse = small.pairs(np.random.default_rng(1), 20)
    data = [{"dense": d.tolist(), "sparse": s.tolist()} for d, s in zip(dense, sparse)]
    (folder / "data.json").write_text(json.dumps({"data": data}))
    libraries = str(pathlib.Path(next(iter(nvidia.cuda_runtime.__path__))) / "lib")
    command = [
        BINARY, "-m", NAME, "-u", address, "--input-data", folder / "data.json", "-f", folder / "report.csv",
        "--concurrency-range", "4", *flags,
    ]  # fmt: skip
    result = subprocess.run(
        command, env=os.environ | {"LD_LIBRARY_PATH": libraries}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = csv.DictReader((folder / "report.csv").read_text().splitlines())
    return row


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    "measurement",
    [
        ["--request-count", "200"],
        # Windows that need not be alike: the test asks whether it works, not how fast.
        ["-p", "500", "-s", "1000", "-b", "8"],
        ["--measurement-mode", "count_windows", "--measurement-request-count", "100", "-s", "1000", "-a"],
    ],
    ids=["requests", "time_windows", "count_windows"],
)
def test_drives_the_server(start, ranker, tmp_path, protocol, measurement):
    runtime = start(ranker.as_uri())
    port = runtime.port if protocol == "http" else runtime.grpc_port
    row = perf_analyzer(tmp_path, f"127.0.0.1:{port}", "-i", protocol, *measurement)
    assert float(row["Inferences/Second"]) > 0
    # It found the statistics, and made its report of them.
    assert float(row["Server Compute Infer"]) > 0
    answered = runtime.metric(f'pinnace_requests_total{{model="{NAME}",version="1",outcome="ok"')
    assert answered >= 100 and answered == runtime.metric("pinnace_requests_total")
