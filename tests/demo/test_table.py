"""The live table: in place on a terminal, a row for every change elsewhere."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from record import Sample  # noqa: E402
from show import Show  # noqa: E402
from table import Table, reason, row  # noqa: E402

# Three lines up, and everything from there on is cleared.
UP = "\033[3A\033[J"

NODES = {"ready": 1, "desired": 3, "launching": 2, "draining": 0}
LOAD = {"rate": 15, "sent": 14, "refused": 0, "failed": 0, "p99Ms": 7.4}


def sample(at: float = 1.0, **changed) -> Sample:
    usual = {"replicas": {"m": (1, 3)}, "nodes": NODES, "hourly_usd": 1.006, "ledger_usd": 1.006, "load": LOAD}
    return Sample(at, **(usual | changed))


@pytest.fixture
def show():
    return Show(total=1)


def test_a_row_for_every_change(show, capsys):
    show.terminal = False
    table = Table(show, "m")
    table(sample())
    # Another second of the same: other numbers of requests, another latency.
    table(sample(2.0, load=LOAD | {"sent": 17, "p99Ms": 9.0}))
    table(sample(3.0, replicas={"m": (2, 3)}))
    table(sample(4.0, replicas={"m": (2, 3)}, load=LOAD | {"failed": 1}))
    head, *rows = capsys.readouterr().out.splitlines()
    assert "replicas" in head and [text.split()[3] for text in rows] == ["1/3", "2/3", "2/3"]
    assert [text.split()[-1] for text in rows] == ["0", "0", "1"]


def test_in_place_on_a_terminal(show, capsys):
    show.terminal = True
    table = Table(show, "m")
    table(sample())
    table(sample(replicas={"m": (2, 3)}))
    show.line("a line")
    table(sample(replicas={"m": (3, 3)}))
    during = standing(capsys.readouterr().out)
    # What moved stands once, below the line that was printed meanwhile.
    assert during[0][2:] == ["a", "line"] and during[1][0] == "load/s" and during[2][2:5] == ["14", "3/3", "1/3"]
    assert len(during) == 3
    table.close()
    table(sample())
    show.line("the next step")
    assert standing(capsys.readouterr().out)[-1][2:] == ["the", "next", "step"]


def standing(output: str) -> list[list[str]]:
    """Words of the lines that a terminal shows in the end."""
    lines = []
    for text in output.split("\n"):
        while text.startswith(UP):
            text = text.removeprefix(UP)
            del lines[-3:]
        assert len(text) < 80
        lines.append(text)
    return [text.split() for text in lines if text.strip()]


def test_what_nobody_says_is_a_dash():
    assert row(Sample(0), "m").split() == ["-"] * 9


def test_the_reason_is_the_models_then_the_pools():
    both = {"m": "NodesPending: for the model", "": "Launching: for the pool"}
    assert reason(sample(waiting=both), "m").endswith("for the model")
    long = reason(sample(waiting={"m": "", "": "x" * 200}), "m")
    assert long.endswith("x...") and len(long) < 100
