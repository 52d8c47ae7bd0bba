"""The contenders of one part of the benchmark: started together, checked, paused, and gone in the end."""

import contextlib
import pathlib
import sys
from dataclasses import dataclass, replace

import numpy as np

from bench.contenders import Contender, Engine, InProcess, InProcessContender, Load, check_scores
from bench.models import BF16_TOLERANCE, Model
from bench.peers import OPENVINO, PEERS, TRITON_ABSENT, install
from bench.pinnace import NAME, Runtime
from bench.processes import Unavailable
from bench.wires import V2Grpc, V2Http

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "peers"))
from scorer import Scorer  # noqa: E402

IN_PROCESS = "onnxruntime in process"
HOISTED = "onnxruntime in process, hoisted"
OPENVINO_F32 = "openvino in process"
OPENVINO_BF16 = "openvino bf16 in process"
LEFT_OUT = "left out by --peers"
TITLES = {"http": "HTTP", "grpc": "gRPC", "json": "JSON"}


@dataclass(frozen=True)
class Setup:
    """What all parts share."""

    runtime: Runtime
    work: pathlib.Path
    cache: pathlib.Path
    bodies: int
    peers: tuple[str, ...]


class Stage(contextlib.ExitStack):
    def __init__(self, setup: Setup, cores: set[int], absent: dict):
        super().__init__()
        self.setup, self.cores, self.absent = setup, cores, absent
        self.contenders: list = []
        self.facts: dict[str, dict] = {}
        self.references: dict = {}
        self.makers: dict = {}

    def names(self) -> list[str]:
        return [contender.name for contender in self.contenders]

    def served(self) -> list[Contender]:
        """Those that are asked through a socket."""
        return [contender for contender in self.contenders if isinstance(contender, Contender)]

    def get(self, name: str):
        return next((contender for contender in self.contenders if contender.name == name), None)

    def add_pinnace(self, name: str, model: Model, kind="random", doors=("http", "grpc"), settings=None) -> None:
        """`NAME http` and `NAME grpc`: one process."""

        def start():
            server = self.keep(self.setup.runtime.serve(model, self.cores, settings))
            self.facts[name] = {"config": server.describe()}
            return server

        wires = {"http": V2Http(NAME, model.output), "grpc": V2Grpc(NAME, model.output)}
        self.add(name, start, {door: wires[door] for door in doors}, model, kind)

    def add_top_k(self, name: str, model: Model, top_k: int) -> None:
        """D, our wire: the user once, and only the best are answered."""
        start = lambda: self.keep(self.setup.runtime.serve(model, self.cores))  # noqa: E731
        self.add(name, start, {"http": V2Http(NAME, model.output, top_k)}, model, "once")

    def add_peers(self, model: Model) -> None:
        for peer in PEERS:
            if peer.name not in self.setup.peers:
                self.absent[peer.title] = LEFT_OUT
                continue

            def start(peer=peer):
                server = self.keep(peer.serve(install(peer.name, self.setup.cache), model, self.cores, self.setup.work))
                self.facts[peer.title] = {"start_seconds": server.start_seconds}
                return server

            wires = {door: peer.wire(door, model.output) for door in peer.wires}
            self.add(peer.title, start, wires, model, "random")
        self.absent["Triton with ONNX Runtime"] = TRITON_ABSENT

    def add(self, name: str, start, wires: dict, model: Model, kind: str) -> None:
        try:
            server = start()
        except Unavailable as reason:
            self.absent[name] = str(reason)
            return
        for door, wire in wires.items():
            contender = Contender(
                f"{name} {door}", f"{name}, {TITLES[door]}", server, wire, model, door, self.maker(model),
                f"{model.folder.name}-{type(wire).__name__}",
            )  # fmt: skip
            self.admit(contender, model, kind)
        server.pause()

    def add_openvino(self, model: Model) -> None:
        """As ONNX Runtime in process: the same graph, lists, threads and core."""
        rounded = replace(model, tolerance=BF16_TOLERANCE)
        for name, precision, held in ((OPENVINO_F32, "f32", model), (OPENVINO_BF16, "bf16", rounded)):
            if OPENVINO not in self.setup.peers:
                self.absent[name] = LEFT_OUT
                continue
            try:
                python = install(OPENVINO, self.setup.cache)
            except Unavailable as reason:
                self.absent[name] = str(reason)
                continue
            self.add_in_process(name, held, model.path, engine=Engine(f"{OPENVINO}-{precision}", python))

    def add_in_process(
        self, name: str, model: Model, path: pathlib.Path, kind: str = "random", engine: Engine = Engine()
    ) -> None:
        try:
            server = self.keep(InProcess(engine, path, model.output, self.cores, self.setup.work))
        except Unavailable as reason:
            self.absent[name] = str(reason)
            return
        key = f"{model.folder.name}-inprocess"
        contender = InProcessContender(
            name, name, server, self.maker(model), self.setup.work, self.setup.bodies, key
        )
        self.admit(contender, model, kind)
        server.pause()

    def admit(self, contender, model: Model, kind: str) -> None:
        """Only who answers as ONNX Runtime does takes part. `without a model` has other answers by intent."""
        try:
            if not contender.name.startswith("without a model"):
                check_scores(contender, self.reference(model, kind), Load(kind=kind), model.tolerance)
        except Unavailable as reason:
            self.absent[contender.name] = str(reason)
        except Exception as error:  # noqa: BLE001: whatever a peer's client raises is its reason
            self.absent[contender.name] = f"it does not answer: {error}"[:300]
        else:
            self.contenders.append(contender)

    def reference(self, model: Model, kind: str) -> np.ndarray:
        whole = "list" if kind == "once" else kind
        key = (model.path, whole)
        if key not in self.references:
            (tensors,) = self.maker(model)(whole, Load().rows, 1)
            self.references[key] = np.ravel(model.scores(Scorer, tensors))
        return self.references[key]

    def maker(self, model: Model):
        """Lists by kind; `once` is what `list` is, with what belongs to the user sent once."""
        if model.folder not in self.makers:
            lists = model.lists()

            def make(kind: str, rows: int, count: int):
                if kind != "once":
                    return lists.make(kind, rows, count)
                return [model.sent_once(tensors) for tensors in lists.make("list", rows, count)]

            self.makers[model.folder] = make
        return self.makers[model.folder]

    def keep(self, server):
        self.callback(server.stop)
        return server
