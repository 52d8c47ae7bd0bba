"""Bytes on a socket, as no well-behaved library sends them; and a client that behaves beside them."""

import contextlib
import json
import pathlib
import shutil
import socket
import struct
import subprocess
import threading

import make_small_ranker as small
import numpy as np
import requests
import tritonclient.grpc as triton
from conftest import NAME, Runtime, binary, configure, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4


def talk(port: int, data: bytes, end: bool = False, seconds: float = 20) -> bytes:
    """All that comes back until the server closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        if end:
            # Of a connection that the server has closed already, this is an error.
            with contextlib.suppress(ConnectionError, OSError):
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(1 << 16):
                answer += block
    return answer


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header_block(*fields: tuple[str, str]) -> bytes:
    """HPACK: literals, never indexed, not compressed."""

    def string(text: str) -> bytes:
        raw = text.encode()
        size, rest = len(raw), b""
        if size < 127:
            return bytes([size]) + raw
        size -= 127
        while size >= 128:
            rest, size = rest + bytes([size & 127 | 128]), size >> 7
        return b"\x7f" + rest + bytes([size]) + raw

    return b"".join(b"\x10" + string(name) + string(value) for name, value in fields)


def infer_head(*more: tuple[str, str], method: str = "POST", content: str = "application/grpc") -> bytes:
    path = "/inference.GRPCInferenceService/ModelInfer"
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")]
    return header_block(*pseudo, ("content-type", content), ("te", "trailers"), *more)


def opened() -> bytes:
    return PREFACE + frame(SETTINGS, 0, 0)


def frames(answer: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while len(answer) >= 9:
        size = int.from_bytes(answer[:3], "big")
        found.append((answer[3], answer[4], int.from_bytes(answer[5:9], "big"), answer[9 : 9 + size]))
        answer = answer[9 + size :]
    return found


def bench(runtime, folder: pathlib.Path, request: tuple[bytes, dict, int], *flags: str) -> dict:
    """What `pinnace-runtime bench` reports of one request sent over and over: its body, headers and pairs."""
    body, headers, pairs = request
    head = json.dumps({"path": f"/v2/models/{NAME}/infer", "headers": headers, "pairs": pairs}).encode()
    (folder / "bodies").write_bytes(struct.pack("<I", len(head)) + head + struct.pack("<I", len(body)) + body)
    command = [binary(), "bench", "--address", f"127.0.0.1:{runtime.port}", "--bodies", folder / "bodies", *flags]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)


class GoodClient:
    """Asks over HTTP and gRPC all the time; every answer must come, and be the same as when nobody disturbed."""

    def __init__(self, runtime):
        self.runtime, self.errors, self.answered = runtime, [], {"http": 0, "grpc": 0}
        dense, sparse = small.pairs(np.random.default_rng(8), 3)
        self.body = small.request(dense, sparse)
        self.inputs = [
            triton.InferInput("dense", dense.shape, "FP32").set_data_from_numpy(dense),
            triton.InferInput("sparse", sparse.shape, "INT64").set_data_from_numpy(sparse),
        ]
        self.expected = runtime.infer(self.body).json()["outputs"][0]["data"]
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=target) for target in (self.over_http, self.over_grpc)]
        for thread in self.threads:
            thread.start()

    def seen(self, way: str, scores):
        self.answered[way] += 1
        if not np.array_equal(np.float32(scores), np.float32(self.expected)):
            self.errors.append((way, scores))

    def over_http(self):
        session, url = requests.Session(), f"{self.runtime.url}/v2/models/{NAME}/infer"
        while not self.stopped.wait(0.002):
            try:
                answer = session.post(url, json=self.body, timeout=30)
                self.seen("http", answer.json()["outputs"][0]["data"])
            except Exception as error:  # noqa: BLE001
                self.errors.append(("http", error))

    def over_grpc(self):
        with triton.InferenceServerClient(f"127.0.0.1:{self.runtime.grpc_port}") as client:
            while not self.stopped.wait(0.002):
                try:
                    self.seen("grpc", client.infer(NAME, self.inputs, client_timeout=30).as_numpy("score"))
                except Exception as error:  # noqa: BLE001
                    self.errors.append(("grpc", error))

    def both_past(self, before: dict, count: int = 1) -> bool:
        return all(self.answered[way] >= before[way] + count for way in before)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


LIMIT = 48 << 20
FLAGS = [
    "--max-body-bytes", str(LIMIT), "--max-queue-bytes", str(2 * LIMIT), "--header-timeout", "5s", "--body-timeout", "5s",
]  # fmt: skip
CONFIG = "topK: {ids: 'sparse[25]'}\nrequestInputs: [dense, 'sparse[0:20]']\n"


class Attacked:
    """A runtime that is asked by a good client while others attack it."""

    def __init__(self, folder: pathlib.Path, ranker: pathlib.Path, *flags: str):
        model = configure(pathlib.Path(shutil.copytree(ranker, folder / "model")), CONFIG)
        self.runtime = Runtime(folder, model.as_uri(), *flags)
        self.log = folder / "runtime.log"
        self.good = None

    def __enter__(self):
        wait_until(self.runtime.ready)
        self.good = GoodClient(self.runtime)
        return self

    def __exit__(self, *_):
        if self.good:
            self.good.stop()
        self.runtime.close()

    def unharmed(self, answers: int = 1):
        """The good client has more answers, all of them right."""
        before = dict(self.good.answered)
        wait_until(lambda: self.good.errors or self.good.both_past(before, answers))
        assert not self.good.errors and self.runtime.process.poll() is None

    def peak_bytes(self) -> int:
        status = pathlib.Path(f"/proc/{self.runtime.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def leaves_nothing(self):
        """Nothing failed by the runtime's fault, nothing is left counted, nothing panicked, and it stops when asked."""
        failed = f'pinnace_requests_total{{model="{NAME}",version="1",outcome="failed"'
        assert self.runtime.metric(failed) == 0
        self.good.stop()
        counted = ["pinnace_in_flight ", "pinnace_in_flight_bytes "]
        wait_until(lambda: all(self.runtime.metric(gauge) == 0 for gauge in counted))
        assert "panicked" not in self.log.read_text()
        assert self.runtime.stop() == 0
