"""The pictures of the page, as SVG files beside it."""

import pathlib
import sys

from bench import page
from bench.ratios import median_of


def write(results: dict, folder: pathlib.Path) -> dict[str, str]:
    """File names by picture. Without matplotlib there are none, and the page has only its tables."""
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: the page has no plots", file=sys.stderr)
        return {}
    matplotlib.use("svg")
    # The same results give the same file.
    matplotlib.rcParams |= {"svg.hashsalt": "pinnace", "svg.fonttype": "none", "font.size": 9}
    drawn = {"cost": cost(results), "waterfall": waterfall(results), "latency": latency(results)}
    names = {}
    for name, figure in drawn.items():
        if figure is not None:
            names[name] = f"runtime-{name}.svg"
            figure.savefig(folder / names[name], bbox_inches="tight", metadata={"Date": None})
    return names


def bars(values: list[tuple[str, float]], title: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.9 + 0.3 * len(values)))
    axes = figure.subplots()
    names = [name for name, _ in values]
    colors = ["#1b6ca8" if "pinnace" in name else "#b0b7bf" for name in names]
    drawn = axes.barh(names, [value for _, value in values], color=colors)
    axes.bar_label(drawn, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("core-µs a pair (less is better)")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    return figure


def cost(results: dict):
    rows, limit = max(results["settings"]["rows"]), results["settings"]["foreign_limit"]
    wanted = {"section": "same bytes", "purpose": "capacity", "rows": rows}
    samples = [sample for sample in results["samples"] if wanted.items() <= sample.items()]
    values = []
    for name in page.unique(samples):
        mine = [sample for sample in samples if sample["contender"] == name]
        if (value := median_of(mine, "core_us_per_pair", limit)) is not None:
            values.append((name, value))
    return bars(values, f"Same bytes, same graph, {rows:,} pairs a request") if values else None


def waterfall(results: dict):
    rows = max(results["settings"]["rows"])
    values = page.steps(results, rows)
    return bars(values, f"From the same bytes to our own wire, {rows:,} pairs a request") if len(values) > 2 else None


def latency(results: dict):
    from matplotlib.figure import Figure

    limit = results["settings"]["foreign_limit"]
    samples = [sample for sample in results["samples"] if sample["purpose"] == "open"]
    figure = Figure(figsize=(7.5, 4))
    axes = figure.subplots()
    for name in page.unique(samples):
        points = []
        for share in sorted({sample["share"] for sample in samples}):
            mine = [s for s in samples if s["contender"] == name and s["share"] == share]
            if (value := median_of(mine, "p99_ms", limit)) is not None:
                points.append((mine[0]["rate"] * mine[0]["rows"], value))
        if points:
            width = 2.2 if name.startswith("pinnace") else 1.0
            axes.plot(*zip(*points), marker="o", markersize=3, linewidth=width, label=name)
    if not axes.lines:
        return None
    axes.set(xscale="log", yscale="log", xlabel="pairs a second (50, 70, 90 % of capacity)", ylabel="p99, ms")
    axes.set_title("Latency under Poisson arrivals")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.grid(alpha=0.3)
    return figure
