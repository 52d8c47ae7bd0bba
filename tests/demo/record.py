"""What the statuses, the ledger and the client say, twice a second: for the live table and for the report."""

import contextlib
import threading
from dataclasses import dataclass, field

import requests

from harness.aws import Aws
from harness.kube import MODELS, Kube, condition

PERIOD_SECONDS = 0.5


@dataclass
class Sample:
    """None: nobody said it."""

    # Seconds since the demo started.
    at: float
    # Replicas of each model: (ready, wanted).
    replicas: dict[str, tuple[int, int]] = field(default_factory=dict)
    # Counts of the pool's status.
    nodes: dict | None = None
    hourly_usd: float | None = None
    ledger_usd: float | None = None
    # Of the client: see Traffic.last.
    load: dict | None = None
    # Of each model that is not Ready, and of the pool under the name "": why not.
    waiting: dict[str, str] = field(default_factory=dict)


class Recorder:
    """Samples from `start` to `stop`. `listener` is called with each; `traffic` is the client that asks now."""

    def __init__(self, show, sandbox, namespace: str, pool: str):
        self.show, self.namespace, self.pool = show, namespace, pool
        self.kube, self.aws = Kube(sandbox), Aws(sandbox)
        self.samples, self.marks = [], []
        self.listener, self.traffic = None, None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()

    def stop(self):
        self.done.set()
        self.thread.join()

    def mark(self, text: str):
        """Something that is to be seen in the report."""
        self.marks.append((self.show.now(), text))

    def run(self):
        while not self.done.wait(PERIOD_SECONDS):
            # Whoever does not answer now is asked again in half a second.
            with contextlib.suppress(requests.RequestException, RuntimeError, KeyError):
                sample = self.sample()
                self.samples.append(sample)
                listener = self.listener
                if listener:
                    listener(sample)

    def sample(self) -> Sample:
        sample = Sample(self.show.now())
        traffic = self.traffic
        sample.load = traffic.last() if traffic else None
        for model in self.kube.items(MODELS.format(self.namespace)):
            name, status = model["metadata"]["name"], model.get("status")
            if status:
                sample.replicas[name] = (status["replicas"]["ready"], status["replicas"]["desired"])
            sample.waiting[name] = why_not_ready(model)
        pool = self.kube.pool(self.pool)
        if pool and pool.get("status"):
            sample.nodes, said = pool["status"]["nodes"], pool["status"].get("hourlyUsd")
            sample.hourly_usd = float(said) if said else None
        sample.waiting[""] = why_not_ready(pool)
        sample.ledger_usd = self.aws.ledger()["rateUsdPerHour"]
        return sample


def why_not_ready(item: dict | None) -> str:
    ready = condition(item, "Ready")
    if not ready or ready["status"] == "True":
        return ""
    return f"{ready['reason']}: {ready['message']}"
