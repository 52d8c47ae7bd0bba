"""AWS that fails, and operators that are killed, stopped or two: nothing is done twice, and the end is the same."""

import collections
import random
import signal

import pytest
from harness import objects
from harness.base import eventually

from test_operator import NAMESPACE, apply, nodes, operator, scale  # noqa: F401

MUTATIONS = (
    "CreateLaunchTemplate", "CreateNodegroup", "SetDesiredCapacity", "SetInstanceProtection", "DeleteNodegroup",
    "DeleteLaunchTemplate",
)  # fmt: skip


def delete(beside):
    beside.kube("delete", "mdep", "--all", "-n", NAMESPACE, "--timeout=120s")
    beside.kube("delete", "gpool", "--all", "--timeout=180s")


def life(beside):
    """Create, grow, shrink and delete, in one zone."""
    beside.kube.apply(objects.pool(subnetIds=["subnet-0b2"]), objects.model())
    nodes(beside, 1, seconds=150)
    scale(beside, 3)
    nodes(beside, 3, seconds=150)
    scale(beside, 1)
    nodes(beside, 1, seconds=150)
    delete(beside)
    eventually(lambda: not beside.aws.left(), "nothing is left", 120)


def judge(beside, since: int):
    """One group was made, one template, and as many instances as there were nodes wanted."""
    groups = [e["parameters"] for e in beside.aws.journal(since, True) if e["action"] == "CreateNodegroup"]
    names = {(group["nodegroupName"], group["clientRequestToken"]) for group in groups}
    assert len(names) == 1, names
    launched = [i for i in beside.aws.ledger()["instances"] if (i["group"],) == (groups[0]["nodegroupName"],)]
    assert len(launched) == 3, launched
    done = collections.Counter(beside.aws.mutations(since))
    assert all(done[action] >= 1 for action in ("CreateNodegroup", "DeleteNodegroup", "CreateLaunchTemplate")), done


@pytest.mark.parametrize("connection", ["cut", "held"])
def test_an_answer_that_is_lost_in_every_mutating_call_buys_nothing_twice(operator, connection):  # noqa: F811
    since = operator.aws.mark()
    for action in MUTATIONS:
        operator.aws.fault("timeout-after-commit", action=action, connection=connection, count=1)
    operator.start()
    life(operator)
    hit = {fault["action"] for fault in operator.aws.faults() if fault["hits"]}
    operator.aws.clear_faults()
    # An account of one zone and one shard needs no protection unless others stay; everything else was met.
    assert hit >= set(MUTATIONS) - {"SetInstanceProtection"}, hit
    judge(operator, since)


# Only some calls can conflict or time out, so more of these do.
FAILING = [("throttled", 0.1), ("internal-error", 0.1), ("unavailable", 0.1), ("conflict", 0.5), ("timeout-before-commit", 0.4)]


@pytest.mark.parametrize(("kind", "share"), FAILING)
def test_calls_fail_now_and_then_and_the_end_is_the_same(operator, kind, share):  # noqa: F811
    since = operator.aws.mark()
    more = {"connection": "cut"} if kind.startswith("timeout") else {}
    operator.aws.fault(kind, action="*", probability=share, **more)
    operator.start()
    life(operator)
    assert operator.aws.faults()[0]["hits"] > 0
    operator.aws.clear_faults()
    judge(operator, since)


def test_what_is_denied_is_said_and_heals(operator):  # noqa: F811
    operator.aws.fault("access-denied", action="CreateNodegroup")
    operator.start()
    apply(operator)
    read = lambda: operator.kube.pool(objects.POOL)  # noqa: E731
    message = operator.kube.wait_condition(read, "Stalled", "True", "CloudDenied")["message"]
    assert "CreateNodegroup" in message or "create" in message, message
    operator.aws.clear_faults()
    nodes(operator, 1, seconds=150)


def test_old_answers_do_nothing_twice(operator):  # noqa: F811
    since = operator.aws.mark()
    operator.aws.fault("stale", action="*", service="eks", lagSeconds=60)
    operator.aws.fault("stale", action="*", service="autoscaling", lagSeconds=60)
    operator.start()
    life(operator)
    operator.aws.clear_faults()
    judge(operator, since)


def test_ten_sigkills_at_seeded_moments(operator):  # noqa: F811
    """Killed in each of create, grow, shrink and delete at least once, by the journal, and at other moments."""
    dice, killed, since = random.Random(7), [], operator.aws.mark()

    def kill():
        operator.process.kill()
        operator.process.wait()
        operator.start()

    def in_the_middle(action: str, point: str, cause):
        operator.aws.hold(action, point)
        cause()
        held = eventually(operator.aws.held, f"{action} is held {point} its commit", 60)
        killed.extend(call["action"] for call in held)
        kill()
        eventually(lambda: not operator.aws.held(), "the caller is gone", 30)
        operator.aws.release()

    def sometime(until: int):
        """After as many plans as the dice say."""
        for _ in range(until):
            operator.plans(dice.randint(1, 6))
            kill()
            killed.append("sometime")

    operator.start()
    one_zone = objects.pool(subnetIds=["subnet-0b2"])
    in_the_middle("CreateNodegroup", dice.choice(["before", "after"]), lambda: operator.kube.apply(one_zone, objects.model()))
    sometime(1)
    nodes(operator, 1)
    in_the_middle("SetDesiredCapacity", "after", lambda: scale(operator, 3))
    sometime(2)
    nodes(operator, 3)
    in_the_middle("SetDesiredCapacity", dice.choice(["before", "after"]), lambda: scale(operator, 1))
    sometime(2)
    nodes(operator, 1)
    operator.kube("delete", "mdep", "--all", "-n", NAMESPACE, "--timeout=120s")
    in_the_middle("DeleteNodegroup", dice.choice(["before", "after"]), lambda: operator.kube("delete", "gpool", "--all", "--wait=false"))
    sometime(1)
    eventually(lambda: not operator.kube.pool(objects.POOL) and not operator.aws.left(), "nothing is left", 120)
    assert len(killed) >= 10, killed
    assert collections.Counter(killed) >= collections.Counter(["CreateNodegroup", "SetDesiredCapacity", "SetDesiredCapacity", "DeleteNodegroup"])
    judge(operator, since)


def test_a_leader_that_was_stopped_for_three_leases_changes_nothing(operator):  # noqa: F811
    since = operator.aws.mark()
    first = operator.start("--pod-name=first", elect=True)
    operator.kube.apply(objects.pool(subnetIds=["subnet-0b2"]), objects.model())
    nodes(operator, 1)
    # It has decided to grow, and its call is on its way, when it is stopped.
    operator.aws.hold("SetDesiredCapacity", "before")
    scale(operator, 3)
    eventually(operator.aws.held, "the call is held", 60)
    first.send_signal(signal.SIGSTOP)
    operator.aws.release()
    second = operator.start("--pod-name=second", elect=True, beside_others=True)
    nodes(operator, 3, seconds=120)
    scale(operator, 1)
    nodes(operator, 1, seconds=120)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/pinnace-system/leases/pinnace-operator"
    assert operator.kube.find(lease)["spec"]["holderIdentity"] == "second"
    renewals = {operator.kube.find(lease)["spec"]["renewTime"]}

    def three_leases():
        renewals.add(operator.kube.find(lease)["spec"]["renewTime"])
        # Renewed every 4 s: twelve renewals are three leases of 15 s.
        return len(renewals) > 12

    eventually(three_leases, "three leases go by", 90)
    sent = operator.aws.mark()
    first.send_signal(signal.SIGCONT)
    # It finds that it does not lead any more, and ends.
    assert first.wait(timeout=60) != 0
    operator.plans(10)
    assert operator.aws.mutations(sent) == []
    nodes(operator, 1)
    assert second.poll() is None
    delete(operator)
    eventually(lambda: not operator.aws.left(), "nothing is left", 120)
    judge(operator, since)
