"""The target table of the design: what was wanted, what was measured, and a verdict that nobody chose."""

from dataclasses import dataclass, field

from bench.ratios import Ratio, median_of, paired
from bench.stage import HOISTED, IN_PROCESS, OPENVINO_BF16

# A client that needs this much of its core may be what limits the rate.
CLIENT_BOUND = 0.9
# Of a request to the light ranker.
CANDIDATES = 1000
MET, SHORT, NOT_MEASURED = "met", "short", "not measured"


@dataclass
class Goal:
    """One number of a row."""

    what: str
    target: float
    measured: float | None
    unit: str = "x"
    # `False`: less is better.
    more: bool = True
    rounds: int = 0
    dropped: int = 0

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return NOT_MEASURED
        good = self.measured >= self.target if self.more else self.measured <= self.target
        return MET if good else SHORT


@dataclass
class Row:
    title: str
    goals: list[Goal] = field(default_factory=list)
    # Why a part of it is not measured.
    missing: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        verdicts = {goal.verdict for goal in self.goals}
        if SHORT in verdicts:
            return SHORT
        measured = MET in verdicts
        return MET if measured and NOT_MEASURED not in verdicts and not self.missing else (
            "met as far as measured" if measured else NOT_MEASURED
        )


class Measured:
    """Looks samples up."""

    def __init__(self, results: dict):
        self.results = results
        self.limit = results["settings"]["foreign_limit"]

    def samples(self, section: str, contender: str, **wanted) -> list[dict]:
        wanted = {"section": section, "contender": contender, "purpose": "capacity"} | wanted
        return [sample for sample in self.results["samples"] if wanted.items() <= sample.items()]

    def ratio(self, section: str, ours: str, theirs: str, measure="core_us_per_pair", **wanted) -> Ratio | None:
        first, second = self.samples(section, ours, **wanted), self.samples(section, theirs, **wanted)
        return paired(first, second, measure, self.limit)

    def mixed(self, section: str, ours: tuple[str, str], theirs: tuple[str, str], rows: int) -> Ratio | None:
        """The two are sent lists of different kinds: (contender, kind)."""
        first, second = (self.samples(section, name, kind=kind, rows=rows) for name, kind in (ours, theirs))
        return paired(first, second, "core_us_per_pair", self.limit)

    def median(self, section: str, contender: str, measure: str, **wanted) -> float | None:
        return median_of(self.samples(section, contender, **wanted), measure, self.limit)

    def why_absent(self, section: str, contender: str) -> str | None:
        absent = self.results["absent"].get(section, {})
        return absent.get(contender) or absent.get(contender.rsplit(" ", 1)[0]) or absent.get("all")


def goal(what: str, target: float, ratio: Ratio | None, more: bool = True) -> Goal:
    if ratio is None:
        return Goal(what, target, None, more=more)
    return Goal(what, target, ratio.median, more=more, rounds=ratio.rounds, dropped=ratio.dropped)


def rows(results: dict) -> list[Row]:
    measured = Measured(results)
    if not results["model"]["small_ranker"]:
        return []
    return [
        same_bytes(measured), bf16(measured), user_once(measured), small_requests(measured), alone(measured), light_ranker(measured),
        dcnv2(measured), big_table(measured), footprint(results), overload(measured),
    ]  # fmt: skip


def same_bytes(measured: Measured) -> Row:
    row = Row("A: same bytes, same graph, f32")
    for pairs in (64, 1024):
        ratio = measured.ratio("same bytes", "pinnace http", IN_PROCESS, rows=pairs)
        row.goals.append(goal(f"in-process ONNX Runtime per core, {pairs} a request", 1.7, ratio))
    row.missing.append("Triton + ONNX Runtime (2.1x / 2.5x): " + str(triton(measured)))
    return row


def triton(measured: Measured) -> str:
    reason = measured.why_absent("same bytes", "Triton with ONNX Runtime")
    return f"not measured; {reason}" if reason else "not measured"


def bf16(measured: Measured) -> Row:
    row, section, ours = Row("bf16, same bytes"), "same bytes", "pinnace bf16 http"
    for pairs, target in ((64, 2.8), (1024, 3.5)):
        ratio = measured.ratio(section, ours, IN_PROCESS, rows=pairs)
        what = f"in-process ONNX Runtime per core (stands in for Triton), {pairs} a request"
        row.goals.append(goal(what, target, ratio))
    for pairs in (64, 1024):
        ratio = measured.ratio(section, ours, "pinnace http", rows=pairs)
        row.goals.append(goal(f"our own f32, {pairs} a request", 1.3, ratio))
    for pairs in (64, 1024):
        ratio = measured.ratio(section, ours, OPENVINO_BF16, rows=pairs)
        row.goals.append(goal(f"the best bf16 engine, OpenVINO in process per core, {pairs} a request", 1.3, ratio))
    row.missing += [f"{name}: {why}" for name in (ours, OPENVINO_BF16) if (why := measured.why_absent(section, name))]
    row.missing.append("Triton: " + str(triton(measured)))
    return row


def user_once(measured: Measured) -> Row:
    row = Row("User once, 1,024 candidates")
    section, ours = "list-shaped", "pinnace, user once http"
    repeated = measured.mixed(section, (ours, "once"), (IN_PROCESS, "list"), 1024)
    hoisted = measured.mixed(section, (ours, "once"), (HOISTED, "once"), 1024)
    row.goals.append(goal("in-process ONNX Runtime with repeated inputs (stands in for Triton)", 4.0, repeated))
    row.goals.append(goal("in-process ONNX Runtime given our hoisted graph", 1.2, hoisted))
    row.missing += [f"{name}: {why}" for name in (ours, "pinnace bf16, user once http", HOISTED) if (why := measured.why_absent(section, name))]
    rounded = "pinnace bf16, user once http"
    for theirs, target in (((IN_PROCESS, "list"), 7.0), ((HOISTED, "once"), 2.2)):
        ratio = measured.mixed(section, (rounded, "once"), theirs, 1024)
        row.goals.append(goal(f"bf16: {theirs[0]}", target, ratio))
    return row


def small_requests(measured: Measured) -> Row:
    row = Row("Requests/s at 1 pair")
    for door in ("http", "grpc"):
        # Paired times divided: more than 1 where the bare server is slower.
        ratio = measured.ratio("same bytes", f"pinnace {door}", f"without a model {door}", "us_per_pair", rows=1)
        row.goals.append(goal(f"same server without a model, {door}", 0.55, ratio))
        client = measured.median("same bytes", f"without a model {door}", "client_cpu_share", rows=1)
        if client is not None and client > CLIENT_BOUND:
            cost = measured.ratio("same bytes", f"pinnace {door}", f"without a model {door}", rows=1)
            by_cost = f"{cost.median:.2f}x" if cost else "not known"
            row.missing.append(
                f"{door}: the client was at {client:.0%} of its core against the server without a model, so the ratio "
                f"flatters; by CPU time a request it is {by_cost}"
            )
    return row


def alone(measured: Measured) -> Row:
    row = Row("p99 alone at 1 pair")
    where = {"rows": 1, "purpose": "alone"}
    bare = measured.ratio("same bytes", "without a model http", "pinnace http", "p99_ms", **where)
    row.goals.append(goal("same server without a model", 1.4, bare, more=False))
    row.missing.append("Triton (0.5x): " + triton(measured))
    return row


def light_ranker(measured: Measured) -> Row:
    row, section, ours = Row("Light ranker over HTTP, 1,000 candidates, top 50"), "light ranker", "pinnace bf16"
    cost = measured.median(section, f"{ours} http", "core_us_per_pair", rows=CANDIDATES)
    # By the server's CPU time, as the client needs some of two cores too.
    row.goals.append(Goal("pairs/s on two cores, bf16", 10, cost and 2 / cost, "M"))
    row.missing += [f"{ours}: {why}" for why in [measured.why_absent(section, ours)] if why]
    return row


def dcnv2(measured: Measured) -> Row:
    row = Row("DLRM-DCNv2 full width")
    ratio = measured.ratio("dcnv2", "pinnace http", IN_PROCESS, rows=64)
    row.goals.append(goal("in-process ONNX Runtime per core (stands in for Triton)", 1.2, ratio))
    rounded = measured.ratio("dcnv2", "pinnace bf16 http", IN_PROCESS, rows=64)
    row.goals.append(goal("bf16: in-process ONNX Runtime per core (stands in for Triton)", 2.1, rounded))
    row.missing += ["Triton: " + triton(measured), "int8 (38 k): the runtime has no such plans yet"]
    return row


def big_table(measured: Measured) -> Row:
    row = Row("Table of 1 GB (gathers from DRAM)")
    ratio = measured.ratio("big table", "pinnace http", IN_PROCESS)
    row.goals.append(goal("in-process ONNX Runtime per core", 1.5, ratio))
    return row


def footprint(results: dict) -> Row:
    row, start = Row("Memory, start to ready, small ranker"), results.get("start")
    memory = start and start["median_peak_rss_mib"] * 2**20 / 1e6
    ready = start and start["median_start_seconds"] * 1000
    row.goals.append(Goal("resident at most", 40, memory, "MB", more=False))
    row.goals.append(Goal("start to ready", 100, ready, "ms", more=False))
    return row


def overload(measured: Measured) -> Row:
    row = Row("Goodput at 10x overload, DCNv2")
    section, ours = "dcnv2", "pinnace, short queue http"
    peak = measured.median(section, ours, "pairs_per_second", rows=64)
    goodput = measured.median(section, ours, "pairs_per_second", rows=64, purpose="overload", share=10)
    shed = measured.median(section, ours, "refused_p99_ms", purpose="overload", share=10)
    row.goals.append(Goal("of peak", 80, 100 * goodput / peak if goodput and peak else None, "%"))
    row.goals.append(Goal("p99 of refusals", 10, shed, "ms", more=False))
    return row
