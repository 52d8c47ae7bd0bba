"""What is measured: a server and the way to ask it, or an engine without a server."""

import json
import pathlib
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from bench import wires
from bench.cpu import Watch
from bench.models import Model
from bench.processes import ServerProcess, Unavailable


@dataclass(frozen=True)
class Load:
    """How a contender is loaded, in one sample."""

    kind: str = "random"
    rows: int = 64
    # Of a closed loop, or at most so many of an open one.
    connections: int = 8
    seconds: float = 1.0
    # Requests a second of an open loop.
    rate: float | None = None


class Client:
    """`pinnace-runtime bench` on the client's cores."""

    def __init__(self, binary: pathlib.Path, work: pathlib.Path, cores: set[int], bodies: int):
        self.binary, self.work, self.cores, self.bodies = binary, work, cores, bodies

    def run(self, contender: "Contender", load: Load) -> dict:
        command = [
            "taskset", "-c", ",".join(map(str, sorted(self.cores))), self.binary, "bench",
            "--address", contender.address, "--protocol", contender.wire.protocol,
            "--bodies", self.file(contender, load), "--connections", str(load.connections),
            "--duration", f"{load.seconds}s", "--warm-up", f"{load.seconds * 0.2}s", "--patience", "2s",
        ]  # fmt: skip
        if load.rate is not None:
            command += ["--rate", f"{max(load.rate, 1.0):.3f}"]
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if result.returncode != 0:
            return {"failure": result.stderr.strip()[-300:] or "the client failed"}
        return json.loads(result.stdout)

    def file(self, contender: "Contender", load: Load) -> pathlib.Path:
        """Made once for each way in which lists travel."""
        file = self.work / f"{contender.bodies_key}-{load.kind}-{load.rows}.bodies"
        if not file.exists():
            wires.write(file, contender.wire, contender.lists(load, self.bodies), load.rows)
        return file


@dataclass
class Contender:
    """`lists(load, count)` gives what it is sent."""

    name: str
    title: str
    server: ServerProcess
    wire: object
    model: Model
    door: str
    make_lists: object
    bodies_key: str

    @property
    def address(self) -> str:
        return self.server.addresses[self.door]

    def lists(self, load: Load, count: int) -> list[dict[str, np.ndarray]]:
        return self.make_lists(load.kind, load.rows, count)

    def expected(self, scores: np.ndarray) -> np.ndarray:
        return self.wire.expected(scores)

    def scores(self, load: Load) -> np.ndarray:
        return wires.ask(self.wire, self.address, self.lists(load, 1)[0])

    def sample(self, client: Client, load: Load) -> dict:
        watch = Watch(self.server.pid)
        report = client.run(self, load)
        return flatten(report, watch.end())


@dataclass(frozen=True)
class Engine:
    """One that `inprocess.py` knows, and the Python that has it."""

    name: str = "onnxruntime"
    python: pathlib.Path = pathlib.Path(sys.executable)


class InProcess(ServerProcess):
    """An engine in Python, which takes its orders through a pipe."""

    def __init__(self, engine: Engine, model_path: pathlib.Path, output: str, cores: set[int], work: pathlib.Path):
        self.engine = engine.name
        script = pathlib.Path(__file__).resolve().parent / "inprocess.py"
        command = [
            engine.python, script, "--engine", engine.name, "--model", model_path, "--output", output,
            "--threads", len(cores),
        ]  # fmt: skip
        log = work / f"inprocess-{time.monotonic_ns()}.log"
        super().__init__(command, cores, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()
        self.start_seconds = time.monotonic() - self.started

    def order(self, what: dict) -> dict:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise Unavailable(f"{self.engine} in process ended: {self.last_words()}")
        return json.loads(line)


@dataclass
class InProcessContender:
    name: str
    title: str
    server: InProcess
    make_lists: object
    work: pathlib.Path
    bodies: int
    bodies_key: str

    def file(self, load: Load) -> str:
        file = self.work / f"{self.bodies_key}-{load.kind}-{load.rows}.npz"
        if not file.exists():
            lists = self.make_lists(load.kind, load.rows, self.bodies)
            named = {f"{i}:{name}": values for i, tensors in enumerate(lists) for name, values in tensors.items()}
            np.savez(file, **named)
        return str(file)

    def expected(self, scores: np.ndarray) -> np.ndarray:
        return scores

    def scores(self, load: Load) -> np.ndarray:
        answer = self.server.order({"lists": self.file(load), "scores": True})
        return np.array(answer["scores"], np.float32)

    def sample(self, _client: Client, load: Load) -> dict:
        order = {"lists": self.file(load), "pairs": load.rows}
        self.server.order(order | {"seconds": 0})
        watch = Watch(self.server.pid)
        report = self.server.order(order | {"seconds": load.seconds})
        return flatten(report, watch.end())


def flatten(report: dict, used: dict) -> dict:
    """One sample of the raw results."""
    total = report.get("total", {})
    sample = used | {"failure": report.get("failure")}
    if total.get("failed") or not total.get("answered"):
        sample["failure"] = sample["failure"] or report.get("first_failure") or "nothing was answered"
    if not total:
        return sample
    latency, refused = report["latency"] or {}, report.get("refused_latency") or {}
    sample |= {
        "requests_per_second": report["answered_per_second"], "pairs_per_second": report["pairs_per_second"],
        "p50_ms": latency.get("p50_ms"), "p99_ms": latency.get("p99_ms"), "refused_p99_ms": refused.get("p99_ms"),
        "client_cpu_share": report["client_cpu_seconds"] / report["elapsed_seconds"],
        "server_cpu_share": used["server_cpu_seconds"] / report["elapsed_seconds"],
        "lateness_p99_ms": (report.get("lateness") or {}).get("p99_ms"), "total": total,
    }  # fmt: skip
    if total["pairs"]:
        sample["core_us_per_pair"] = used["server_cpu_seconds"] * 1e6 / total["pairs"]
        sample["us_per_pair"] = 1e6 / report["pairs_per_second"] if report["pairs_per_second"] else None
    return sample


def check_scores(contender, reference: np.ndarray, load: Load, tolerance: float) -> float:
    """The largest difference; a contender with other answers is not measured."""
    scores, reference = np.ravel(contender.scores(load)), contender.expected(reference)
    if scores.shape != reference.shape:
        raise Unavailable(f"it answers {scores.size} scores where {reference.size} are expected")
    difference = float(np.max(np.abs(scores - reference)))
    if not difference <= tolerance:
        raise Unavailable(f"its answers differ from ONNX Runtime's by {difference:.2g}")
    return difference
