"""The operator is killed in the middle of a call to AWS: the end state is the same, and nothing is done twice."""

import collections

import pytest
from harness import objects
from harness.base import eventually


@pytest.fixture
def interrupt(stack):
    """Kills the operator while a call is held, once around something that makes it call."""

    def run(action: str, point: str, cause):
        stack.aws.hold(action, point)
        cause()
        held = eventually(stack.aws.held, f"{action} is held {point} its commit", 60)
        assert [call["action"] for call in held] == [action]
        # The leader alone: the other pod takes over. All of them: they start again with nothing in memory.
        stack.kill_operator(everyone=point == "after")
        eventually(lambda: not stack.aws.held(), "the caller is gone", 30)

    yield run
    stack.aws.release()


@pytest.mark.parametrize("point", ["before", "after"])
def test_killed_in_create_grow_shrink_and_delete(stack, team, interrupt, point):
    since = stack.aws.mark()
    one_zone = objects.pool(subnetIds=["subnet-0b2"])
    interrupt("CreateNodegroup", point, lambda: team.apply(one_zone, objects.model()))
    team.settle(1)
    interrupt("SetDesiredCapacity", point, lambda: team.scale(2))
    team.settle(2)
    interrupt("SetDesiredCapacity", point, lambda: team.scale(1))
    team.settle(1)
    team.delete_model()
    interrupt("DeleteNodegroup", point, lambda: team.delete_pool("--wait=false"))
    eventually(lambda: not team.pool(), "the pool is gone", 150)
    eventually(team.nothing_left, "nothing is left", 60)

    done = collections.Counter(stack.aws.mutations(since))
    wanted = {"CreateLaunchTemplate": 1, "CreateNodegroup": 1, "DeleteNodegroup": 1, "DeleteLaunchTemplate": 1}
    # A call that was committed and never answered may be sent again: it says the same, and does nothing.
    assert all(done[action] >= count for action, count in wanted.items()), done
    groups = [e["parameters"] for e in stack.aws.journal(since, True) if e["action"] == "CreateNodegroup"]
    assert len({g["nodegroupName"] for g in groups}) == 1 and len({g["clientRequestToken"] for g in groups}) == 1
    launched = [i for i in stack.aws.ledger()["instances"] if i["group"] == groups[0]["nodegroupName"]]
    assert len(launched) == 2, launched
