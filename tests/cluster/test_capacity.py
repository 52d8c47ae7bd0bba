"""What AWS does not have, and what a pool leaves behind on purpose."""

from harness import objects
from harness.base import eventually


def test_a_pool_without_capacity_says_so_and_heals(stack, team):
    stack.aws.capacity("g5.xlarge", "us-east-1a", 0)
    team.apply(objects.pool(subnetIds=["subnet-0a1"]), objects.model())
    for wait in (team.pool_condition, team.model_condition):
        message = wait("CapacityReady", "False", "NoCapacity", seconds=30)
        assert "us-east-1a" in message and "g5.xlarge" in message
    stack.aws.capacity("g5.xlarge", "us-east-1a", None)
    team.settle(1)
    team.pool_condition("CapacityReady", "True")


def test_another_zone_is_asked_when_one_has_none(stack, team):
    stack.aws.capacity("g5.xlarge", "us-east-1a", 0)
    team.serve()
    assert [i["zone"] for i in stack.aws.instances()] != ["us-east-1a"]


def test_retained_groups_are_orphaned_untouched_and_adopted(stack, team):
    team.serve(deletionPolicy="Retain")
    instances, uid = {i["id"] for i in stack.aws.instances()}, team.pool()["metadata"]["uid"]
    # In this order the pool lets go of its groups while its node is still there.
    team.delete_pool("--wait=false")
    team.pool_condition("Ready", "False", "InUse")
    team.delete_model()
    eventually(lambda: not team.pool(), "the pool is gone", 60)

    since = stack.aws.mark()
    team.apply(objects.pool())
    team.pool_condition("Orphaned", "True")
    reconciles = stack.reconciles()
    eventually(lambda: stack.reconciles() > reconciles + 20, "twenty reconciles", 60)
    assert stack.aws.mutations(since) == []
    assert {i["id"] for i in stack.aws.instances()} == instances

    team.apply(objects.pool(annotations={"pinnace.dev/adopt": uid}), objects.model())
    eventually(lambda: not any(c["type"] == "Orphaned" for c in team.pool()["status"]["conditions"]), "it is adopted")
    team.settle(1)
    assert {i["id"] for i in stack.aws.instances()} == instances, "the adopted node serves, no other was bought"
