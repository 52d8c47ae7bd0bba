"""Paired ratios: what two contenders did in the same round, divided; of these the median."""

import math
import statistics
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times better the first is than the second."""

    median: float
    low: float
    high: float
    rounds: int
    dropped: int

    def json(self) -> dict:
        return asdict(self)


def clean(sample: dict, foreign_limit: float) -> bool:
    return sample["foreign_share"] <= foreign_limit and not sample.get("failure")


def paired(first: list[dict], second: list[dict], measure: str, foreign_limit: float) -> Ratio | None:
    """`measure` names a value of which less is better; rounds in which either sample was disturbed are dropped.

    `None` when no round is left. Low and high are the quartiles: with five rounds, extremes say little.
    """
    ours, theirs = ({sample["round"]: sample for sample in samples} for samples in (first, second))
    both = sorted(ours.keys() & theirs.keys())
    ratios = []
    for number in both:
        a, b = ours[number], theirs[number]
        if clean(a, foreign_limit) and clean(b, foreign_limit) and usable(a.get(measure)) and usable(b.get(measure)):
            ratios.append(b[measure] / a[measure])
    if not ratios:
        return None
    low, high = quartiles(ratios)
    return Ratio(statistics.median(ratios), low, high, len(ratios), len(both) - len(ratios))


def usable(value) -> bool:
    return value is not None and math.isfinite(value) and value > 0


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def median_of(samples: list[dict], measure: str, foreign_limit: float) -> float | None:
    """Over the undisturbed samples."""
    values = [sample.get(measure) for sample in samples if clean(sample, foreign_limit)]
    values = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(values) if values else None
