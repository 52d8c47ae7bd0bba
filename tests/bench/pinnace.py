"""Our own server."""

import json
import os
import pathlib
import statistics
import subprocess
import sys

from bench.models import MODELS, Model
from bench.processes import ServerProcess, Unavailable, http_ok
from harness.ports import free_port

NAME = "ranker"


class Runtime:
    """A build of `pinnace-runtime`."""

    def __init__(self, binary: pathlib.Path, work: pathlib.Path):
        self.binary, self.work = binary, work
        library = subprocess.run([sys.executable, MODELS / "ort_library"], check=True, capture_output=True, text=True)
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PINNACE_"))}
        self.environment = clean | {"ORT_DYLIB_PATH": library.stdout.strip(), "PINNACE_DRAIN_DELAY": "0s"}
        self.help = subprocess.run([binary, "serve", "--help"], check=True, capture_output=True, text=True).stdout

    def forces_instruction_sets(self) -> bool:
        return "PINNACE_INSTRUCTION_SET" in self.help

    def serve(self, model: Model, cores: set[int], settings: dict | None = None) -> "PinnaceServer":
        """`settings` are environment variables of the runtime."""
        return PinnaceServer(self, model, cores, settings or {})

    def optimize(self, model: Model, target: pathlib.Path) -> None:
        """Our published rewriting, whose result any server can run."""
        once = [part for text in model.once for part in ("--once", text)]
        command = [self.binary, "optimize", model.path, target, *once]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise Unavailable(f"pinnace-runtime optimize: {first_line(result.stderr)}")

    def size_mib(self) -> float:
        return self.binary.stat().st_size / 2**20

    def starts(self, model: Model, cores: set[int], count: int) -> dict:
        """From exec to ready, and the memory of a process that has just answered its warm-up."""
        seconds, memory = [], []
        for _ in range(count):
            server = self.serve(model, cores)
            try:
                seconds.append(server.start_seconds)
                memory.append(server.peak_rss_mib())
            finally:
                server.stop()
        return {
            "start_seconds": seconds, "median_start_seconds": statistics.median(seconds),
            "peak_rss_mib": memory, "median_peak_rss_mib": statistics.median(memory),
        }  # fmt: skip


class PinnaceServer(ServerProcess):
    def __init__(self, runtime: Runtime, model: Model, cores: set[int], settings: dict):
        http, grpc, self.admin = free_port(), free_port(), free_port()
        self.addresses = {"http": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{grpc}"}
        self.http_port = http
        termination = runtime.work / f"termination-{http}"
        termination.write_text("")
        environment = runtime.environment | {"PINNACE_TERMINATION_LOG": str(termination), "PINNACE_WORKERS": str(len(cores))} | settings
        command = [
            runtime.binary, "serve", "--model-uri", model.folder.resolve().as_uri(), "--model-name", NAME,
            "--listen", self.addresses["http"], "--grpc-listen", self.addresses["grpc"],
            "--admin-listen", f"127.0.0.1:{self.admin}", "--cache-dir", runtime.work / "cache",
            "--log-format", "text",
        ]  # fmt: skip
        super().__init__(command, cores, runtime.work / f"pinnace-{http}.log", environment)
        try:
            self.start_seconds = self.wait_ready(lambda: http_ok(self.admin, "/v2/health/ready"))
        except Unavailable as error:
            self.stop()
            said = termination.read_text()
            raise Unavailable(json.loads(said)["message"] if said else str(error)) from None

    def peak_rss_mib(self) -> float:
        from bench import cpu

        return cpu.peak_rss_mib(self.pid)

    def describe(self) -> dict:
        """What the server says about the model: the engine, where it tells."""
        import requests

        answer = requests.get(f"http://{self.addresses['http']}/v2/models/{NAME}/config", timeout=5)
        return answer.json() if answer.ok else {}


def first_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[0][:300]
