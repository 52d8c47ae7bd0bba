import pytest
from awssim import Group, eventually
from botocore.exceptions import ClientError


def message(raised):
    return raised.value.response["Error"]["Message"]


@pytest.fixture(scope="module")
def group(sim):
    group = Group(sim, "pn-scale")
    yield group
    group.settle(0)
    group.delete()


def test_grow_and_describe(autoscaling, group):
    ids = group.settle(3)
    described = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group.asg, "unknown"])
    (one,) = described["AutoScalingGroups"]
    assert (one["MinSize"], one["MaxSize"], one["DesiredCapacity"]) == (0, 450, 3)
    assert {t["Key"] for t in one["Tags"]} >= {"eks:cluster-name", "eks:nodegroup-name"}
    assert one["VPCZoneIdentifier"] == "subnet-0a1" and one["AvailabilityZones"] == ["us-east-1a"]
    assert {i["InstanceId"] for i in one["Instances"]} == set(ids)
    assert all(i["HealthStatus"] == "Healthy" and not i["ProtectedFromScaleIn"] for i in one["Instances"])
    activities = autoscaling.describe_scaling_activities(AutoScalingGroupName=group.asg)["Activities"]
    assert [a["StatusCode"] for a in activities] == ["Successful"] * 3
    assert group.describe()["scalingConfig"]["desiredSize"] == 3


def test_a_decrease_spares_protected_instances(autoscaling, group):
    ids = sorted(group.settle(3))
    keep, victim = ids[:2], ids[2]
    protect = {"AutoScalingGroupName": group.asg, "ProtectedFromScaleIn": True}
    autoscaling.set_instance_protection(InstanceIds=keep, **protect)
    assert sorted(group.settle(2)) == keep
    ended = autoscaling.describe_scaling_activities(AutoScalingGroupName=group.asg)["Activities"][0]
    assert victim in ended["Description"]

    group.resize(1)
    text = "Could not scale to desired capacity because all remaining instances are protected from scale-in."
    newest = lambda: autoscaling.describe_scaling_activities(AutoScalingGroupName=group.asg)["Activities"][0]  # noqa: E731
    eventually(lambda: newest()["Description"] == text, "the refusal is an activity")
    assert sorted(group.in_service()) == keep
    autoscaling.set_instance_protection(InstanceIds=keep, AutoScalingGroupName=group.asg, ProtectedFromScaleIn=False)
    eventually(lambda: len(group.members()) == 1, "the lowered size is met once protection ends")


def test_protection_is_refused_for_instances_not_in_service(sim, autoscaling, group):
    with pytest.raises(ClientError) as unknown:
        autoscaling.set_instance_protection(
            AutoScalingGroupName=group.asg, InstanceIds=["i-00000000000000000"], ProtectedFromScaleIn=True
        )
    assert "is not part of Auto Scaling group" in message(unknown)
    with pytest.raises(ClientError) as many:
        autoscaling.set_instance_protection(
            AutoScalingGroupName=group.asg, InstanceIds=[f"i-{n:017x}" for n in range(51)], ProtectedFromScaleIn=True
        )
    assert "limited to 50" in message(many)


def test_sizes_outside_the_bounds_are_refused(autoscaling, group):
    with pytest.raises(ClientError) as above:
        group.resize(451)
    assert "above max value 450" in message(above)
    with pytest.raises(ClientError) as unknown:
        autoscaling.set_desired_capacity(AutoScalingGroupName="unknown", DesiredCapacity=1)
    assert unknown.value.response["Error"]["Code"] == "ValidationError" and "not found" in message(unknown)


def test_terminate_with_decrement(autoscaling, group):
    ids = group.settle(2)
    answer = autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=ids[0], ShouldDecrementDesiredCapacity=True
    )
    assert ids[0] in answer["Activity"]["Description"]
    eventually(lambda: [i["InstanceId"] for i in group.members()] == [ids[1]], "one instance is left")
    assert group.describe()["scalingConfig"]["desiredSize"] == 1


def test_pages(autoscaling, group):
    pages = autoscaling.get_paginator("describe_scaling_activities").paginate(
        AutoScalingGroupName=group.asg, PaginationConfig={"PageSize": 2}
    )
    listed = [a["ActivityId"] for page in pages for a in page["Activities"]]
    assert len(listed) == len(set(listed)) > 2
