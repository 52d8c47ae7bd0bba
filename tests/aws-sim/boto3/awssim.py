"""A running aws-sim seen from a test: boto3 clients, the control API, and node groups to play with."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3
from botocore import UNSIGNED
from botocore.config import Config

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parents[3]
sys.path.append(str(ROOT / "tests"))

from harness.ports import free_port  # noqa: E402

CLUSTER = "pinnace-sandbox"
ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/pinnace-gpu-node"


def binary() -> str:
    """AWS_SIM names a binary; otherwise cargo builds the one of this checkout."""
    if "AWS_SIM" in os.environ:
        return os.environ["AWS_SIM"]
    build = ["cargo", "build", "--package", "aws-sim", "--message-format", "json-render-diagnostics"]
    lines = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [m["executable"] for m in map(json.loads, lines) if m.get("executable")]
    return found[-1]


def eventually(check, what, seconds=30.0):
    """Polls until `check` returns something true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Sim:
    """A running simulator: clients by role, and its control API."""

    def __init__(self, url):
        self.url = url

    def client(self, service, key="AKIAADMIN", region="us-east-1", tries=2, read_timeout=20):
        retries = {"total_max_attempts": tries, "mode": "standard"}
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key="not-verified",
            config=Config(retries=retries, read_timeout=read_timeout),
        )

    def s3(self):
        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", config=Config(signature_version=UNSIGNED)
        )

    def control(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_sim/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def journal(self, since=0):
        return self.control("GET", f"journal?since={since}")

    def fault(self, kind, **fields):
        """Sets a fault; its number."""
        return self.control("POST", "faults", {"kind": kind, **fields})["id"]

    def faults(self):
        return self.control("GET", "faults")["faults"]

    def mark(self):
        return self.journal(2**40)["last"]


@contextlib.contextmanager
def start(executable, folder, more=()):
    """A simulator at 600 times the speed of the clock, on a free loopback port."""
    listen = f"127.0.0.1:{free_port()}"
    policy = ROOT / "terraform/modules/operator-iam/policy.json"
    command = [executable, "serve", "--listen", listen, "--iam-policy", str(policy), "--time-scale", "600", *more]
    log = folder / "aws-sim.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out)
    running = Sim(f"http://{listen}")

    def healthy():
        assert process.poll() is None, log.read_text()
        try:
            return running.control("GET", "health")["status"] == "ok"
        except (urllib.error.URLError, ConnectionError):
            return False

    try:
        eventually(healthy, "the simulator answers")
        yield running
    finally:
        process.terminate()
        process.wait(timeout=10)


def tags(**more):
    return {"pinnace.dev/cluster": CLUSTER, "pinnace.dev/pool-uid": "u-1", **more}


def template_data():
    listed = [{"Key": k, "Value": v} for k, v in tags().items()]
    return {
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeType": "gp3", "VolumeSize": 100, "Encrypted": True}}
        ],
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": listed},
            {"ResourceType": "volume", "Tags": listed},
        ],
    }


def create_template(client, name, **more):
    listed = [{"Key": k, "Value": v} for k, v in tags().items()]
    return client.create_launch_template(
        LaunchTemplateName=name,
        LaunchTemplateData=template_data(),
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": listed}],
        **more,
    )["LaunchTemplate"]


def nodegroup(name, **more):
    """Parameters of a valid CreateNodegroup."""
    return {
        "clusterName": CLUSTER,
        "nodegroupName": name,
        "subnets": ["subnet-0a1"],
        "nodeRole": ROLE,
        "instanceTypes": ["g5.xlarge"],
        "amiType": "AL2023_x86_64_NVIDIA",
        "capacityType": "ON_DEMAND",
        "scalingConfig": {"minSize": 0, "maxSize": 450, "desiredSize": 0},
        "labels": {"pinnace.dev/pool": "g5"},
        "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}],
        "tags": tags(),
        **more,
    }


class Group:
    """A node group that is ACTIVE, and its Auto Scaling group."""

    def __init__(self, sim, name, create=True, **more):
        self.sim, self.name = sim, name
        self.eks, self.scaling = sim.client("eks"), sim.client("autoscaling")
        if create:
            self.eks.create_nodegroup(**nodegroup(name, **more))
        eventually(lambda: self.describe()["status"] == "ACTIVE", f"{name} is ACTIVE")
        self.asg = self.describe()["resources"]["autoScalingGroups"][0]["name"]

    def describe(self):
        return self.eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName=self.name)["nodegroup"]

    def members(self):
        groups = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.asg])
        return groups["AutoScalingGroups"][0]["Instances"] if groups["AutoScalingGroups"] else []

    def in_service(self):
        return [i["InstanceId"] for i in self.members() if i["LifecycleState"] == "InService"]

    def resize(self, desired):
        self.scaling.set_desired_capacity(AutoScalingGroupName=self.asg, DesiredCapacity=desired)

    def settle(self, desired):
        """Resizes and waits until exactly so many instances are left, all in service."""
        self.resize(desired)
        done = lambda: len(self.members()) == desired == len(self.in_service())  # noqa: E731
        eventually(done, f"{self.name} has {desired} instances")
        return self.in_service()

    def delete(self):
        self.eks.delete_nodegroup(clusterName=CLUSTER, nodegroupName=self.name)
        gone = lambda: self.name not in self.eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]  # noqa: E731
        eventually(gone, f"{self.name} is gone")
