"""Starts the real runtime against models on the disk and behind small HTTP servers."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import onnxruntime
import pytest
import requests

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "models"
sys.path.insert(0, str(MODELS))
sys.path.append(str(MODELS.parent))

from harness.ports import free_port  # noqa: E402

NAME = "ranker"


def binary() -> str:
    target = os.environ.get("CARGO_TARGET_DIR", str(REPOSITORY / "target"))
    return os.environ.get("PINNACE_RUNTIME", str(pathlib.Path(target) / "debug" / "pinnace-runtime"))


def wait_until(condition, seconds: float = 30.0):
    """Asks until the condition holds: never a fixed sleep."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(requests.RequestException):
            if value := condition():
                return value
        time.sleep(0.01)
    raise AssertionError(f"{condition} did not hold within {seconds} s")


class Runtime:
    """A process of the runtime; without an address, its flags name a repository."""

    def __init__(self, folder: pathlib.Path, uri: str | None, *flags: str, environment: dict | None = None):
        self.port, self.grpc_port, self.admin_port = free_port(), free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.admin_port}"
        self.termination_log = folder / "termination-log"
        self.termination_log.write_text("")
        library = subprocess.run(
            [sys.executable, MODELS / "ort_library"], check=True, capture_output=True, text=True
        ).stdout.strip()
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "PINNACE_"))}
        clean |= {"ORT_DYLIB_PATH": library, "PINNACE_TERMINATION_LOG": str(self.termination_log)}
        clean["PINNACE_DRAIN_DELAY"] = "300ms"
        model = []
        if uri is not None:
            model = ["--model-uri", uri, "--model-name", NAME]
            clean["PINNACE_MODEL_VERSION"] = "1"
        command = [
            binary(), "serve", *model, "--listen", f"127.0.0.1:{self.port}",
            "--grpc-listen", f"127.0.0.1:{self.grpc_port}", "--admin-listen", f"127.0.0.1:{self.admin_port}",
            "--cache-dir", str(folder / "cache"), *flags,
        ]  # fmt: skip
        self.log = open(folder / "runtime.log", "ab")
        self.process = subprocess.Popen(command, env=clean | (environment or {}), stderr=self.log)

    def infer(self, body, model: str = NAME, **options) -> requests.Response:
        return requests.post(f"{self.url}/v2/models/{model}/infer", json=body, timeout=30, **options)

    def load(self, model: str = NAME, what: str = "load", **parameters) -> requests.Response:
        """Asks the admin port to load a model, or to unload it."""
        url = f"{self.admin}/v2/repository/models/{model}/{what}"
        return requests.post(url, json={"parameters": parameters}, timeout=120)

    def index(self) -> list[dict]:
        return requests.post(f"{self.url}/v2/repository/index", timeout=5).json()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.termination_log.read_text()
        return requests.get(f"{self.admin}/v2/health/ready", timeout=5).status_code == 200

    def statistics(self, model: str = NAME) -> dict:
        """The model's own, as the protocol gives them."""
        answer = requests.get(f"{self.url}/v2/models/{model}/stats", timeout=5).json()
        (model,) = answer["model_stats"]
        return model

    def failure(self, seconds: float = 45.0) -> dict:
        """The termination message of a process that must fail."""
        assert self.process.wait(seconds) == 1
        text = self.termination_log.read_text()
        assert len(text) <= 2048
        return json.loads(text)

    def metric(self, line_start: str) -> float:
        lines = requests.get(f"{self.admin}/metrics", timeout=5).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start))

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def start(tmp_path):
    """Starts runtimes that are gone when the test ends."""
    started = []

    def begin(uri: str | None, *flags: str, wait: bool = True, environment: dict | None = None) -> Runtime:
        runtime = Runtime(tmp_path, uri, *flags, environment=environment)
        started.append(runtime)
        if wait:
            wait_until(runtime.ready)
        return runtime

    yield begin
    for runtime in started:
        runtime.close()


@pytest.fixture(scope="session")
def ranker(tmp_path_factory) -> pathlib.Path:
    return make_model(tmp_path_factory.mktemp("model") / "ranker")


@pytest.fixture(scope="session")
def session(ranker):
    """ONNX Runtime in Python, on the same model."""
    return onnxruntime.InferenceSession(str(ranker / "model.onnx"), providers=["CPUExecutionProvider"])


def lists(count: int):
    """Requests of 1 to 64 pairs, the same ones each time."""
    import make_small_ranker

    rng = np.random.default_rng(3)
    return [make_small_ranker.pairs(rng, int(rng.integers(1, 65))) for _ in range(count)]


def make_model(folder: pathlib.Path, *flags: str) -> pathlib.Path:
    script = MODELS / "make_small_ranker.py"
    subprocess.run([sys.executable, script, folder, *flags], check=True, capture_output=True)
    return folder


def configure(folder: pathlib.Path, text: str) -> pathlib.Path:
    """Adds to a copy's configuration."""
    import make_small_ranker

    with open(folder / "config.yaml", "a") as file:
        file.write(text)
    make_small_ranker.write_manifest(folder)
    return folder


def digest_of(path: pathlib.Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def copy(ranker, tmp_path):
    """A copy of the model that a test may damage."""
    return pathlib.Path(shutil.copytree(ranker, tmp_path / "copy"))


class Store(http.server.ThreadingHTTPServer):
    """A folder over HTTP, as S3 (path style, unsigned) and web servers give it; with faults."""

    def __init__(self, root: pathlib.Path):
        self.root, self.faults, self.calls = root, [], []
        super().__init__(("127.0.0.1", 0), StoreHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class StoreHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.calls.append((self.path, self.headers.get("Authorization")))
        path = self.server.root / self.path.lstrip("/")
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            return self.answer(fault, b"<Error><Code>Fault</Code></Error>")
        if not path.is_file():
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        self.answer(200, path.read_bytes(), cut=fault == "cut")

    def answer(self, status: int, content: bytes, cut: bool = False):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def store(tmp_path, ranker):
    root = tmp_path / "store"
    shutil.copytree(ranker, root / "models" / "ranker")
    server = Store(root)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
