"""Other servers, and engines, from PyPI, each in an environment of its own, since they ask for different versions of the same things."""

import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

from bench import cpu
from bench.models import Model
from bench.pinnace import NAME
from bench.processes import ServerProcess, Unavailable, http_ok
from bench.wires import Base64Json, V2Grpc, V2Http
from harness.ports import free_port

FOLDER = pathlib.Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Peer:
    """`FOLDER/NAME_server.py` is started with what `FOLDER/NAME.txt` installs."""

    name: str
    title: str
    wires: tuple[str, ...]
    # Answers 200 once the model can be asked.
    ready: str = f"/v2/models/{NAME}/ready"

    def wire(self, kind: str, output: str):
        return {"http": V2Http(NAME, output), "grpc": V2Grpc(NAME, output), "json": Base64Json("/predict")}[kind]

    def serve(self, python: pathlib.Path, model: Model, cores: set[int], work: pathlib.Path) -> "PeerServer":
        return PeerServer(self, python, model, cores, work)


PEERS = [
    Peer("kserve", "KServe", ("http", "grpc")),
    Peer("mlserver", "MLServer", ("grpc",)),
    Peer("pytriton", "PyTriton", ("http", "grpc")),
    Peer("bentoml", "BentoML", ("http",), "/readyz"),
    Peer("litserve", "LitServe", ("json",), "/health"),
]
TRITON_ABSENT = (
    "Triton's server comes with nvidia-pytriton, but without its ONNX Runtime backend, which has to be built from source"
)


# In process, as ONNX Runtime is.
OPENVINO = "openvino"
NAMES = [*(peer.name for peer in PEERS), OPENVINO]


def install(name: str, cache: pathlib.Path) -> pathlib.Path:
    """The Python of a peer; what is installed already is taken as it is."""
    folder, wanted = cache / "peers" / name, FOLDER / f"{name}.txt"
    stamp, python = folder / ".requirements", folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted.read_text():
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", wanted]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise Unavailable(f"cannot be installed: {(result.stderr.strip().splitlines() or ['pip failed'])[-1][:300]}")
    stamp.write_text(wanted.read_text())
    return python


class PeerServer(ServerProcess):
    def __init__(self, peer: Peer, python: pathlib.Path, model: Model, cores: set[int], work: pathlib.Path):
        http, grpc = free_port(), free_port()
        self.addresses = {"http": f"127.0.0.1:{http}", "json": f"127.0.0.1:{http}", "grpc": f"127.0.0.1:{grpc}"}
        command = [python, FOLDER / f"{peer.name}_server.py"]
        told = {"MODEL": model.path.resolve(), "HTTP": http, "GRPC": grpc, "CORES": len(cores)}
        # Libraries that start a thread for each core of the machine would not be measured on equal terms.
        threads = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | threads
        environment |= {f"BENCH_{key}": str(value) for key, value in told.items()}
        super().__init__(command, cores, work / f"{peer.name}-{http}.log", environment)
        try:
            self.start_seconds = self.wait_ready(lambda: http_ok(http, peer.ready))
        except Unavailable:
            self.stop()
            raise

    def peak_rss_mib(self) -> float:
        return cpu.peak_rss_mib(self.pid)
