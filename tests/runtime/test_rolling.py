"""Replicas are replaced one after the other under load, and no request is lost."""

import threading

import make_small_ranker as small
import numpy as np
import pytest
import requests
from conftest import NAME, Runtime, wait_until

# A router that looks every 50 ms takes a replica out within a second even on a busy machine.
DRAIN = {"PINNACE_DRAIN_DELAY": "1500ms"}
LOOK_SECONDS = 0.05


class Router:
    """Knows which replicas are ready, as kube-proxy does: late, and without trying a request again."""

    def __init__(self):
        self.replicas, self.ready, self.over = [], [], threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self):
        while not self.over.wait(LOOK_SECONDS):
            self.ready = [replica for replica in list(self.replicas) if self.answers(replica)]

    @staticmethod
    def answers(replica: Runtime) -> bool:
        try:
            return requests.get(f"{replica.admin}/v2/health/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False


class Client:
    """Keeps connections to each replica, and asks the next one that is ready."""

    def __init__(self, router: Router, body: dict, expected: list):
        self.router, self.body, self.expected = router, body, expected
        self.answered, self.failures, self.over = 0, [], threading.Event()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self):
        sessions, turn = {}, 0
        while not self.over.wait(0.002):
            ready, turn = self.router.ready, turn + 1
            if not ready:
                self.failures.append("no replica is ready")
                continue
            replica = ready[turn % len(ready)]
            session = sessions.setdefault(replica.url, requests.Session())
            try:
                answer = session.post(f"{replica.url}/v2/models/{NAME}/infer", json=self.body, timeout=30)
                if answer.status_code != 200 or answer.json()["outputs"][0]["data"] != self.expected:
                    self.failures.append((answer.status_code, answer.text))
            except requests.RequestException as error:
                self.failures.append(error)
            self.answered += 1


def roll(start, ranker, restarts: int):
    router, clients = Router(), []
    body = small.request(*small.pairs(np.random.default_rng(6), 16))
    try:
        router.replicas = [start(ranker.as_uri(), environment=DRAIN) for _ in range(2)]
        wait_until(lambda: len(router.ready) == 2)
        expected = router.replicas[0].infer(body).json()["outputs"][0]["data"]
        clients = [Client(router, body, expected) for _ in range(4)]
        for _ in range(restarts):
            new = start(ranker.as_uri(), environment=DRAIN)
            old = router.replicas[0]
            router.replicas.append(new)
            wait_until(lambda: new in router.ready)
            asked = sum(client.answered for client in clients)
            wait_until(lambda: sum(client.answered for client in clients) >= asked + 20)
            assert old.stop() == 0
            router.replicas.remove(old)
            assert not any(client.failures for client in clients), [client.failures for client in clients]
    finally:
        for client in clients:
            client.over.set()
            client.thread.join()
        router.over.set()
        router.thread.join()
    assert not any(client.failures for client in clients)
    assert min(client.answered for client in clients) >= 5 * restarts


def test_ten_restarts(start, ranker):
    roll(start, ranker, 10)


@pytest.mark.long
def test_two_hundred_restarts(start, ranker):
    roll(start, ranker, 200)
