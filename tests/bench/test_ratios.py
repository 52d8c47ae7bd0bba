"""The statistics that verdicts rest on."""

import math

import pytest

from bench.ratios import Ratio, clean, median_of, paired

LIMIT = 0.05


def samples(values, foreign=(), failed=()):
    return [
        {"round": number, "cost": value, "foreign_share": 0.2 if number in foreign else 0.0,
         "failure": "HTTP 500" if number in failed else None}
        for number, value in enumerate(values)
    ]  # fmt: skip


def test_ratios_are_taken_within_rounds():
    # The machine is twice as slow in every other round; the ratio of medians would be 3, or 0.75, by chance of the order.
    ours, theirs = samples([1, 2, 1, 2, 1]), samples([1.5, 3, 1.5, 3, 1.5])
    assert paired(ours, theirs, "cost", LIMIT) == Ratio(1.5, 1.5, 1.5, 5, 0)


def test_a_disturbed_round_is_dropped_for_both_and_counted():
    ours, theirs = samples([1, 1, 1, 1, 1], foreign=[1]), samples([2, 9, 9, 2, 2], foreign=[2])
    assert paired(ours, theirs, "cost", LIMIT) == Ratio(2, 2, 2, 3, 2)


def test_a_round_with_failures_is_dropped():
    assert paired(samples([1, 1]), samples([2, 9], failed=[1]), "cost", LIMIT).rounds == 1


def test_the_median_and_quartiles():
    ratio = paired(samples([1] * 5), samples([5, 1, 3, 2, 4]), "cost", LIMIT)
    assert (ratio.median, ratio.low, ratio.high) == (3, 2, 4)


@pytest.mark.parametrize("value", [0, None, math.nan, math.inf])
def test_what_cannot_be_divided_is_dropped(value):
    ratio = paired(samples([value, 1]), samples([1, 1]), "cost", LIMIT)
    assert (ratio.rounds, ratio.dropped) == (1, 1)


def test_no_round_left_is_no_ratio():
    assert paired(samples([1], foreign=[0]), samples([1]), "cost", LIMIT) is None
    assert paired(samples([1]), [], "cost", LIMIT) is None


def test_rounds_of_one_only_have_no_partner():
    # The other one took part in the first two rounds: nothing was dropped.
    assert paired(samples([1, 1, 1]), samples([2, 2]), "cost", LIMIT) == Ratio(2, 2, 2, 2, 0)


def test_the_limit_itself_is_clean():
    assert clean({"foreign_share": LIMIT}, LIMIT)
    assert not clean({"foreign_share": LIMIT + 1e-9}, LIMIT)


def test_medians_leave_disturbed_samples_out():
    assert median_of(samples([1, 100, 3], foreign=[1]), "cost", LIMIT) == 2
    assert median_of(samples([1], foreign=[0]), "cost", LIMIT) is None
