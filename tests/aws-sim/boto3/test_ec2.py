import pytest
from botocore.exceptions import ClientError
from awssim import Group, create_template, eventually, tags, template_data


def code(raised):
    return raised.value.response["Error"]["Code"]


def test_instance_types(ec2):
    types = ec2.describe_instance_types(InstanceTypes=["g5.xlarge", "p4d.24xlarge"])["InstanceTypes"]
    by_name = {t["InstanceType"]: t for t in types}
    g5 = by_name["g5.xlarge"]
    assert g5["VCpuInfo"]["DefaultVCpus"] == 4 and g5["MemoryInfo"]["SizeInMiB"] == 16384
    assert g5["GpuInfo"]["Gpus"][0] | {"Count": 1} == g5["GpuInfo"]["Gpus"][0]
    assert g5["GpuInfo"]["Gpus"][0]["MemoryInfo"]["SizeInMiB"] == 22888
    assert by_name["p4d.24xlarge"]["GpuInfo"]["Gpus"][0]["Count"] == 8
    assert g5["ProcessorInfo"]["SupportedArchitectures"] == ["x86_64"]
    with pytest.raises(ClientError) as unknown:
        ec2.describe_instance_types(InstanceTypes=["g9.huge"])
    assert code(unknown) == "InvalidInstanceType"
    filtered = ec2.describe_instance_types(Filters=[{"Name": "instance-type", "Values": ["p4*"]}])
    assert {t["InstanceType"] for t in filtered["InstanceTypes"]} == {"p4d.24xlarge", "p4de.24xlarge"}


def test_offerings_and_subnets(ec2):
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["p4d.24xlarge"]}]
    )["InstanceTypeOfferings"]
    assert [o["Location"] for o in offered] == ["us-east-1a", "us-east-1b"]
    subnets = ec2.describe_subnets(SubnetIds=["subnet-0b2"])["Subnets"]
    assert subnets[0]["AvailabilityZone"] == "us-east-1b" and subnets[0]["AvailableIpAddressCount"] > 60_000
    assert len(ec2.describe_subnets()["Subnets"]) == 3
    with pytest.raises(ClientError) as missing:
        ec2.describe_subnets(SubnetIds=["subnet-none"])
    assert code(missing) == "InvalidSubnetID.NotFound"


def test_launch_templates(ec2):
    made = create_template(ec2, "t-one", ClientToken="token-1")
    assert made["LatestVersionNumber"] == 1 and {t["Key"]: t["Value"] for t in made["Tags"]} == tags()
    assert create_template(ec2, "t-one", ClientToken="token-1")["LaunchTemplateId"] == made["LaunchTemplateId"]
    with pytest.raises(ClientError) as mismatch:
        create_template(ec2, "t-two", ClientToken="token-1")
    assert code(mismatch) == "IdempotentParameterMismatch"
    with pytest.raises(ClientError) as taken:
        create_template(ec2, "t-one")
    assert code(taken) == "InvalidLaunchTemplateName.AlreadyExistsException"

    version = ec2.create_launch_template_version(
        LaunchTemplateId=made["LaunchTemplateId"],
        LaunchTemplateData={**template_data(), "UserData": "IyE="},
        VersionDescription="second",
    )["LaunchTemplateVersion"]
    assert version["VersionNumber"] == 2 and version["LaunchTemplateData"]["UserData"] == "IyE="
    first = ec2.describe_launch_template_versions(LaunchTemplateName="t-one", Versions=["1"])
    assert first["LaunchTemplateVersions"][0]["LaunchTemplateData"] == template_data(), "what went in comes out"
    both = ec2.describe_launch_template_versions(LaunchTemplateName="t-one")["LaunchTemplateVersions"]
    assert [v["VersionNumber"] for v in both] == [1, 2]

    found = ec2.describe_launch_templates(Filters=[{"Name": "tag:pinnace.dev/pool-uid", "Values": ["u-1"]}])
    assert [t["LaunchTemplateName"] for t in found["LaunchTemplates"]] == ["t-one"]
    none = ec2.describe_launch_templates(Filters=[{"Name": "tag:pinnace.dev/pool-uid", "Values": ["u-2"]}])
    assert none["LaunchTemplates"] == []
    ec2.create_tags(Resources=[made["LaunchTemplateId"]], Tags=[{"Key": "pinnace.dev/pool-uid", "Value": "u-2"}])
    moved = ec2.describe_launch_templates(LaunchTemplateNames=["t-one"])["LaunchTemplates"][0]
    assert {"Key": "pinnace.dev/pool-uid", "Value": "u-2"} in moved["Tags"]
    ec2.delete_tags(Resources=[made["LaunchTemplateId"]], Tags=[{"Key": "pinnace.dev/pool-uid"}])
    left = ec2.describe_launch_templates(LaunchTemplateNames=["t-one"])["LaunchTemplates"][0]["Tags"]
    assert [t["Key"] for t in left] == ["pinnace.dev/cluster"]

    ec2.delete_launch_template(LaunchTemplateId=made["LaunchTemplateId"])
    with pytest.raises(ClientError) as gone:
        ec2.describe_launch_templates(LaunchTemplateNames=["t-one"])
    assert code(gone) == "InvalidLaunchTemplateName.NotFoundException"
    with pytest.raises(ClientError) as gone:
        ec2.delete_launch_template(LaunchTemplateId=made["LaunchTemplateId"])
    assert code(gone) == "InvalidLaunchTemplateId.NotFound"


def test_pages(ec2):
    for n in range(5):
        create_template(ec2, f"page-{n}")
    pages = ec2.get_paginator("describe_launch_templates").paginate(PaginationConfig={"PageSize": 2})
    names = [t["LaunchTemplateName"] for page in pages for t in page["LaunchTemplates"]]
    assert sorted(names) == [f"page-{n}" for n in range(5)]
    for name in names:
        ec2.delete_launch_template(LaunchTemplateName=name)


def test_instances(sim, ec2):
    template = create_template(ec2, "with-instances")
    group = Group(sim, "pn-inst", launchTemplate={"id": template["LaunchTemplateId"], "version": "1"})
    ids = group.settle(2)
    filters = [{"Name": "tag:pinnace.dev/pool-uid", "Values": ["u-1"]}]
    reservations = ec2.describe_instances(Filters=filters)["Reservations"]
    instances = {i["InstanceId"]: i for r in reservations for i in r["Instances"]}
    assert set(instances) == set(ids)
    one = instances[ids[0]]
    assert one["State"] == {"Code": 16, "Name": "running"} and one["Placement"]["AvailabilityZone"] == "us-east-1a"
    assert one["PrivateDnsName"].endswith(".ec2.internal")
    assert {t["Key"] for t in one["Tags"]} >= set(tags()) | {"eks:nodegroup-name", "aws:autoscaling:groupName"}

    change = ec2.terminate_instances(InstanceIds=[ids[0]])["TerminatingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "shutting-down")
    replaced = lambda: len(group.in_service()) == 2 and ids[0] not in group.in_service()  # noqa: E731
    eventually(replaced, "the Auto Scaling group replaces what was ended behind its back")
    with pytest.raises(ClientError) as missing:
        ec2.terminate_instances(InstanceIds=["i-00000000000000000"])
    assert code(missing) == "InvalidInstanceID.NotFound"
    with pytest.raises(ClientError) as malformed:
        ec2.describe_instances(InstanceIds=["nonsense"])
    assert code(malformed) == "InvalidInstanceID.Malformed"
    group.delete()
    ec2.delete_launch_template(LaunchTemplateName="with-instances")


def test_unknown_actions_are_refused(ec2):
    with pytest.raises(ClientError) as refused:
        ec2.describe_volumes()
    assert code(refused) == "InvalidAction"
