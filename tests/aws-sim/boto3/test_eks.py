import pytest
from botocore.exceptions import ClientError
from awssim import ACCOUNT, CLUSTER, Group, create_template, eventually, nodegroup, tags


def code(raised):
    return raised.value.response["Error"]["Code"]


def test_describe_cluster(eks):
    cluster = eks.describe_cluster(name=CLUSTER)["cluster"]
    assert cluster["status"] == "ACTIVE"
    assert cluster["arn"] == f"arn:aws:eks:us-east-1:{ACCOUNT}:cluster/{CLUSTER}"
    assert cluster["resourcesVpcConfig"]["subnetIds"] == ["subnet-0a1", "subnet-0b2", "subnet-0c3"]
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        eks.describe_cluster(name="other")


def test_life_of_a_group(sim, eks, ec2):
    template = create_template(ec2, "life-template")
    spec = nodegroup(
        "pn-life",
        launchTemplate={"id": template["LaunchTemplateId"], "version": "1"},
        clientRequestToken="token-life",
        releaseVersion="1.34.2-20261101",
    )
    created = eks.create_nodegroup(**spec)["nodegroup"]
    assert created["status"] == "CREATING"
    assert created["launchTemplate"] == {"id": template["LaunchTemplateId"], "name": "life-template", "version": "1"}
    assert created["tags"] == tags() and created["labels"] == spec["labels"] and created["taints"] == spec["taints"]
    assert "diskSize" not in created

    with pytest.raises(eks.exceptions.ResourceInUseException):
        eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName="pn-life")
    again = eks.create_nodegroup(**spec)["nodegroup"]
    assert again["nodegroupArn"] == created["nodegroupArn"], "a repeated token creates nothing"
    with pytest.raises(ClientError) as other:
        eks.create_nodegroup(**{**spec, "labels": {"pinnace.dev/pool": "another"}})
    assert code(other) == "InvalidParameterException"
    with pytest.raises(eks.exceptions.ResourceInUseException) as taken:
        eks.create_nodegroup(**{**spec, "clientRequestToken": "another-token"})
    assert "already exists" in str(taken.value)

    describe = lambda: eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName="pn-life")["nodegroup"]  # noqa: E731
    active = eventually(lambda: (g := describe())["status"] == "ACTIVE" and g, "ACTIVE")
    assert active["resources"]["autoScalingGroups"][0]["name"].startswith("eks-pn-life-")
    assert active["scalingConfig"] == {"minSize": 0, "maxSize": 450, "desiredSize": 0}
    assert active["health"] == {"issues": []}
    assert active["createdAt"].year >= 2024

    assert eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName="pn-life")["nodegroup"]["status"] == "DELETING"
    with pytest.raises(eks.exceptions.ResourceInUseException):
        eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName="pn-life")
    eventually(lambda: "pn-life" not in eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"], "gone")
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        describe()
    left = [t["LaunchTemplateName"] for t in ec2.describe_launch_templates()["LaunchTemplates"]]
    assert left == ["life-template"], "EKS removes its own copy, not the caller's template"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"nodegroupName": "x" * 64}, "63"),
        ({"instanceTypes": ["g9.huge"]}, "g9.huge"),
        ({"subnets": ["subnet-nowhere"]}, "subnet-nowhere"),
        ({"nodeRole": "arn:aws:iam::111122223333:role/other"}, "role/other"),
        ({"labels": {"kubernetes.io/x": "y"}}, "reserved"),
        ({"scalingConfig": {"minSize": 0, "maxSize": 2, "desiredSize": 3}}, "desired"),
        ({"instanceTypes": ["m5.large"]}, "m5.large"),
        ({"tags": {"aws:x": "y"}}, "aws:"),
        ({"releaseVersion": "1.2.3-20200101"}, "release version"),
        ({"remoteAccess": {"ec2SshKey": "k"}}, "remoteAccess"),
        ({"launchTemplate": {"id": "lt-00000000000000000"}}, "lt-00000000000000000"),
    ],
)
def test_bad_parameters_are_refused(eks, change, part):
    with pytest.raises(eks.exceptions.InvalidParameterException) as refused:
        eks.create_nodegroup(**nodegroup("pn-bad", **{}) | change)
    assert part in str(refused.value)
    assert eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"] == []


def test_quotas(eks):
    with pytest.raises(eks.exceptions.ResourceLimitExceededException):
        eks.create_nodegroup(
            **nodegroup("pn-big", scalingConfig={"minSize": 0, "maxSize": 451, "desiredSize": 0})
        )
    names = [f"pn-quota-{n:02}" for n in range(30)]
    for name in names:
        eks.create_nodegroup(**nodegroup(name))
    with pytest.raises(eks.exceptions.ResourceLimitExceededException):
        eks.create_nodegroup(**nodegroup("pn-one-more"))
    pages = eks.get_paginator("list_nodegroups").paginate(clusterName=CLUSTER, PaginationConfig={"PageSize": 7})
    assert [n for page in pages for n in page["nodegroups"]] == names
    for name in names:
        get = lambda n=name: eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName=n)["nodegroup"]  # noqa: E731
        eventually(lambda get=get: get()["status"] == "ACTIVE", name)
        eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName=name)
    eventually(lambda: not eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"], "all gone")


def test_tags_and_updates(sim, eks):
    group = Group(sim, "pn-tags")
    arn = group.describe()["nodegroupArn"]
    eks.tag_resource(resourceArn=arn, tags={"team": "ranking", "pinnace.dev/released": "yes"})
    assert eks.list_tags_for_resource(resourceArn=arn)["tags"] == tags(
        team="ranking", **{"pinnace.dev/released": "yes"}
    )
    eks.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert group.describe()["tags"] == tags(**{"pinnace.dev/released": "yes"})
    with pytest.raises(ClientError) as missing:
        eks.tag_resource(resourceArn=arn + "0", tags={"a": "b"})
    assert code(missing) == "NotFoundException"
    assert eks.list_updates(name=CLUSTER, nodegroupName="pn-tags")["updateIds"] == []
    with pytest.raises(eks.exceptions.ResourceNotFoundException):
        eks.describe_update(name=CLUSTER, nodegroupName="pn-tags", updateId="none")
    group.delete()
