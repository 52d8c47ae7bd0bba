"""A client that asks all the time and counts every answer."""

import http.client
import json
import threading
import time
from collections import Counter

# A connection that was refused carried no request: the next address may have it. That often, then it is a failure.
ATTEMPTS = 3


class Client:
    """Threads with connections that are kept alive, going round over the addresses of a model.

    `addresses` is called four times a second and names where replicas take requests now: those of the
    EndpointSlices, or the one of the Service. Nothing that was sent is ever sent again: an answer that does not
    come, or is not 200, is a failure. 429 is counted apart.
    """

    def __init__(self, addresses, model: str, body: dict, threads: int = 2, pause: float = 0.02):
        self.addresses, self.path = addresses, f"/v2/models/{model}/infer"
        self.body = json.dumps(body).encode()
        self.pause = pause
        self.known = addresses()
        self.counts, self.versions, self.failures, self.slowest = Counter(), Counter(), [], 0.0
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.workers = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(threads)]
        self.workers.append(threading.Thread(target=self.follow, daemon=True))

    def __enter__(self):
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for worker in self.workers:
            worker.join()

    @property
    def total(self) -> int:
        return self.counts["ok"] + self.counts["429"] + self.counts["failed"]

    def follow(self):
        while not self.stopping.wait(0.25):
            try:
                self.known = self.addresses() or self.known
            except Exception as error:  # noqa: BLE001 - whatever it is, the addresses that are known stay
                self.note("addresses", repr(error))

    def work(self, number: int):
        connections, turn = {}, number
        while not self.stopping.wait(self.pause):
            started = time.monotonic()
            outcome = self.ask(connections, turn)
            turn += 1
            with self.lock:
                self.counts[outcome] += 1
                self.slowest = max(self.slowest, time.monotonic() - started)
        for connection in connections.values():
            connection.close()

    def ask(self, connections: dict, turn: int) -> str:
        known = self.known
        for attempt in range(ATTEMPTS):
            address = known[(turn + attempt) % len(known)]
            connection = connections.get(address)
            if connection is None:
                connection = http.client.HTTPConnection(address, timeout=15)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    with self.lock:
                        self.counts["refused connections"] += 1
                    continue
                except OSError as error:
                    return self.note(address, f"connect: {error!r}")
                connections[address] = connection
            return self.exchange(connections, address, connection)
        return self.note(str(known), f"{ATTEMPTS} connections refused")

    def exchange(self, connections: dict, address: str, connection) -> str:
        try:
            connection.request("POST", self.path, self.body, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connections.pop(address).close()
            return self.note(address, repr(error))
        if answer.will_close:
            connections.pop(address).close()
        if answer.status == 429:
            return "429"
        if answer.status != 200:
            return self.note(address, f"{answer.status} {text[:200]!r}")
        with self.lock:
            self.versions[json.loads(text).get("model_version")] += 1
        return "ok"

    def note(self, address: str, what: str) -> str:
        with self.lock:
            if len(self.failures) < 20:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {address}: {what}")
        return "failed"

    def report(self) -> str:
        counts = self.counts
        return (
            f"{self.total} requests: {counts['ok']} answered, {counts['429']} refused with 429, "
            f"{counts['failed']} failed, slowest {self.slowest * 1000:.0f} ms"
        )
