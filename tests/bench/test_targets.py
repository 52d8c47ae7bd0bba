"""Verdicts and the page, from results made up by hand."""

import json

import pytest
import yaml

from bench import page, targets
from bench.stage import IN_PROCESS, OPENVINO_BF16
from bench.targets import MET, NOT_MEASURED, SHORT


def sample(contender, number, cost, section="same bytes", **more):
    return {
        "section": section, "contender": contender, "kind": "random", "rows": 64, "purpose": "capacity", "share": None,
        "place": "split", "round": number, "rate": None, "foreign_share": 0.0, "failure": None, "core_us_per_pair": cost,
        "us_per_pair": cost, "pairs_per_second": 1e6 / cost, "requests_per_second": 1e6 / cost / 64, "p50_ms": 0.1,
        "p99_ms": 0.2, "client_cpu_share": 0.3, "refused_p99_ms": None, "lateness_p99_ms": 0.01,
    } | more  # fmt: skip


@pytest.fixture
def results():
    return {
        "version": 1, "began": "2026-01-01 00:00 UTC", "seconds": 60, "absent": {}, "facts": {}, "samples": [],
        "machine": {"cpu": "x", "cores": 2, "kernel": "6", "instruction_sets": ["avx2"]},
        "settings": {"rounds": 3, "seconds": 1.0, "bodies": 200, "rows": [64], "open_rows": 64, "foreign_limit": 0.05},
        "model": {"folder": "the small ranker", "small_ranker": True, "without_vocabulary": []},
        "versions": {"onnxruntime": "1"},
    }  # fmt: skip


def row_of(results, title):
    return next(row for row in targets.rows(results) if row.title.startswith(title))


@pytest.mark.parametrize("ours, verdict, measured", [(1.0, MET, 2.0), (2.0, SHORT, 1.0)])
def test_the_verdict_follows_from_the_ratio(results, ours, verdict, measured):
    for number in range(3):
        results["samples"] += [sample("pinnace http", number, ours), sample(IN_PROCESS, number, 2.0)]
    goal = row_of(results, "A:").goals[0]
    assert (goal.verdict, goal.measured, goal.rounds) == (verdict, measured, 3)
    # 1,024 pairs a request were not measured: the row as a whole is not met.
    assert row_of(results, "A:").goals[1].verdict == NOT_MEASURED
    assert row_of(results, "A:").verdict == (SHORT if verdict == SHORT else "met as far as measured")


def test_less_is_better_where_it_is(results):
    results["start"] = {
        "median_peak_rss_mib": 30.0, "median_start_seconds": 0.2, "start_seconds": [0.2], "binary_mib": 20.0
    }
    memory, ready = row_of(results, "Memory").goals
    assert (memory.verdict, ready.verdict, ready.measured) == (MET, SHORT, 200.0)


def test_latency_alone_is_divided_by_the_bare_servers(results):
    for number in range(3):
        where = {"rows": 1, "purpose": "alone"}
        results["samples"] += [
            sample("pinnace http", number, 1.0, p99_ms=0.3, **where),
            sample("without a model http", number, 1.0, p99_ms=0.2, **where),
        ]
    (goal,) = row_of(results, "p99 alone").goals
    assert goal.measured == pytest.approx(1.5) and goal.verdict == SHORT


def test_nothing_measured_is_said_and_not_made_up(results):
    rows = targets.rows(results)
    assert len(rows) == 10
    assert {row.verdict for row in rows} == {NOT_MEASURED}
    text = "\n".join(page.lines(results, {}))
    assert text.count(f"| {NOT_MEASURED} |") >= 10 and "met" not in text.split("## Targets")[1]


def test_another_model_has_no_targets(results):
    results["model"]["small_ranker"] = False
    assert targets.rows(results) == []


def test_the_page_says_who_is_limited_by_the_client_and_who_failed(results):
    results["samples"] = [
        sample("pinnace http", 0, 2.0, client_cpu_share=0.97),
        sample("KServe http", 0, 4.0, failure="HTTP 500: no"),
        sample(IN_PROCESS, 0, 3.0),
        sample("BentoML http", 0, 3.0, foreign_share=0.5),
    ]
    results["absent"] = {"same bytes": {"PyTriton": "cannot be installed: no wheel"}}
    text = "\n".join(page.lines(results, {}))
    assert "| pinnace http | 64 | 2.00 | 500,000* | 7,812* | 97% | 1.50x" in text
    assert "| KServe http | 64 | HTTP 500: no |" in text
    assert "| BentoML http | 64 | all rounds disturbed |" in text
    assert "- PyTriton (same bytes): cannot be installed: no wheel" in text
    assert "dropped, as are those with failed requests: 2 of 4" in text


def test_a_short_row_has_its_reason(results, tmp_path, monkeypatch):
    results["samples"] = [sample("pinnace http", 0, 4.0), sample(IN_PROCESS, 0, 2.0)]
    monkeypatch.setattr(page, "REASONS", tmp_path / "reasons.yaml")
    page.REASONS.write_text("{}")
    assert "falls short: nobody has written down why yet" in "\n".join(page.lines(results, {}))
    page.REASONS.write_text(json.dumps({"A: same bytes, same graph, f32": "the moon"}))
    assert "falls short: the moon" in "\n".join(page.lines(results, {}))


def test_reasons_are_of_rows_that_there_are(results):
    assert set(yaml.safe_load(page.REASONS.read_text())) <= {row.title for row in targets.rows(results)}


def test_the_engine_is_the_one_that_the_server_names(results):
    assert page.engine_of(results) is None
    config = {"backend": "onnxruntime", "parameters": {"not_rank": {"string_value": "node 7: Loop"}}}
    results["facts"] = {"same bytes": {"pinnace": {"config": config}}}
    assert "- Engine of `pinnace`: onnxruntime (node 7: Loop)." in page.lines(results, {})


def test_a_ratio_that_the_client_made_is_not_trusted(results):
    results["samples"] = [
        sample("pinnace http", 0, 4.0, rows=1),
        # Its rate is the client's: by CPU time it is four times as fast.
        sample("without a model http", 0, 1.0, rows=1, us_per_pair=3.0, client_cpu_share=0.99),
    ]
    row = row_of(results, "Requests/s at 1 pair")
    assert row.goals[0].measured == 0.75
    assert "http: the client was at 99% of its core" in row.missing[0] and "it is 0.25x" in row.missing[0]


def test_bf16_is_held_against_onnx_runtime_our_own_f32_and_openvino(results):
    assert {goal.verdict for goal in row_of(results, "bf16").goals} == {NOT_MEASURED}
    results["absent"] = {"same bytes": {"pinnace bf16": "no such precision", OPENVINO_BF16: "no wheel"}}
    for number in range(3):
        costs = {"pinnace bf16 http": 1.0, "pinnace http": 1.2, IN_PROCESS: 3.0, OPENVINO_BF16: 1.5}
        results["samples"] += [sample(name, number, cost) for name, cost in costs.items()]
    row = row_of(results, "bf16")
    assert [(goal.measured, goal.verdict) for goal in row.goals[::2]] == [(3.0, MET), (1.2, SHORT), (1.5, MET)]
    assert row.missing[:2] == ["pinnace bf16 http: no such precision", f"{OPENVINO_BF16}: no wheel"]
