"""Faults of nodes and node groups, and changes by hand."""

import urllib.error

import pytest
from awssim import CLUSTER, Group, eventually, nodegroup
from fake_cluster import gpus


@pytest.fixture(autouse=True)
def no_faults_left(request):
    yield
    if "sim" in request.fixturenames:
        request.getfixturevalue("sim").control("DELETE", "faults")


def made(sim, mark, kind):
    """What faults of a kind did by themselves: action and resource."""
    entries = [e for e in sim.journal(mark)["entries"] if e.get("fault", {}).get("kind") == kind]
    assert all((e["service"], e["principal"], e["mutation"]) == ("sim", "fault", False) for e in entries)
    return [(e["action"], e["resource"]) for e in entries]


def statuses(activities):
    return [a["StatusCode"] for a in activities]


def test_nodes_that_never_join(world):
    sim, api, control = world
    mark = sim.mark()
    sim.fault("never-joins", group="pn-*", count=1)
    group = Group(sim, "pn-lost")
    ids = group.settle(2)
    eventually(lambda: len(api.nodes) == 1 and gpus(*api.nodes.values()) == "1", "the other one joins")
    ((action, lost),) = made(sim, mark, "never-joins")
    assert action == "JoinCluster" and lost in ids
    (node,) = api.nodes.values()
    assert not node["spec"]["providerID"].endswith(lost)
    assert len(group.in_service()) == 2, "EC2 and Auto Scaling see nothing wrong"


def test_ready_nodes_without_gpus_for_a_time_and_for_ever(world):
    sim, api, control = world
    sim.fault("no-gpus", group="pn-late", delaySeconds=900)
    late = Group(sim, "pn-late")
    (one,) = late.settle(1)
    stage = lambda i: {n["id"]: n["stage"] for n in sim.control("GET", "inventory")["instances"]}[i]  # noqa: E731
    eventually(lambda: stage(one) == "Ready", "Ready")
    (node,) = eventually(lambda: list(api.nodes.values()), "the node joins")
    assert gpus(node) is None
    eventually(lambda: gpus(node) == "1", "its GPU shows in the end")
    sim.fault("no-gpus", group="pn-never")
    (two,) = Group(sim, "pn-never").settle(1)
    eventually(lambda: stage(two) == "Ready" and len(api.nodes) == 2, "Ready")
    (other,) = [n for n in api.nodes.values() if n["spec"]["providerID"].endswith(two)]
    start = sim.control("GET", "ledger")["nowSeconds"]
    eventually(lambda: sim.control("GET", "ledger")["nowSeconds"] > start + 600, "time passes")
    assert gpus(other) is None and stage(two) == "Ready"


def test_a_withdrawn_order_is_delivered_late(sim):
    group, mark = Group(sim, "pn-delivery"), sim.mark()
    old = group.settle(1)
    sim.fault("late-delivery", group="pn-delivery", delaySeconds=600, count=2)
    group.resize(3)
    eventually(lambda: len(made(sim, mark, "late-delivery")) == 2, "both are ordered")
    assert len(group.members()) == 1
    group.resize(1)
    assert group.settle(1) == old
    delivered = lambda: [r for a, r in made(sim, mark, "late-delivery") if a == "Deliver"]  # noqa: E731
    late = eventually(lambda: len(delivered()) == 2 and delivered(), "both are delivered all the same")
    eventually(lambda: len(group.members()) == 1, "the surplus is ended")
    assert set(group.in_service()) <= {*old, *late}
    ended = {i["id"] for i in sim.control("GET", "inventory")["instances"] if i["state"] == "terminated"}
    assert len(ended & {*old, *late}) == 2
    group.settle(0)
    group.delete()


def test_two_of_five_are_launched(sim, autoscaling):
    group, mark = Group(sim, "pn-partial"), sim.mark()
    fault = sim.fault("partial-launch", group="pn-partial", launched=2)
    group.resize(5)
    activities = lambda: autoscaling.describe_scaling_activities(AutoScalingGroupName=group.asg)["Activities"]  # noqa: E731
    eventually(lambda: "Failed" in statuses(activities()), "a launch fails")
    failed = [a for a in activities() if a["StatusCode"] == "Failed"][0]
    assert "InsufficientInstanceCapacity" in failed["StatusMessage"]
    assert len(group.members()) == 2
    assert set(made(sim, mark, "partial-launch")) == {("Launch", "pn-partial")}
    sim.control("DELETE", f"faults/{fault}")
    eventually(lambda: len(group.in_service()) == 5, "the Auto Scaling group tries again")
    group.delete()


def test_a_creation_fails_with_a_health_issue(sim, eks):
    mark = sim.mark()
    sim.fault("create-failed", group="pn-create", code="Ec2LaunchTemplateInvalidConfiguration", count=1)
    eks.create_nodegroup(**nodegroup("pn-create"))
    describe = lambda: eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName="pn-create")["nodegroup"]  # noqa: E731
    eventually(lambda: describe()["status"] == "CREATE_FAILED", "CREATE_FAILED")
    (issue,) = describe()["health"]["issues"]
    assert issue["code"] == "Ec2LaunchTemplateInvalidConfiguration" and issue["resourceIds"]
    assert made(sim, mark, "create-failed") == [("CreateGroup", "pn-create")]
    eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName="pn-create")
    gone = lambda: "pn-create" not in eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]  # noqa: E731
    eventually(gone, "it can be deleted")


def test_a_deletion_fails_and_is_tried_again(sim, eks):
    group, mark = Group(sim, "pn-delete"), sim.mark()
    sim.fault("delete-failed", group="pn-delete", count=1)
    eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName="pn-delete")
    eventually(lambda: group.describe()["status"] == "DELETE_FAILED", "DELETE_FAILED")
    (issue,) = group.describe()["health"]["issues"]
    assert issue["code"] == "Ec2SecurityGroupDeletionFailure"
    assert made(sim, mark, "delete-failed") == [("DeleteGroup", "pn-delete")]
    group.delete()


def test_a_group_is_degraded_until_the_fault_goes(sim):
    group, mark = Group(sim, "pn-degraded"), sim.mark()
    fault = sim.fault("degraded", group="pn-degraded", code="IamNodeRoleNotFound")
    assert group.describe()["status"] == "DEGRADED"
    assert [i["code"] for i in group.describe()["health"]["issues"]] == ["IamNodeRoleNotFound"]
    assert len(group.settle(1)) == 1, "it works on"
    assert group.describe()["status"] == "DEGRADED", "a launch does not heal it"
    sim.control("DELETE", f"faults/{fault}")
    assert group.describe()["status"] == "ACTIVE" and group.describe()["health"]["issues"] == []
    assert made(sim, mark, "degraded") == [("DegradeGroup", "pn-degraded")]
    with pytest.raises(urllib.error.HTTPError) as nothing:
        sim.fault("degraded", group="pn-other")
    assert "pn-degraded" in nothing.value.read().decode()
    group.delete()


def test_somebody_changes_sizes_tags_and_instances(sim, ec2):
    group, mark = Group(sim, "pn-hand"), sim.mark()
    change = lambda change, **fields: sim.control("POST", "changes", {"change": change, **fields})  # noqa: E731
    change("size", group="pn-hand", desired=2, max=10)
    eventually(lambda: len(group.in_service()) == 2, "somebody asked for two")
    assert group.describe()["scalingConfig"] == {"minSize": 0, "maxSize": 10, "desiredSize": 2}
    first = group.in_service()[0]
    change("terminate", instance=first)
    eventually(lambda: first not in group.in_service() and len(group.in_service()) == 2, "it is replaced")
    change("tags", resource="pn-hand", set={"owner": "me"}, remove=["pinnace.dev/pool-uid"])
    assert group.describe()["tags"] == {"pinnace.dev/cluster": CLUSTER, "owner": "me"}
    instance = group.in_service()[0]
    change("tags", resource=instance, set={"owner": "me"})
    (shown,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    assert {"Key": "owner", "Value": "me"} in shown["Instances"][0]["Tags"]
    entries = [e for e in sim.journal(mark)["entries"] if e["principal"] == "by-hand"]
    assert [e["action"] for e in entries] == [
        "UpdateAutoScalingGroup", "TerminateInstances", "ChangeTags", "ChangeTags",
    ]  # fmt: skip
    assert all(e["fault"] == {"kind": "changed-by-hand"} and e["committed"] for e in entries)
    group.delete()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"change": "sizes"}, "change: must be one of size, tags, terminate"),
        ({"change": "size", "group": "pn-x"}, "desired: is missing"),
        ({"change": "size", "group": "pn-x", "desired": 1}, "group: "),
        ({"change": "size", "group": "pn-x", "desired": -1}, "desired: must be a whole number from 0 to 450"),
        ({"change": "tags", "resource": "pn-x"}, "set: is missing"),
        ({"change": "tags", "resource": "pn-x", "set": {"a": 1}}, "set: must be an object"),
        ({"change": "tags", "resource": "pn-x", "set": {"a": "b"}}, "resource: "),
        ({"change": "terminate", "instance": "i-1"}, "instance: "),
        ({"change": "terminate", "instance": "i-1", "group": "g"}, "group: a change of terminate has no such field"),
    ],
)
def test_wrong_changes_are_refused(sim, body, says):
    mark = sim.mark()
    with pytest.raises(urllib.error.HTTPError) as refused:
        sim.control("POST", "changes", body)
    assert refused.value.code == 400 and says in refused.value.read().decode()
    assert sim.journal(mark)["entries"] == [], "what was not done is not in the journal"
