"""The operator's access key may do what the operator does, and nothing else."""

import pytest
from awssim import CLUSTER, ROLE, Group, create_template, eventually, nodegroup, tags
from botocore.exceptions import ClientError

DENIED = {"AccessDeniedException", "UnauthorizedOperation", "AccessDenied"}


@pytest.fixture(scope="module")
def operator(sim):
    return {s: sim.client(s, key="AKIAOPERATOR") for s in ("eks", "ec2", "autoscaling")}


def denied(call, **parameters):
    with pytest.raises(ClientError) as refused:
        call(**parameters)
    assert refused.value.response["Error"]["Code"] in DENIED, refused.value
    return str(refused.value)


def test_the_operator_may_do_its_work(sim, operator):
    eks, ec2, scaling = operator["eks"], operator["ec2"], operator["autoscaling"]
    eks.describe_cluster(name=CLUSTER)
    ec2.describe_instance_types(InstanceTypes=["g5.xlarge"])
    ec2.describe_instance_type_offerings()
    ec2.describe_subnets()
    template = create_template(ec2, "pinnace-g5-1")
    eks.create_nodegroup(
        **nodegroup("pn-own", launchTemplate={"id": template["LaunchTemplateId"], "version": "1"})
    )
    get = lambda: eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName="pn-own")["nodegroup"]  # noqa: E731
    group = eventually(lambda: (g := get())["status"] == "ACTIVE" and g, "ACTIVE")
    asg = group["resources"]["autoScalingGroups"][0]["name"]
    scaling.set_desired_capacity(AutoScalingGroupName=asg, DesiredCapacity=1)

    def in_service():
        (one,) = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[asg])["AutoScalingGroups"]
        return [i["InstanceId"] for i in one["Instances"] if i["LifecycleState"] == "InService"]

    ids = eventually(in_service, "an instance is in service")
    scaling.set_instance_protection(AutoScalingGroupName=asg, InstanceIds=ids, ProtectedFromScaleIn=True)
    scaling.describe_scaling_activities(AutoScalingGroupName=asg)
    assert ec2.describe_instances(InstanceIds=ids)["Reservations"]
    eks.tag_resource(resourceArn=group["nodegroupArn"], tags={"pinnace.dev/pool-uid": "u-2"})
    ec2.create_tags(
        Resources=[template["LaunchTemplateId"]], Tags=[{"Key": "pinnace.dev/pool-uid", "Value": "u-2"}]
    )
    eks.untag_resource(resourceArn=group["nodegroupArn"], tagKeys=["pinnace.dev/released"])
    assert "pn-own" in eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]
    eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName="pn-own")
    ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
    assert not [e for e in sim.journal()["entries"] if e["principal"] == "AKIAOPERATOR" and e["denied"]]


def test_what_is_not_tagged_for_the_cluster_is_out_of_reach(sim, operator):
    eks, ec2, scaling = operator["eks"], operator["ec2"], operator["autoscaling"]
    denied(eks.create_nodegroup, **nodegroup("pn-untagged", tags={}))
    denied(eks.create_nodegroup, **nodegroup("pn-else", tags={"pinnace.dev/cluster": "another"}))
    denied(eks.create_nodegroup, **nodegroup("named-otherwise"))
    made = [g["name"] for g in sim.control("GET", "inventory")["groups"]]
    assert not {"pn-untagged", "pn-else", "named-otherwise"} & set(made)
    foreign = Group(sim, "foreign", tags={"owner": "somebody"})
    arn = foreign.describe()["nodegroupArn"]
    text = denied(eks.delete_nodegroup, clusterName=CLUSTER, nodegroupName="foreign")
    assert "eks:DeleteNodegroup" in text and arn in text
    denied(eks.tag_resource, resourceArn=arn, tags=tags())
    foreign.settle(1)
    denied(scaling.set_desired_capacity, AutoScalingGroupName=foreign.asg, DesiredCapacity=0)
    denied(
        scaling.terminate_instance_in_auto_scaling_group,
        InstanceId=foreign.in_service()[0],
        ShouldDecrementDesiredCapacity=True,
    )
    denied(ec2.terminate_instances, InstanceIds=foreign.in_service())
    denied(
        ec2.create_tags, Resources=foreign.in_service(), Tags=[{"Key": "pinnace.dev/cluster", "Value": CLUSTER}]
    )
    assert foreign.describe()["status"] == "ACTIVE" and len(foreign.in_service()) == 1
    foreign.delete()


def test_roles_and_templates(sim, operator):
    eks, ec2 = operator["eks"], operator["ec2"]
    text = denied(eks.create_nodegroup, **nodegroup("pn-role", nodeRole=ROLE + "-admin"))
    assert "iam:PassRole" in text
    data = {"ImageId": "ami-1"}
    denied(ec2.create_launch_template, LaunchTemplateName="untagged", LaunchTemplateData=data)
    admin = sim.client("ec2")
    other = admin.create_launch_template(LaunchTemplateName="others", LaunchTemplateData=data)["LaunchTemplate"]
    denied(ec2.delete_launch_template, LaunchTemplateId=other["LaunchTemplateId"])
    denied(
        eks.create_nodegroup,
        **nodegroup("pn-others", launchTemplate={"id": other["LaunchTemplateId"], "version": "1"}),
    )
    denied(
        ec2.create_tags,
        Resources=[other["LaunchTemplateId"]],
        Tags=[{"Key": "pinnace.dev/cluster", "Value": CLUSTER}],
    )
    own = create_template(ec2, "pinnace-own")
    denied(
        ec2.create_launch_template_version,
        LaunchTemplateId=own["LaunchTemplateId"],
        LaunchTemplateData=data,
    )
    denied(ec2.delete_tags, Resources=[own["LaunchTemplateId"]], Tags=[{"Key": "pinnace.dev/cluster"}])


def test_callers_nobody_knows(sim):
    with pytest.raises(ClientError) as stranger:
        sim.client("eks", key="AKIASTRANGER").describe_cluster(name=CLUSTER)
    assert stranger.value.response["Error"]["Code"] == "UnrecognizedClientException"
    with pytest.raises(ClientError) as elsewhere:
        sim.client("eks", region="eu-west-1").describe_cluster(name=CLUSTER)
    assert elsewhere.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    entries = sim.journal()["entries"]
    assert any(e["principal"] == "AKIASTRANGER" and e["denied"] for e in entries)
