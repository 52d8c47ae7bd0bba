"""Under overload requests are refused with 429 and nothing else; a stopped replica loses none."""

import concurrent.futures
import json
import signal
import socket
import threading
import time

import make_small_ranker as small
import numpy as np
import requests
import tritonclient.grpc as triton
from conftest import NAME, wait_until
from tritonclient.utils import InferenceServerException


def body(count: int) -> dict:
    return small.request(*small.pairs(np.random.default_rng(5), count))


def test_refused_with_429_under_overload(start, ranker):
    runtime = start(ranker.as_uri(), "--max-queue", "2", "--workers", "1")
    large = body(2048)
    url = f"{runtime.url}/v2/models/{NAME}/infer"
    data = json.dumps(large).encode()

    def ask(_):
        return requests.post(url, data=data, timeout=30)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(100)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["Retry-After"]) >= 1 and "queue" in answer.json()["error"]
    refused = sum(answer.status_code == 429 for answer in answers)
    assert runtime.metric(f'pinnace_requests_total{{model="{NAME}",version="1",outcome="refused_queue"') == refused
    # Probes and metrics are on a port of their own; afterwards nothing is left counted.
    assert wait_until(lambda: runtime.metric("pinnace_in_flight ") == 0)
    assert runtime.metric("pinnace_in_flight_bytes ") == 0
    assert runtime.infer(large).status_code == 200


def test_bounded_in_bytes(start, ranker):
    runtime = start(ranker.as_uri(), "--max-queue-bytes", "1000")
    answer = runtime.infer(body(16))
    assert answer.status_code == 429 and "memory" in answer.json()["error"]


def test_the_lowest_class_is_shed_first(start, ranker):
    """The queue is full of low requests, over HTTP and gRPC; high ones are answered all the same, and low ones shed."""
    runtime = start(ranker.as_uri(), "--max-queue", "4", "--workers", "1", "--request-timeout", "60s")
    done, low, high = threading.Event(), [], []

    def flood_http():
        request = body(64) | {"parameters": {"priority": 3}}
        while not done.is_set():
            low.append(runtime.infer(request).status_code)

    def flood_grpc():
        dense, sparse = small.pairs(np.random.default_rng(5), 512)
        inputs = [
            triton.InferInput("dense", dense.shape, "FP32").set_data_from_numpy(dense),
            triton.InferInput("sparse", sparse.shape, "INT64").set_data_from_numpy(sparse),
        ]
        with triton.InferenceServerClient(f"127.0.0.1:{runtime.grpc_port}") as client:
            while not done.is_set():
                try:
                    client.infer(NAME, inputs, priority=3)
                    low.append(200)
                except InferenceServerException as error:
                    assert error.status() == "StatusCode.RESOURCE_EXHAUSTED"
                    low.append(429)

    def shed() -> bool:
        high.append(runtime.infer(body(1) | {"parameters": {"priority": 1}}).status_code)
        outcome = f'pinnace_requests_total{{model="{NAME}",version="1",outcome="refused_priority"'
        return len(high) >= 20 and runtime.metric(outcome) > 0

    threads = [threading.Thread(target=target) for target in [flood_http, *[flood_grpc] * 7]]
    for thread in threads:
        thread.start()
    try:
        wait_until(shed, 120)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert set(high) == {200}
    assert set(low) == {200, 429}
    assert wait_until(lambda: runtime.metric("pinnace_in_flight ") == 0)


def test_a_deadline_of_the_client(start, ranker):
    runtime = start(ranker.as_uri())
    answer = runtime.infer(body(1) | {"parameters": {"timeout": 1}})
    assert answer.status_code == 429 and "deadline" in answer.json()["error"]
    assert runtime.infer(body(1) | {"parameters": {"timeout": 4_000_000}}).status_code == 200


def test_slow_clients_are_cut_off(start, ranker):
    runtime = start(ranker.as_uri(), "--body-timeout", "200ms", "--header-timeout", "300ms")
    head = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", runtime.port)) as slow:
        slow.sendall(head + b"{")
        assert slow.recv(4096).startswith(b"HTTP/1.1 408")
    with socket.create_connection(("127.0.0.1", runtime.port)) as slow:
        slow.sendall(head[:20])
        slow.settimeout(10)
        assert not slow.recv(4096).startswith(b"HTTP/1.1 200")
    with socket.create_connection(("127.0.0.1", runtime.port)) as large:
        large.sendall(b"GET /v2 HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert large.recv(4096).startswith(b"HTTP/1.1 431")


def test_connections_close_at_their_age(start, ranker):
    runtime = start(ranker.as_uri(), "--connection-max-age", "200ms")
    session = requests.Session()
    asked = lambda: session.get(f"{runtime.url}/v2", timeout=5).headers.get("Connection") == "close"  # noqa: E731
    assert wait_until(asked, 5)


def test_sigterm_loses_no_request(start, ranker):
    runtime = start(ranker.as_uri(), "--drain-delay", "1s")
    statuses, gone = [], threading.Event()
    request = body(32)

    def client():
        session = requests.Session()
        while not gone.is_set():
            try:
                response = session.post(f"{runtime.url}/v2/models/{NAME}/infer", json=request, timeout=30)
            except requests.ConnectionError as error:
                # Only once the replica said for its whole drain delay that it goes may it refuse connections.
                assert gone.is_set() or time.monotonic() >= leave + 0.95, error
                return
            statuses.append(response.status_code)

    leave = float("inf")
    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(statuses) > 20)
    leave = time.monotonic()
    runtime.process.send_signal(signal.SIGTERM)
    wait_until(lambda: requests.get(f"{runtime.admin}/v2/health/ready", timeout=5).status_code == 503, 1)
    before = len(statuses)
    wait_until(lambda: len(statuses) > before, 1)
    # Clients that look at readiness leave within the delay.
    gone.set()
    for thread in threads:
        thread.join()
    assert runtime.process.wait(30) == 0
    assert set(statuses) == {200}


def test_sigterm_finishes_what_was_accepted(start, ranker):
    runtime = start(ranker.as_uri(), "--drain-delay", "0s", "--workers", "1", "--request-timeout", "60s")
    request = body(4096)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(runtime.infer, request) for _ in range(4)]
        wait_until(lambda: runtime.metric("pinnace_in_flight ") >= 1 or any(a.done() for a in answers))
        wait_until(lambda: runtime.metric("pinnace_connections ") >= 4 or any(a.done() for a in answers))
        runtime.process.send_signal(signal.SIGTERM)
        assert [answer.result().status_code for answer in answers] == [200] * 4
    assert runtime.process.wait(30) == 0
