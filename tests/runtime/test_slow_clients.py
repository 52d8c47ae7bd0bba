"""A thousand clients that hold connections, and floods of HTTP/2 frames, beside a client that behaves."""

import asyncio
import concurrent.futures
import socket
import threading

import pytest
from conftest import NAME, wait_until
from wire import END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Attacked, frame, infer_head, opened, talk

SLOW = 500
FLAGS = ["--header-timeout", "3s", "--body-timeout", "3s"]


@pytest.fixture
def attacked(tmp_path, ranker):
    with Attacked(tmp_path, ranker, *FLAGS) as attacked:
        yield attacked


class Crowd:
    """Connections that send a byte now and then, and are opened anew when they are closed."""

    def __init__(self, port: int, starts: list[bytes]):
        self.port, self.starts = port, starts
        self.open, self.closed, self.answers = 0, 0, set()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.all(),))

    async def all(self):
        self.over = asyncio.Event()
        tasks = [asyncio.create_task(self.one(start)) for start in self.starts]
        await self.over.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def one(self, start: bytes):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            self.open += 1
            answer = asyncio.create_task(reader.read(200))
            try:
                writer.write(start)
                while not answer.done():
                    await asyncio.wait([answer], timeout=0.5)
                    writer.write(b"x")
                self.answers.add(answer.result()[9:12])
            except ConnectionError:
                self.answers.add(b"")
            finally:
                self.open, self.closed = self.open - 1, self.closed + 1
                answer.cancel()
                writer.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join()
        self.loop.close()


def test_a_thousand_slow_clients(attacked):
    head = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: x\r\nX-".encode()
    body = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode()
    with Crowd(attacked.runtime.port, [head] * SLOW + [body] * SLOW) as crowd:
        wait_until(lambda: crowd.open >= 2 * SLOW, 60)
        attacked.unharmed(500)
        # Each was cut off once at least: by an answer that says so, or without one where no head had come.
        wait_until(lambda: crowd.closed >= 2 * SLOW, 120)
        attacked.unharmed(100)
    assert crowd.answers <= {b"408", b"429", b""} and b"408" in crowd.answers
    answered = sum(attacked.good.answered.values())
    assert answered >= 1000 and len(attacked.good.errors) <= answered // 1000
    attacked.leaves_nothing()


def test_silent_connections_over_grpc_are_closed(attacked):
    """Without a request, whatever else is sent: nothing, the preface alone, a head that does not end."""
    starts = [b"", opened(), opened() + frame(HEADERS, 0, 1, infer_head())]
    sockets = [socket.create_connection(("127.0.0.1", attacked.runtime.grpc_port), timeout=60) for _ in range(300)]
    for at, connection in enumerate(sockets):
        connection.sendall(starts[at % len(starts)])
    attacked.unharmed(50)
    for connection in sockets:
        with connection:
            while connection.recv(1 << 16):
                pass
    attacked.unharmed()
    attacked.leaves_nothing()


def flood(port: int, block: bytes) -> bytes:
    return talk(port, opened() + block, end=True, seconds=60)


def rapid_reset() -> bytes:
    """Ten thousand requests, each given up at once."""
    streams = range(1, 20_001, 2)
    reset = [frame(HEADERS, END_HEADERS, stream, infer_head()) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08") for stream in streams]
    return b"".join(reset)


FLOODS = {
    "resets": rapid_reset(),
    "pings": frame(PING, 0, 0, bytes(8)) * 200_000,
    "settings": frame(SETTINGS, 0, 0) * 200_000,
    "empty data": frame(HEADERS, END_HEADERS, 1, infer_head()) + frame(0, 0, 1) * 200_000,
    "requests": b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, infer_head()) for stream in range(1, 20_001, 2)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(attacked, name):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        floods = [pool.submit(flood, attacked.runtime.grpc_port, FLOODS[name]) for _ in range(4)]
        attacked.unharmed(200)
        # Each connection is closed in the end: else this is an error.
        assert all(done.result() for done in floods)
    attacked.unharmed(20)
    assert attacked.peak_bytes() < 256 << 20
    attacked.leaves_nothing()
