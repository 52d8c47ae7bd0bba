"""The demo as one HTML page: charts over one axis of time, steps marked, and the summary. Nothing is loaded from elsewhere."""

import datetime
import pathlib
from dataclasses import dataclass
from html import escape

from chart import Axis, Chart, Line, marks_row
from record import Sample

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pinnace: demo</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2430; --faint: #5b6675; --grid: #dfe4ea; --band: #f3f5f8;
  --a: #1f5fbf; --b: #b34700; --bad: #b3123f; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181e; --ink: #e6eaf0; --faint: #9aa6b5; --grid: #2c343f;
  --band: #1b2129; --a: #6ea8ff; --b: #ff9a52; --bad: #ff6b8e; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; margin: 1.4rem 0 0; } p { margin: .3rem 0; }
.faint, .key { color: var(--faint); } .key span { margin-right: 1.2rem; white-space: nowrap; }
.key svg { width: 26px; height: 8px; margin-right: .4rem; }
svg { display: block; width: 100%; height: auto; } .key svg { display: inline-block; }
svg text { fill: var(--faint); font: 11px system-ui, sans-serif; }
.line { fill: none; stroke-width: 1.8; } .thin { stroke-width: 1; } .dashed { stroke-dasharray: 5 4; } .a { stroke: var(--a); } .b { stroke: var(--b); } .bad { stroke: var(--bad); }
.grid { stroke: var(--grid); } .band { fill: var(--band); } .mark { stroke: var(--faint); stroke-dasharray: 2 3; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { border-bottom: 1px solid var(--grid); padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
</style>
"""


@dataclass
class Run:
    """What there is to tell. Times are seconds since the demo started."""

    samples: list[Sample]
    # Title, begin, seconds.
    steps: list[tuple[str, float, float]]
    marks: list[tuple[float, str]]
    facts: list[tuple[str, str]]
    models: list[str]


def write(path: pathlib.Path, run: Run):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run))


def page(run: Run) -> str:
    axis = Axis(run.samples[0].at, run.samples[-1].at, run.steps)
    parts = [
        HEAD,
        "<h1>Pinnace: demo</h1>",
        f'<p class="faint">{datetime.date.today().isoformat()}. Kubernetes is real; AWS, its prices and the GPUs are simulated. '
        "Times are seconds since the demo started; shaded bands with numbers are its steps.</p>",
        marks_row(axis, run.marks),
        *(chart.html(axis) for chart in charts(run)),
        summary(run),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def charts(run: Run) -> list[Chart]:
    def over_time(read) -> list[tuple[float, float | None]]:
        return [(sample.at, read(sample)) for sample in run.samples]

    def load(key: str):
        return over_time(lambda s: s.load and s.load.get(key))

    def nodes(key: str):
        return over_time(lambda s: s.nodes and s.nodes.get(key))

    replicas = []
    for colour, model in zip(("a", "b"), run.models, strict=True):
        counts = lambda i, model=model: over_time(lambda s: s.replicas.get(model, (None, None))[i])  # noqa: E731
        replicas += [Line(f"{model}: wanted", counts(1), f"{colour} dashed"), Line(f"{model}: ready", counts(0), colour)]
    return [
        Chart("Load, requests a second", [Line("sent", load("sent"), "a thin"), Line("rate that was set", load("rate"), "b dashed")]),
        Chart("99th percentile of each second, ms, from the time a request was due", [Line("p99", load("p99Ms"), "a")]),
        Chart("Requests that failed, and that were refused (429), since the client started", [
            Line("refused", load("refused"), "b"), Line("failed", load("failed"), "bad"),
        ]),
        Chart("Replicas", replicas),
        Chart("Nodes", [
            Line("wanted", nodes("desired"), "b dashed"), Line("ready", nodes("ready"), "a"),
            Line("draining", nodes("draining"), "bad thin"),
        ]),
        Chart("Cost, USD an hour", [
            Line("status.hourlyUsd of the pool", over_time(lambda s: s.hourly_usd), "b dashed"),
            Line("the simulated account's ledger", over_time(lambda s: s.ledger_usd), "a"),
        ]),
    ]  # fmt: skip


def summary(run: Run) -> str:
    steps = "\n".join(
        f'<tr><td class="number">{number}<td>{escape(title)}<td class="number">{begin:.1f}<td class="number">{seconds:.1f}'
        for number, (title, begin, seconds) in enumerate(run.steps, 1)
    )
    facts = "\n".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in run.facts)
    return f"""<h2>Summary</h2>
<table>
{facts}
</table>
<table>
<tr><th><th>Step<th>from, s<th>took, s
{steps}
</table>"""
