"""The open-loop client against servers that are slow, refuse, fail or are not there."""

import http.server
import pathlib
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.ports import free_port  # noqa: E402
from harness.base import eventually  # noqa: E402
from open_loop import p99_ms  # noqa: E402
from traffic import SCRIPT, Traffic  # noqa: E402


class Server(http.server.ThreadingHTTPServer):
    """Answers number n with `status(n)`, and waits with it until `may_answer(n)` is set."""

    daemon_threads = True
    # A connection that finds no room is tried again after a second only.
    request_queue_size = 1024

    def __init__(self, status=lambda n: 200, may_answer=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.may_answer = status, may_answer
        self.count, self.bodies, self.lock = 0, set(), threading.Lock()
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):  # noqa: N802 - the name is http.server's
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.bodies.add((self.path, body))
            number = self.server.count
            self.server.count += 1
        if self.server.may_answer:
            self.server.may_answer(number)
        self.send_response(self.server.status(number))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def client(tmp_path):
    body = tmp_path / "body.json"
    body.write_text('{"x": 1}')
    return lambda address: Traffic(lambda *words: [str(word) for word in words], address, "ranker", body)


def sent(traffic: Traffic, count: int):
    eventually(lambda: traffic.counts["sent"] >= count, f"{count} requests are sent", 60)


def test_requests_leave_when_they_are_due_and_the_wait_counts(client):
    """A closed loop would send nothing while the first answer is out, and would call all others fast."""
    enough, arrived = threading.Event(), threading.Event()

    def hold(number: int):
        # Nobody is answered before fifty have come.
        if number >= 49:
            arrived.set()
        enough.wait(30)

    with Server(may_answer=hold) as server, client(server.address) as traffic:
        traffic.set_rate(100)
        assert arrived.wait(30)
        traffic.set_rate(0)
        # Two whole seconds without an answer.
        told = len(traffic.seconds)
        eventually(lambda: len(traffic.seconds) >= told + 2, "two seconds are told", 30)
        assert traffic.counts["answered"] == 0
        enough.set()
    traffic.assert_all_answered()
    assert traffic.p99_ms >= 1000
    assert server.bodies == {("/v2/models/ranker/infer", b'{"x": 1}')}


def test_refused_and_failed_are_told_apart(client):
    outcomes = [200, 429, 500, 200]
    with Server(status=lambda n: outcomes[n % 4]) as server, client(server.address) as traffic:
        traffic.set_rate(100)
        sent(traffic, 40)
    counts = traffic.counts
    assert counts["answered"] + counts["refused"] + counts["failed"] == counts["sent"] == server.count
    assert counts["refused"] == pytest.approx(counts["sent"] / 4, abs=1)
    assert counts["failed"] == pytest.approx(counts["sent"] / 4, abs=1)
    assert "500" in traffic.failures[0]
    with pytest.raises(AssertionError, match="failed"):
        traffic.assert_all_answered()


def test_nobody_listens(client):
    with client(f"127.0.0.1:{free_port()}") as traffic:
        traffic.set_rate(100)
        sent(traffic, 20)
    assert traffic.counts["failed"] == traffic.counts["sent"]
    assert "ConnectionRefused" in traffic.failures[0]


def test_the_rate_changes_at_once(client):
    """From one request in three hours to many a second, and to none."""
    with Server() as server, client(server.address) as traffic:
        traffic.set_rate(0.0001)
        eventually(lambda: traffic.seconds and traffic.seconds[-1]["rate"] == 0.0001, "the rate is taken", 30)
        traffic.set_rate(200)
        sent(traffic, 100)
        traffic.set_rate(0)
        stopped = lambda: [s["sent"] for s in traffic.seconds[-2:] if s["rate"] == 0] == [0, 0]  # noqa: E731
        eventually(stopped, "nothing is sent any more", 30)
    traffic.assert_all_answered()


def test_it_ends_with_who_started_it(client, tmp_path):
    with Server() as server:
        words = [sys.executable, SCRIPT, server.address, "/", tmp_path / "body.json"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(b"50\n")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_percentile():
    assert p99_ms([]) is None
    assert p99_ms([0.001]) == 1.0
    assert p99_ms([n / 1000 for n in range(100, 0, -1)]) == 99.0
    assert p99_ms([n / 1000 for n in range(1, 102)]) == 100.0
