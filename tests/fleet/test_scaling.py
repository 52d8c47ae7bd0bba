"""The number of replicas and nodes follows the load, and whatever the replicas say is taken for what it is."""

import time

from harness import objects
from harness.base import eventually

POOL = {"limits": {"maxNodes": 60}}


def start(crowd, metrics, minimum: int = 2, requests: int = 200, **load):
    """A model at rest under a load."""
    # All of it on the first replica that is ready would be more than it can take.
    crowd.load(20)
    crowd.apply(objects.pool(**POOL), objects.scaled(minimum, 40, metrics))
    crowd.settle(minimum)
    crowd.load(requests, **load)
    crowd.settle(max(minimum, -(-requests // 100)))
    crowd.model_condition("ScalingActive", "True", "FollowingMetrics")
    crowd.model_condition("MetricsFresh", "True")


def test_replicas_and_nodes_follow_the_load(crowd):
    start(crowd, [objects.RATE])
    calls, stepped = crowd.aws.mark(), time.monotonic()
    crowd.load(2000)
    eventually(lambda: crowd.aws.mutations(calls), "AWS is asked for nodes", 30)
    # The load is told over windows of 6 s, read every second; the bar is 10 s from the step to the first order.
    assert time.monotonic() - stepped < 10
    # Requests that moved from old replicas to new ones are not counted twice.
    assert crowd.settle_near(20) <= 22
    crowd.load(300)
    crowd.settle(3)
    crowd.model_condition("ScalingLimited", "False")
    crowd.load(10)
    crowd.settle(2)
    crowd.model_condition("ScalingLimited", "True", "TooFewReplicas")


def test_five_percent_noise_is_no_news(stack, crowd):
    start(crowd, [objects.RATE, objects.QUEUE, objects.GPU], minimum=4, requests=400, noise=0.05)

    def quiet(count: int, seconds: float) -> tuple:
        writes, calls, begun = stack.writes(), crowd.aws.mark(), stack.reconciles()
        eventually(lambda: stack.reconciles() >= begun + count, f"{count} reconciles", seconds)
        return stack.writes()[len(writes) :], crowd.aws.mutations(calls)

    eventually(lambda: quiet(10, 60) == ([], []), "the last transitions are written", 60)
    assert quiet(100, 180) == ([], [])


def test_a_blackout_takes_nothing_away_and_is_said(crowd):
    start(crowd, [objects.RATE], requests=800)
    dark = [{"kind": "Refuse", "share": 1.0}]
    # Nobody says that hardly anything is asked any more.
    crowd.load(100, faults=dark)
    crowd.model_condition("MetricsFresh", "False", "MetricsMissing", seconds=60)
    crowd.model_condition("ScalingActive", "False", "MetricsMissing")
    stack, begun = crowd.stack, crowd.stack.reconciles()
    eventually(lambda: stack.reconciles() >= begun + 60, "60 reconciles in the dark", 120)
    assert crowd.desired() == 8 and len(crowd.aws.instances()) == 8
    crowd.model_condition("Ready", "True")
    crowd.load(100)
    crowd.settle(2)


def test_impossible_numbers_take_nothing_away(crowd):
    start(crowd, [objects.RATE], requests=580)
    for kind in ("NaN", "Negative", "Hang", "Error"):
        # A third of them: fewer than 80 % are left to be believed.
        crowd.load(60, faults=[{"kind": kind, "share": 0.34}])
        crowd.model_condition("MetricsFresh", "False", "MetricsMissing", seconds=60)
        begun = crowd.stack.reconciles()
        eventually(lambda: crowd.stack.reconciles() >= begun + 20, "20 reconciles", 60)  # noqa: B023
        assert crowd.desired() == 6, kind
        crowd.load(580)
        crowd.model_condition("MetricsFresh", "True")


def test_a_stuck_gpu_buys_nothing(crowd):
    start(crowd, [objects.GPU], requests=20)
    calls = crowd.aws.mark()
    crowd.load(20, faults=[{"kind": "GpuBusy", "share": 1.0}])
    begun = crowd.stack.reconciles()
    eventually(lambda: crowd.stack.reconciles() >= begun + 60, "60 reconciles", 120)
    assert crowd.desired() == 2 and crowd.aws.mutations(calls) == []
