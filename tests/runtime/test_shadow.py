"""A shadow sees a part of the requests, is compared, and is never waited for."""


import shutil

import requests
import scaled
from conftest import wait_until
from test_repository import flood, repository, right


def shadowed(root, shadow: str, percent: float):
    scaled.write(root / "main", 2.0, config=f"device: cpu\nshadow: {{model: {shadow}, percent: {percent}}}\n")
    return root


def counted(runtime, outcome: str) -> float:
    lines = requests.get(f"{runtime.admin}/metrics", timeout=5).text.splitlines()
    mine = [line for line in lines if line.startswith("pinnace_shadow_requests_total") and f'outcome="{outcome}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in mine)


def test_a_part_of_the_requests_is_compared(start, tmp_path):
    root = shadowed(tmp_path / "models", "other", 25)
    scaled.write(root / "other", -3.0)
    runtime = repository(start, root)
    for seed in range(40):
        right(runtime, "main", 2.0, seed)
    assert wait_until(lambda: counted(runtime, "compared") == 10)
    assert runtime.metric("pinnace_shadow_overlap_ratio_count") == 10
    assert runtime.metric("pinnace_shadow_difference_count") == 10
    # Its requests are nobody's: they are not counted as such.
    other = runtime.statistics("other")
    assert (other["inference_stats"]["success"]["count"], other["execution_count"]) == (0, 10)


def test_the_same_model_agrees_with_itself(start, tmp_path):
    root = shadowed(tmp_path / "models", "twin", 100)
    scaled.write(root / "twin", 2.0)
    runtime = repository(start, root)
    for seed in range(20):
        right(runtime, "main", 2.0, seed)
    assert wait_until(lambda: counted(runtime, "compared") == 20)
    assert runtime.metric("pinnace_shadow_overlap_ratio_sum") == 20
    assert runtime.metric("pinnace_shadow_difference_sum") == 0


def test_one_that_is_not_there_or_does_not_fit_hurts_nobody(start, tmp_path, ranker):
    root = shadowed(tmp_path / "models", "ranker", 100)
    shutil.copytree(ranker, root / "ranker")
    runtime = repository(start, root)
    right(runtime, "main", 2.0)
    assert counted(runtime, "incompatible") == 1
    assert runtime.load("ranker", "unload").status_code == 200
    right(runtime, "main", 2.0)
    assert counted(runtime, "unavailable") == 1


def test_it_is_not_waited_for(start, tmp_path):
    """More shadows than there is time for: requests are served all the same, and shadows dropped."""
    root = shadowed(tmp_path / "models", "other", 100)
    scaled.write(root / "other", 3.0)
    runtime = repository(start, root, "--workers", "1")
    end, statuses = flood(runtime, "main", scaled.request(16), 8)
    try:
        wait_until(lambda: len(statuses) >= 400)
    finally:
        end()
    assert set(statuses) == {200}
    outcomes = lambda: sum(counted(runtime, outcome) for outcome in ["compared", "skipped"])  # noqa: E731
    assert wait_until(lambda: outcomes() == len(statuses))
    assert counted(runtime, "failed") == 0
