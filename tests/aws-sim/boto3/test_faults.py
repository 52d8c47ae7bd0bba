"""Faults of calls, as clients of AWS see them."""

import threading
import time
import urllib.error

import botocore.exceptions as failures
import pytest
from awssim import CLUSTER, Group, create_template, eventually, nodegroup
from botocore.exceptions import ClientError

INSTANCE = "i-0123456789abcdef0"
ASG = "eks-none"
TEMPLATE = {"LaunchTemplateName": "none"}
ARN = f"arn:aws:eks:us-east-1:111122223333:nodegroup/{CLUSTER}/none/u"
TAGS = [{"Key": "k", "Value": "v"}]

# Every action: parameters that boto3 lets pass.
CALLS = {
    "eks": {
        "create_nodegroup": nodegroup("never"),
        "delete_nodegroup": {"clusterName": CLUSTER, "nodegroupName": "none"},
        "describe_cluster": {"name": CLUSTER},
        "describe_nodegroup": {"clusterName": CLUSTER, "nodegroupName": "none"},
        "describe_update": {"name": CLUSTER, "updateId": "u"},
        "list_nodegroups": {"clusterName": CLUSTER},
        "list_tags_for_resource": {"resourceArn": ARN},
        "list_updates": {"name": CLUSTER},
        "tag_resource": {"resourceArn": ARN, "tags": {"k": "v"}},
        "untag_resource": {"resourceArn": ARN, "tagKeys": ["k"]},
    },
    "ec2": {
        "create_launch_template": {**TEMPLATE, "LaunchTemplateData": {"KeyName": "k"}},
        "create_launch_template_version": {**TEMPLATE, "LaunchTemplateData": {"KeyName": "k"}},
        "create_tags": {"Resources": [INSTANCE], "Tags": TAGS},
        "delete_launch_template": TEMPLATE,
        "delete_tags": {"Resources": [INSTANCE], "Tags": TAGS},
        "describe_instance_type_offerings": {},
        "describe_instance_types": {},
        "describe_instances": {},
        "describe_launch_template_versions": TEMPLATE,
        "describe_launch_templates": {},
        "describe_subnets": {},
        "terminate_instances": {"InstanceIds": [INSTANCE]},
    },
    "autoscaling": {
        "describe_auto_scaling_groups": {},
        "describe_scaling_activities": {},
        "set_desired_capacity": {"AutoScalingGroupName": ASG, "DesiredCapacity": 1},
        "set_instance_protection": {
            "AutoScalingGroupName": ASG, "InstanceIds": [INSTANCE], "ProtectedFromScaleIn": True,
        },
        "terminate_instance_in_auto_scaling_group": {"InstanceId": INSTANCE, "ShouldDecrementDesiredCapacity": True},
    },
}  # fmt: skip
EVERY_CALL = [(service, call) for service, calls in CALLS.items() for call in calls]

REFUSALS = {
    "throttled": {
        "eks": (429, "ThrottlingException"), "ec2": (503, "RequestLimitExceeded"), "autoscaling": (400, "Throttling"),
    },
    "internal-error": {
        "eks": (500, "ServerException"), "ec2": (500, "InternalError"), "autoscaling": (500, "InternalFailure"),
    },
    "unavailable": {
        "eks": (503, "ServiceUnavailableException"), "ec2": (503, "Unavailable"),
        "autoscaling": (503, "ServiceUnavailable"),
    },
    "access-denied": {
        "eks": (403, "AccessDeniedException"), "ec2": (403, "UnauthorizedOperation"),
        "autoscaling": (403, "AccessDenied"),
    },
    "expired-token": {
        "eks": (403, "ExpiredTokenException"), "ec2": (400, "RequestExpired"), "autoscaling": (403, "ExpiredToken"),
    },
}  # fmt: skip

CONFLICTS = {
    "create_nodegroup": (409, "ResourceInUseException"),
    "delete_nodegroup": (409, "ResourceInUseException"),
    "create_launch_template": (400, "InvalidLaunchTemplateName.AlreadyExistsException"),
    "create_tags": (400, "ConcurrentTagAccess"),
    "delete_tags": (400, "ConcurrentTagAccess"),
    "terminate_instances": (400, "IncorrectInstanceState"),
    "set_desired_capacity": (400, "ScalingActivityInProgress"),
    "terminate_instance_in_auto_scaling_group": (400, "ScalingActivityInProgress"),
    "set_instance_protection": (500, "ResourceContention"),
    "describe_auto_scaling_groups": (500, "ResourceContention"),
    "describe_scaling_activities": (500, "ResourceContention"),
}


@pytest.fixture(autouse=True)
def no_faults_left(sim):
    yield
    sim.control("DELETE", "faults")


@pytest.fixture(scope="module")
def once(sim):
    """Clients that try once."""
    return {service: sim.client(service, tries=1) for service in CALLS}


def action(client, call):
    return client.meta.method_to_api_mapping[call]


def refused(client, call, **parameters):
    with pytest.raises(ClientError) as raised:
        getattr(client, call)(**parameters)
    answer = raised.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def faulty(sim, mark):
    """Calls since the mark that met a fault."""
    return [e for e in sim.journal(mark)["entries"] if "fault" in e]


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize(("service", "call"), EVERY_CALL)
def test_every_call_can_be_refused_with_the_error_of_its_service(sim, once, service, call, kind):
    client, mark = once[service], sim.mark()
    fault = sim.fault(kind, action=action(client, call), count=1)
    assert refused(client, call, **CALLS[service][call]) == REFUSALS[kind][service]
    (entry,) = sim.journal(mark)["entries"]
    assert entry["fault"] == {"id": fault, "kind": kind} and entry["committed"] is False
    assert (entry["status"], entry["outcome"]) == REFUSALS[kind][service]
    (listed,) = sim.faults()
    assert (listed["hits"], listed["active"]) == (1, False)


@pytest.mark.parametrize(("service", "call"), EVERY_CALL)
def test_conflicts(sim, once, service, call):
    client = once[service]
    if call in CONFLICTS:
        sim.fault("conflict", action=action(client, call))
        assert refused(client, call, **CALLS[service][call]) == CONFLICTS[call]
    else:
        with pytest.raises(urllib.error.HTTPError) as bad:
            sim.fault("conflict", action=action(client, call))
        assert bad.value.code == 400


@pytest.mark.parametrize(("service", "call"), EVERY_CALL)
@pytest.mark.parametrize("kind", ["timeout-before-commit", "timeout-after-commit"])
def test_every_call_can_stay_without_an_answer(sim, once, service, call, kind):
    client, mark = once[service], sim.mark()
    sim.fault(kind, action=action(client, call), connection="cut", count=1)
    with pytest.raises(failures.ConnectionClosedError):
        getattr(client, call)(**CALLS[service][call])
    (entry,) = faulty(sim, mark)
    if kind == "timeout-before-commit":
        assert (entry["outcome"], entry["status"], entry["committed"]) == ("NotPerformed", 0, False)
    else:
        assert entry["committed"] == (entry["mutation"] and entry["outcome"] == "OK")
    if call == "create_nodegroup" and kind == "timeout-after-commit":
        # Created, though nobody was told.
        Group(sim, "never", create=False).delete()


@pytest.mark.parametrize("kind", ["throttled", "internal-error", "unavailable"])
@pytest.mark.parametrize("service", CALLS)
def test_the_sdk_tries_again_on_faults_that_pass(sim, service, kind):
    call = {"eks": "list_nodegroups", "ec2": "describe_instances", "autoscaling": "describe_auto_scaling_groups"}
    client, mark = sim.client(service, tries=3), sim.mark()
    sim.fault(kind, service=service, action="*", count=2)
    getattr(client, call[service])(**CALLS[service][call[service]])
    entries = sim.journal(mark)["entries"]
    assert [e["outcome"] == "OK" for e in entries] == [False, False, True]
    assert ["fault" in e for e in entries] == [True, True, False]


@pytest.mark.parametrize("kind", ["access-denied", "expired-token"])
def test_the_sdk_does_not_try_again_when_it_may_not(sim, kind):
    client, mark = sim.client("eks", tries=3), sim.mark()
    sim.fault(kind, action="ListNodegroups")
    assert refused(client, "list_nodegroups", clusterName=CLUSTER) == REFUSALS[kind]["eks"]
    assert len(faulty(sim, mark)) == 1


def test_a_create_that_was_done_without_an_answer_is_repeated_with_its_token(sim, eks):
    mark = sim.mark()
    sim.fault("timeout-after-commit", action="CreateNodegroup", connection="cut", count=1)
    client = sim.client("eks", tries=2)
    made = client.create_nodegroup(**nodegroup("pn-twice", clientRequestToken="twice"))["nodegroup"]
    first, second = [e for e in sim.journal(mark)["entries"] if e["action"] == "CreateNodegroup"]
    assert (first["outcome"], first["committed"], first["fault"]["kind"]) == ("OK", True, "timeout-after-commit")
    assert second["outcome"] == "OK" and "fault" not in second
    assert made["nodegroupName"] == "pn-twice"


def test_a_held_connection_ends_with_the_callers_patience_or_with_the_fault(sim):
    impatient = sim.client("eks", tries=1, read_timeout=0.5)
    fault = sim.fault("timeout-before-commit", action="ListNodegroups")
    with pytest.raises(failures.ReadTimeoutError):
        impatient.list_nodegroups(clusterName=CLUSTER)
    seen = []

    def wait():
        try:
            sim.client("eks", tries=1).list_nodegroups(clusterName=CLUSTER)
        except failures.ConnectionClosedError:
            seen.append("closed")

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually(lambda: sim.faults()[0]["hits"] == 2, "the call meets the fault")
    assert waiting.is_alive()
    assert sim.control("DELETE", f"faults/{fault}") == {"removed": 1}
    waiting.join(timeout=10)
    assert seen == ["closed"]


def test_names_and_chances_choose_the_calls(sim, once):
    eks = once["eks"]
    sim.fault("throttled", action="DescribeNodegroup", resource="pn-a*")
    name = lambda n: {"clusterName": CLUSTER, "nodegroupName": n}  # noqa: E731
    assert refused(eks, "describe_nodegroup", **name("pn-abc"))[0] == 429
    assert refused(eks, "describe_nodegroup", **name("pn-b"))[0] == 404
    sim.control("DELETE", "faults")
    sim.fault("throttled", service="autoscaling", action="*", probability=0.5)
    outcomes = []
    for _ in range(60):
        try:
            once["autoscaling"].describe_auto_scaling_groups()
            outcomes.append(True)
        except ClientError:
            outcomes.append(False)
    assert 10 < sum(outcomes) < 50
    eks.list_nodegroups(clusterName=CLUSTER)


def test_a_resource_is_not_found_for_a_while(sim, once, ec2):
    group = Group(sim, "pn-hidden")
    (instance,) = group.settle(1)
    sim.fault("not-found", action="*", resource="pn-hidden")
    name = {"clusterName": CLUSTER, "nodegroupName": "pn-hidden"}
    assert refused(once["eks"], "describe_nodegroup", **name) == (404, "ResourceNotFoundException")
    assert "pn-hidden" not in once["eks"].list_nodegroups(clusterName=CLUSTER)["nodegroups"]
    # A write is checked where the truth is.
    assert refused(once["eks"], "create_nodegroup", **nodegroup("pn-hidden")) == (409, "ResourceInUseException")
    sim.control("DELETE", "faults")

    sim.fault("not-found", action="*", resource=instance, count=3)
    assert refused(once["ec2"], "describe_instances", InstanceIds=[instance]) == (400, "InvalidInstanceID.NotFound")
    assert refused(once["ec2"], "terminate_instances", InstanceIds=[instance]) == (400, "InvalidInstanceID.NotFound")
    assert group.members() == []
    assert group.in_service() == [instance]

    sim.fault("not-found", action="DescribeAutoScalingGroups", forSeconds=60)
    assert group.members() == []
    eventually(group.members, "the time of the fault is over")
    create_template(ec2, "hidden-template")
    sim.fault("not-found", action="CreateNodegroup", resource="hidden-template", count=1)
    wanted = nodegroup("pn-never", launchTemplate={"name": "hidden-template"})
    assert refused(once["eks"], "create_nodegroup", **wanted) == (400, "InvalidParameterException")
    sim.fault("not-found", action="DescribeCluster", count=1)
    assert refused(once["eks"], "describe_cluster", name=CLUSTER) == (404, "ResourceNotFoundException")
    group.delete()


def test_reads_lie_behind(sim, once):
    lag = 60
    sim.fault("stale", service="eks", action="*", lagSeconds=lag)
    before = time.monotonic()
    once["eks"].create_nodegroup(**nodegroup("pn-stale"))
    name = {"clusterName": CLUSTER, "nodegroupName": "pn-stale"}
    assert refused(once["eks"], "describe_nodegroup", **name) == (404, "ResourceNotFoundException")
    assert refused(once["eks"], "create_nodegroup", **nodegroup("pn-stale")) == (409, "ResourceInUseException")

    def visible():
        try:
            return once["eks"].describe_nodegroup(**name)["nodegroup"]
        except ClientError:
            return None

    first = eventually(visible, "the create shows in the end")
    # At 600 simulated seconds a second, less what the copies of the past are coarser than it.
    assert time.monotonic() - before >= lag * 0.9 / 600
    assert first["status"] == "CREATING"
    sim.control("DELETE", "faults")
    Group(sim, "pn-stale", create=False).delete()


def test_pages_end_early(sim, once, eks):
    names = ["pn-page-a", "pn-page-b", "pn-page-c"]
    for name in names:
        eks.create_nodegroup(**nodegroup(name))
    sim.fault("truncated", action="ListNodegroups", pageSize=2)
    first = once["eks"].list_nodegroups(clusterName=CLUSTER)
    assert len(first["nodegroups"]) == 2 and first["nextToken"]
    everything = lambda: [  # noqa: E731
        n
        for page in once["eks"].get_paginator("list_nodegroups").paginate(clusterName=CLUSTER)
        for n in page["nodegroups"]
    ]
    assert set(names) <= set(everything())
    sim.control("DELETE", "faults")
    sim.fault("truncated", action="*", pageSize=0, count=1)
    empty = once["eks"].list_nodegroups(clusterName=CLUSTER)
    assert empty["nodegroups"] == [] and empty["nextToken"]
    rest = once["eks"].list_nodegroups(clusterName=CLUSTER, nextToken=empty["nextToken"])
    assert set(names) <= set(rest["nodegroups"])
    sim.fault("truncated", service="ec2", action="*")
    assert len(once["ec2"].describe_subnets()["Subnets"]) == 1
    subnets = [s for page in once["ec2"].get_paginator("describe_subnets").paginate() for s in page["Subnets"]]
    assert len(subnets) == 3


def test_faults_are_listed_and_removed(sim):
    first = sim.fault("throttled", action="*", service="ec2", count=3)
    second = sim.fault("stale", action="*", lagSeconds=5)
    assert [(f["id"], f["kind"], f["hits"], f["active"]) for f in sim.faults()] == [
        (first, "throttled", 0, True),
        (second, "stale", 0, True),
    ]
    sim.control("DELETE", f"faults/{first}")
    assert [f["id"] for f in sim.faults()] == [second]
    with pytest.raises(urllib.error.HTTPError) as unknown:
        sim.control("DELETE", f"faults/{first}")
    assert unknown.value.code == 404 and str(second) in unknown.value.read().decode()
    assert sim.control("DELETE", "faults") == {"removed": 1}
    assert sim.faults() == []


def test_wrong_faults_are_refused_with_the_field_and_its_values(sim):
    for body, says in [
        ({"kind": "throtled", "action": "*"}, ["kind: ", "throttled, internal-error"]),
        ({"kind": "throttled", "action": "Describe"}, ["action: ", "DescribeNodegroup"]),
        ({"kind": "stale", "action": "*", "lagSeconds": 500}, ["lagSeconds: ", "from 1 to 120"]),
        ({"kind": "throttled", "action": "*", "times": 3}, ["times: ", "count, probability, forSeconds"]),
    ]:
        with pytest.raises(urllib.error.HTTPError) as refused_:
            sim.control("POST", "faults", body)
        text = refused_.value.read().decode()
        assert refused_.value.code == 400 and all(s in text for s in says), text
    assert sim.faults() == []
