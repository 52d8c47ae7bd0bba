"""The live table: on a terminal one row in place, elsewhere a row whenever something has changed."""

import contextlib

from record import Recorder, Sample
from show import Show

HEAD = ("load/s", "replicas", "nodes", "launching", "draining", "USD/h", "p99ms", "429", "failed")
REASON_CHARACTERS = 90


@contextlib.contextmanager
def live_table(show: Show, recorder: Recorder, model: str):
    """Shows one model, its pool, and the client that asks it."""
    table = Table(show, model)
    recorder.listener = table
    try:
        yield
    finally:
        recorder.listener = None
        table.close()


class Table:
    def __init__(self, show: Show, model: str):
        self.show, self.model = show, model
        self.last, self.closed = None, False

    def __call__(self, sample: Sample):
        with self.show.lock:
            if self.closed:
                return
            if self.show.terminal:
                indent = " " * 11
                numbers = f"{sample.at:7.1f} s  {row(sample, self.model)}"
                self.show.refresh([indent + head(), numbers, indent + reason(sample, self.model)])
                return
            key = changes(sample, self.model)
            if key == self.last:
                return
            if self.last is None:
                self.show.line(head())
            self.last = key
            self.show.line(f"{row(sample, self.model)}  {reason(sample, self.model)}".rstrip())

    def close(self):
        """What moved is not left standing: its last row would be older than the lines around it."""
        with self.show.lock:
            self.closed = True
            self.show.refresh([])


def head() -> str:
    return " ".join(HEAD)


def changes(sample: Sample, model: str) -> tuple:
    """What has to change for another row; numbers that are never the same are not among it."""
    load = sample.load or {}
    counts = [load.get(key) for key in ("rate", "refused", "failed")]
    return (*counts, sample.replicas.get(model), sample.nodes, sample.hourly_usd, reason(sample, model))


def row(sample: Sample, model: str) -> str:
    load, nodes = sample.load or {}, sample.nodes or {}
    ready, wanted = sample.replicas.get(model, (None, None))
    cells = (
        text(load.get("sent")), share(ready, wanted), share(nodes.get("ready"), nodes.get("desired")),
        text(nodes.get("launching")), text(nodes.get("draining")), text(sample.hourly_usd, ".2f"),
        text(load.get("p99Ms"), ".0f"), text(load.get("refused")), text(load.get("failed")),
    )  # fmt: skip
    return " ".join(cell.rjust(len(name)) for cell, name in zip(cells, HEAD, strict=True))


def reason(sample: Sample, model: str) -> str:
    why = sample.waiting.get(model) or sample.waiting.get("", "")
    return f"{why[:REASON_CHARACTERS]}..." if len(why) > REASON_CHARACTERS else why


def text(value, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def share(ready: int | None, wanted: int | None) -> str:
    return "-" if wanted is None else f"{ready}/{wanted}"
