"""The page: everything on it is computed from the raw results."""

import pathlib

import yaml

from bench import plots, targets
from bench.ratios import clean, median_of, paired
from bench.stage import HOISTED, IN_PROCESS

REASONS = pathlib.Path(__file__).resolve().parent / "reasons.yaml"


def write(results: dict, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = plots.write(results, path.parent)
    path.write_text("\n".join(lines(results, pictures)) + "\n")


def lines(results: dict, pictures: dict[str, str]) -> list[str]:
    parts = [
        head(results), target_table(results), same_bytes(results), picture(pictures, "cost"), waterfall(results),
        picture(pictures, "waterfall"), alone(results), open_loop(results), picture(pictures, "latency"),
        shared(results), large(results), light_ranker(results), footprint(results), absent(results),
    ]  # fmt: skip
    return [line for part in parts for line in part]


def picture(pictures: dict[str, str], name: str) -> list[str]:
    return [f"![{name}]({pictures[name]})", ""] if name in pictures else []


def head(results: dict) -> list[str]:
    settings, machine = results["settings"], results["machine"]
    samples = results["samples"]
    dropped = sum(not clean(sample, settings["foreign_limit"]) for sample in samples)
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Benchmark of the inference runtime", "",
        f"Written by `make bench-runtime`; do not edit. Model: {results['model']['folder']}. {results['began']}, "
        f"{results.get('seconds', 0) / 60:.0f} minutes.", "",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {', '.join(machine['instruction_sets'])}; "
        f"Linux {machine['kernel']}; {versions}.",
        f"- {settings['rounds']} rounds in which all take turns, {settings['seconds']} s each, the others stopped; "
        f"{settings['bodies']} different requests with Zipf ids (exponent 1.05). Ratios are medians of the ratios within a round.",
        f"- Samples in which others used more than {settings['foreign_limit']:.0%} of the CPUs are dropped, as are those "
        f"with failed requests: {dropped} of {len(samples)}.",
        "- *Core-us a pair*: CPU time of the server's processes over pairs answered. It does not depend on who owns the "
        "client's core.",
        "- Server on one core with one worker, client on another, unless it says otherwise. The client is "
        "`pinnace-runtime bench`; where it used over 90 % of its core, the rate is marked `*`: the client limits it.",
    ]  # fmt: skip
    lines.append(
        "- Servers may join requests that wait together; engines in process run one after the other, in one thread."
    )
    if engine := engine_of(results):
        lines.append(f"- Engine of `pinnace`: {engine}.")
    if without := results["model"]["without_vocabulary"]:
        lines.append(f"- No vocabulary is declared for {', '.join(without)}: all its values are 0.")
    return [*lines, ""]


def engine_of(results: dict) -> str | None:
    """As the server itself says, with the reason where it is not the rank engine."""
    config = results["facts"].get("same bytes", {}).get("pinnace", {}).get("config", {})
    why = config.get("parameters", {}).get("not_rank", {}).get("string_value")
    return config.get("backend", "") + (f" ({why})" if why else "") or None


def target_table(results: dict) -> list[str]:
    rows = targets.rows(results)
    if not rows:
        return []
    reasons = yaml.safe_load(REASONS.read_text()) or {}
    lines = ["## Targets", "", "| What | Against | Target | Measured | Rounds (dropped) | Verdict |", "|---|---|---|---|---|---|"]
    notes = []
    for row in rows:
        title = row.title
        for goal in row.goals:
            sign = "≥" if goal.more else "≤"
            measured = "-" if goal.measured is None else f"{number(goal.measured)} {goal.unit}".replace(" x", "x")
            target = f"{sign} {goal.target:g} {goal.unit}".replace(" x", "x")
            rounds = f"{goal.rounds} ({goal.dropped})" if goal.rounds else "-"
            lines.append(f"| {title} | {goal.what} | {target} | {measured} | {rounds} | {goal.verdict} |")
            title = ""
        if not row.goals:
            lines.append(f"| {title} | - | - | - | - | {targets.NOT_MEASURED} |")
        notes += [f"- {row.title}: {missing}." for missing in row.missing]
        if row.verdict == targets.SHORT:
            notes.append(f"- {row.title} falls short: {reasons.get(row.title, 'nobody has written down why yet')}.")
    return [*lines, "", *notes, ""]


def same_bytes(results: dict) -> list[str]:
    return capacity_table(results, "same bytes", "## Same bytes, same graph (row A)", results["settings"]["rows"])


def capacity_table(results: dict, section: str, title: str, all_rows: list[int]) -> list[str]:
    samples = [s for s in results["samples"] if s["section"] == section and s["purpose"] == "capacity"]
    if not samples:
        return []
    limit, names = results["settings"]["foreign_limit"], unique(samples)
    reference = IN_PROCESS if IN_PROCESS in names else None
    lines = [title, ""] if title else []
    lines.append(
        "| Contender | Pairs a request | Core-us a pair | Pairs/s | Requests/s | Client's CPU | Against ONNX Runtime in process |"
    )
    lines.append("|---|---|---|---|---|---|---|")
    for rows in all_rows:
        for name in names:
            mine = [s for s in samples if s["contender"] == name and s["rows"] == rows]
            if not mine:
                continue
            theirs = [s for s in samples if s["contender"] == reference and s["rows"] == rows]
            ratio = paired(mine, theirs, "core_us_per_pair", limit)
            lines.append(capacity_line(name, rows, mine, ratio, limit))
    return [*lines, ""]


def capacity_line(name: str, rows: int, mine: list[dict], ratio, limit: float) -> str:
    cost, pairs = median_of(mine, "core_us_per_pair", limit), median_of(mine, "pairs_per_second", limit)
    requests, client = median_of(mine, "requests_per_second", limit), median_of(mine, "client_cpu_share", limit)
    if cost is None:
        return f"| {name} | {rows} | {why_no_value(mine)} | | | | |"
    mark = "*" if client is not None and client > targets.CLIENT_BOUND else ""
    against = f"{ratio.median:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})" if ratio else "-"
    return f"| {name} | {rows} | {cost:.2f} | {pairs:,.0f}{mark} | {requests:,.0f}{mark} | {client:.0%} | {against} |"


def why_no_value(samples: list[dict]) -> str:
    failures = [sample["failure"] for sample in samples if sample.get("failure")]
    return failures[0][:120].replace("|", "/").replace("\n", " ") if failures else "all rounds disturbed"


def waterfall(results: dict) -> list[str]:
    lines = [
        "## From the same bytes to our own wire (rows B to D)", "",
        "B: list-shaped requests, the user's part repeated in every pair. C: peers given our hoisted graph, which they only "
        "reach by having their model rewritten. D: the user sent once; then only the 50 best answered; and the "
        "user sent once to products in bf16.", "",
    ]  # fmt: skip
    table = capacity_table(results, "list-shaped", "", [rows for rows in results["settings"]["rows"] if rows > 1])
    return [*lines, *table] if table else []


def steps(results: dict, rows: int) -> list[tuple[str, float]]:
    """The waterfall at so many pairs a request, in core-us a pair."""
    wanted = [
        ("A: ONNX Runtime in process", "same bytes", IN_PROCESS, "random"),
        ("A: pinnace", "same bytes", "pinnace http", "random"),
        ("B: ONNX Runtime in process", "list-shaped", IN_PROCESS, "list"),
        ("B: pinnace, user declared", "list-shaped", "pinnace, user declared http", "list"),
        ("C: ONNX Runtime, hoisted", "list-shaped", HOISTED, "once"),
        ("D: pinnace, user once", "list-shaped", "pinnace, user once http", "once"),
        ("D: pinnace bf16, user once", "list-shaped", "pinnace bf16, user once http", "once"),
        ("D: pinnace, user once, top 50", "list-shaped", "pinnace, user once, top 50 http", "once"),
    ]
    measured, found = targets.Measured(results), []
    for title, section, contender, kind in wanted:
        value = measured.median(section, contender, "core_us_per_pair", rows=rows, kind=kind)
        if value is not None:
            found.append((title, value))
    return found


def alone(results: dict) -> list[str]:
    samples = [s for s in results["samples"] if s["purpose"] == "alone"]
    if not samples:
        return []
    limit = results["settings"]["foreign_limit"]
    lines = ["## One pair, one connection, nobody else", "", "| Contender | p50 ms | p99 ms |", "|---|---|---|"]
    for name in unique(samples):
        mine = [s for s in samples if s["contender"] == name]
        lines.append(f"| {name} | {milliseconds(mine, 'p50_ms', limit)} | {milliseconds(mine, 'p99_ms', limit)} |")
    return [*lines, ""]


def open_loop(results: dict) -> list[str]:
    samples = [s for s in results["samples"] if s["purpose"] in ("open", "equal rate")]
    if not samples:
        return []
    limit, rows = results["settings"]["foreign_limit"], results["settings"]["open_rows"]
    lines = [
        f"## Latency at a given load, {rows} pairs a request", "",
        "Poisson arrivals; latency counts from the time at which a request was due, whether it could leave then or not. "
        "Shares are of each one's own capacity above; in the last lines all get the same rate.", "",
        "| Contender | Load | Requests/s | p50 ms | p99 ms | Client late by (p99 ms) |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for share in [*sorted({s["share"] for s in samples if s["share"]}), None]:
        for name in unique(samples):
            mine = [s for s in samples if s["contender"] == name and s["share"] == share]
            if mine:
                load = f"{share:.0%}" if share else "equal"
                values = [milliseconds(mine, key, limit) for key in ("p50_ms", "p99_ms", "lateness_p99_ms")]
                lines.append(f"| {name} | {load} | {mine[0]['rate']:,.0f} | " + " | ".join(values) + " |")
    return [*lines, ""]


def shared(results: dict) -> list[str]:
    rows = [max(results["settings"]["rows"])]
    return capacity_table(results, "shared cores", "## Server and client share all cores", rows)


def large(results: dict) -> list[str]:
    samples = [s for s in results["samples"] if s["purpose"] == "large alone"]
    if not samples:
        return []
    limit = results["settings"]["foreign_limit"]
    lines = [
        "## A large request, one connection, nobody else", "",
        "Against: medians of the ratios within a round, of the first line's figure to this one's; more is better.", "",
        "| Contender | Pairs | p50 ms | p50 against one thread | Core-us a pair | Core-us against one thread |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    first, *_ = unique(samples)
    for rows in sorted({s["rows"] for s in samples}):
        of = {name: [s for s in samples if s["contender"] == name and s["rows"] == rows] for name in unique(samples)}
        for name, mine in of.items():
            cells = [name, f"{rows:,}"]
            for measure in ("p50_ms", "core_us_per_pair"):
                ratio = paired(mine, of[first], measure, limit)
                cells += [milliseconds(mine, measure, limit), f"{ratio.median:.2f}x" if ratio else "-"]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def light_ranker(results: dict) -> list[str]:
    title = "## Light ranker: a table of 1 M items, candidates by their ids, the 50 best answered"
    return capacity_table(results, "light ranker", title, [targets.CANDIDATES])


def footprint(results: dict) -> list[str]:
    start, memory = results.get("start"), results.get("memory_mib", {})
    lines = []
    if start:
        lines += [
            "## Start, memory, size", "",
            f"- Start to ready: {start['median_start_seconds'] * 1000:.0f} ms (median of {len(start['start_seconds'])}).",
            f"- Resident at most, just started: {start['median_peak_rss_mib']:.0f} MiB. Binary: {start['binary_mib']:.1f} MiB.",
        ]  # fmt: skip
    for name, value in memory.items():
        lines.append(f"- Resident at most after the load above, {name}: {value:.0f} MiB.")
    return [*lines, ""] if lines else []


def absent(results: dict) -> list[str]:
    found = [
        f"- {name} ({section}): {reason}"
        for section, reasons in results["absent"].items()
        for name, reason in reasons.items()
    ]
    return ["## Not measured", "", *found, ""] if found else []


def milliseconds(samples: list[dict], measure: str, limit: float) -> str:
    value = median_of(samples, measure, limit)
    return why_no_value(samples) if value is None else f"{value:.3f}"


def number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def unique(samples: list[dict]) -> list[str]:
    """Names in the order in which they were measured."""
    return list(dict.fromkeys(sample["contender"] for sample in samples))
