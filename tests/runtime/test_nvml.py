"""What /load and the metrics say, with the simulated NVML library: load, faults of the driver, and serving through them."""

import json
import os
import pathlib
import threading
import time

import make_small_ranker as small
import numpy as np
import pytest
import requests
from conftest import NAME, binary, wait_until

LIBRARY = pathlib.Path(binary()).parent / "libnvml_simulated.so"


class Gpu:
    """A runtime with a simulated GPU that does what the test says."""

    def __init__(self, start, ranker, folder: pathlib.Path):
        self.path = folder / "nvml.json"
        self.write()
        environment = {"PINNACE_NVML_LIBRARY": str(LIBRARY), "PINNACE_NVML_SIM_SCRIPT": str(self.path)}
        self.runtime = start(ranker.as_uri(), "--workers", "1", environment=environment)

    def write(self, gpus: int = 1, **state):
        """From now on."""
        script = {"gpus": gpus, "steps": [state] if state else []}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(script))
        os.replace(new, self.path)

    def load(self) -> dict:
        return load_of(self.runtime)

    def wait(self, condition, seconds: float = 30.0) -> dict:
        """The `gpu` part, once it is as the condition says."""

        def asked():
            gpu = self.load().get("gpu")
            return gpu if gpu and condition(gpu) else None

        return wait_until(asked, seconds)

    def metrics(self) -> str:
        return requests.get(f"{self.runtime.admin}/metrics", timeout=5).text


def load_of(runtime) -> dict:
    answer = requests.get(f"{runtime.admin}/load", timeout=5)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json"
    assert len(answer.content) < 1024
    return answer.json()


@pytest.fixture
def gpu(start, ranker, tmp_path) -> Gpu:
    return Gpu(start, ranker, tmp_path)


def body(count: int) -> dict:
    return small.request(*small.pairs(np.random.default_rng(7), count))


class Clients:
    """Requests one after the other, until the block ends."""

    def __init__(self, runtime, pairs: int):
        self.url, self.data = f"{runtime.url}/v2/models/{NAME}/infer", json.dumps(body(pairs)).encode()
        self.statuses, self.slowest, self.ended = [], 0.0, threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self):
        session = requests.Session()
        while not self.ended.is_set():
            began = time.monotonic()
            self.statuses.append(session.post(self.url, data=self.data, timeout=30).status_code)
            self.slowest = max(self.slowest, time.monotonic() - began)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def test_load_of_a_replica_without_nvml(start, ranker, tmp_path):
    missing = tmp_path / "libnvidia-ml.so.1"
    runtime = start(ranker.as_uri(), "--revision", "2fd69ee6fc67b240", "--nvml-library", str(missing))
    load = load_of(runtime)
    assert (load["version"], load["revision"], load["ready"], load["draining"]) == (1, "2fd69ee6fc67b240", True, False)
    assert len(load["bootId"]) == 16 and load["uptimeSeconds"] >= 0
    assert len(load["queueDelayCounts"]) == 13 and load["inFlight"] == 0
    assert "gpu" not in load and "latencyP99Ms" not in load
    assert runtime.infer(body(1)).status_code == 200
    assert "gpu" not in load_of(runtime)
    assert "pinnace_runtime_gpu" not in requests.get(f"{runtime.admin}/metrics", timeout=5).text
    runtime.stop()
    log = (tmp_path / "runtime.log").read_text()
    assert log.count("no NVML") == 1 and str(missing) in log


def test_a_bad_revision_is_refused(start, ranker, tmp_path):
    runtime = start(ranker.as_uri(), "--revision", "r" * 64, wait=False)
    assert runtime.process.wait(30) == 2
    assert "--revision" in (tmp_path / "runtime.log").read_text()


def test_requests_are_counted_over_windows(start, ranker):
    runtime = start(ranker.as_uri(), "--max-queue-bytes", "20000")
    # Refused ones first: the answered are in the short window even where the machine is slow.
    for _ in range(6):
        assert runtime.infer(body(64)).status_code == 429
    for _ in range(12):
        assert runtime.infer(body(1)).status_code == 200

    def counted():
        load = load_of(runtime)
        offered, refused, answered = (load["requestsPerSecond"][name][1] for name in ["offered", "refused", "answered"])
        # The rates of one window differ by the counts only, to the third digit.
        third = pytest.approx(offered / 3, rel=0.02)
        return load if answered > refused == third and answered == pytest.approx(offered * 2 / 3, rel=0.02) else None

    load = wait_until(counted)
    assert 0 < sum(load["queueDelayCounts"]) <= 12
    assert 0 < load["latencyP99Ms"] < 5000
    # Later the short window is empty again, and the long one still knows them.
    load = wait_until(lambda: (load := load_of(runtime))["requestsPerSecond"]["offered"][0] == 0 and load)
    assert load["requestsPerSecond"]["offered"][1] > 0
    assert "latencyP99Ms" not in load and sum(load["queueDelayCounts"]) == 0


def test_a_simulated_gpu_follows_the_load(gpu):
    idle = gpu.wait(lambda gpu: gpu["utilizationPercent"] <= 5)
    assert idle["simulated"] is True and idle["count"] == 1 and idle["lost"] == 0
    assert idle["stale"] is False and idle["ageSeconds"] < 5
    assert idle["memoryTotalMiB"] == 22888 and 450 < idle["memoryUsedMiB"] < 22888
    assert idle["powerLimitWatts"] == 300.0 and idle["powerWatts"] < 80
    assert (idle["throttled"], idle["mig"], idle["xid"]) == ([], False, {})
    with Clients(gpu.runtime, 2048):
        busy = gpu.wait(lambda gpu: gpu["utilizationPercent"] >= 10)
        load = wait_until(lambda: (load := gpu.load())["busyPercent"] >= 10 and load)
    assert busy["powerWatts"] > idle["powerWatts"] and busy["temperatureCelsius"] > idle["temperatureCelsius"]
    assert load["requestsPerSecond"]["offered"][0] > 0
    gpu.wait(lambda gpu: gpu["utilizationPercent"] <= 5)
    wait_until(lambda: gpu.load()["busyPercent"] == 0)
    text = gpu.metrics()
    assert 'pinnace_runtime_gpu_utilization_percent{gpu="0"}' in text and "(simulated)" in text
    assert 'pinnace_runtime_gpu_processes{gpu="0"} 1' in text


def test_a_driver_that_hangs_is_stale_and_serving_unharmed(gpu):
    gpu.write(utilization=40)
    gpu.wait(lambda gpu: gpu["utilizationPercent"] == 40)
    with Clients(gpu.runtime, 8) as clients:
        gpu.write(utilization=90, hang=True)
        stale = gpu.wait(lambda gpu: gpu["stale"])
        before = len(clients.statuses)
        wait_until(lambda: len(clients.statuses) > before + 50)
    assert stale["ageSeconds"] >= 5
    # The last known.
    assert stale["utilizationPercent"] == 40
    assert set(clients.statuses) == {200} and clients.slowest < 5
    assert gpu.load()["ready"] is True
    text = gpu.metrics()
    assert "pinnace_runtime_gpu_sample_age_seconds" in text and "pinnace_runtime_gpu_utilization" not in text
    gpu.write(utilization=90)
    fresh = gpu.wait(lambda gpu: not gpu["stale"])
    assert fresh["ageSeconds"] < 5
    gpu.wait(lambda gpu: gpu["utilizationPercent"] == 90)
    gpu.write(hang=True)
    wait_until(lambda: gpu.load()["gpu"]["ageSeconds"] > 2)
    # And it holds no exit.
    assert gpu.runtime.stop() == 0


def test_a_driver_that_hangs_from_the_start(start, ranker, tmp_path):
    script = tmp_path / "script.json"
    script.write_text('{"steps": [{"hang": true}]}')
    environment = {"PINNACE_NVML_LIBRARY": str(LIBRARY), "PINNACE_NVML_SIM_SCRIPT": str(script)}
    runtime = start(ranker.as_uri(), environment=environment)
    assert runtime.infer(body(1)).status_code == 200
    assert "gpu" not in load_of(runtime)
    assert runtime.stop() == 0


def test_a_lost_gpu_and_xid_events(gpu):
    gpu.write(gpus=2, utilization=30)
    gpu.wait(lambda gpu: gpu["count"] == 2 and gpu["powerLimitWatts"] == 600)
    gpu.write(gpus=2, utilization=30, lost=[1], xid=79)
    lost = gpu.wait(lambda gpu: gpu["lost"] == 1 and gpu["xid"])
    assert (lost["count"], lost["utilizationPercent"], lost["powerLimitWatts"]) == (2, 30, 300.0)
    assert lost["xid"] == {"79": 1} and lost["stale"] is False
    text = gpu.metrics()
    assert 'pinnace_runtime_gpu_lost{gpu="1"} 1' in text and 'pinnace_runtime_gpu_lost{gpu="0"} 0' in text
    assert 'pinnace_runtime_gpu_utilization_percent{gpu="0"}' in text
    assert 'pinnace_runtime_gpu_utilization_percent{gpu="1"}' not in text
    assert 'pinnace_runtime_gpu_xid_errors_total{xid="79"} 1' in text
    gpu.write(gpus=2, lost=[0, 1])
    gone = gpu.wait(lambda gpu: gpu["lost"] == 2)
    assert "utilizationPercent" not in gone and "memoryUsedMiB" not in gone
    assert gpu.runtime.infer(body(1)).status_code == 200


def test_mig_has_no_utilization(gpu):
    gpu.write(mig=True, utilization=50)
    mig = gpu.wait(lambda gpu: gpu["mig"])
    assert "utilizationPercent" not in mig and mig["memoryTotalMiB"] == 22888
    assert "pinnace_runtime_gpu_utilization" not in gpu.metrics()


def test_unsupported_is_absent_and_never_zero(gpu):
    gpu.wait(lambda gpu: "xid" in gpu)
    everything = ["utilization", "memory", "power", "powerLimit", "temperature", "clocks", "throttled", "mig", "ecc"]
    gpu.write(unsupported=[*everything, "processes", "name", "uuid"])
    bare = gpu.wait(lambda gpu: "memoryUsedMiB" not in gpu and "throttled" not in gpu)
    # A GPU without support for MIG is not in that mode.
    assert set(bare) == {"count", "lost", "ageSeconds", "stale", "mig", "xid"} and bare["mig"] is False
    series = {line.split("{")[0] for line in gpu.metrics().splitlines() if line.startswith("pinnace_runtime_gpu_")}
    known = {"info", "lost", "mig"}
    assert {name.removeprefix("pinnace_runtime_gpu_") for name in series if "age" not in name} == known


def test_xid_is_absent_where_no_events_are_reported(start, ranker, tmp_path):
    script = tmp_path / "script.json"
    script.write_text('{"steps": [{"unsupported": ["events"]}]}')
    environment = {"PINNACE_NVML_LIBRARY": str(LIBRARY), "PINNACE_NVML_SIM_SCRIPT": str(script)}
    runtime = start(ranker.as_uri(), environment=environment)
    load = wait_until(lambda: "gpu" in (load := load_of(runtime)) and load)
    assert "xid" not in load["gpu"]


def test_full_though_nothing_is_asked_and_throttled(gpu):
    """A utilization that sticks at 100 % beside engines that idle: the reader has both, and can tell."""
    gpu.write(utilization=100, throttleBits=4 + 64 + 1)
    stuck = gpu.wait(lambda gpu: gpu["utilizationPercent"] == 100 and gpu["throttled"])
    assert stuck["throttled"] == ["PowerCap", "HwThermal"] and stuck["powerWatts"] == 300.0
    # Until it idles: engines may have been warmed up a moment ago.
    load = wait_until(lambda: (load := gpu.load())["busyPercent"] == 0 and load)
    assert load["gpu"]["utilizationPercent"] == 100 and load["gpu"]["stale"] is False
    assert load["requestsPerSecond"]["offered"][0] == 0
    assert 'pinnace_runtime_gpu_throttled{gpu="0",reason="PowerCap"} 1' in gpu.metrics()
