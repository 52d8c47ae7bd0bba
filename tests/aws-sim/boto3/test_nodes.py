"""What becomes of nodes: the control socket while it has room, else Node objects. Both are fakes here; the end-to-end
tests run against the real ones."""

from awssim import Group, eventually
from fake_cluster import gpus


def test_real_nodes_first_then_simulated_ones(world):
    sim, api, control = world
    group = Group(sim, "pn-nodes")
    ids = group.settle(2)
    with_gpus = lambda: len(api.nodes) == 2 and all(gpus(n) == "1" for n in list(api.nodes.values()))  # noqa: E731
    eventually(with_gpus, "both nodes show their GPU")
    (real,) = control.running.values()
    assert real["labels"]["pinnace.dev/pool"] == "g5"
    assert real["labels"]["eks.amazonaws.com/nodegroup"] == "pn-nodes"
    assert real["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert {n["spec"]["providerID"] for n in api.nodes.values()} == {f"aws:///us-east-1a/{i}" for i in ids}
    assert "kwok.x-k8s.io/node" not in api.nodes[real["name"]]["metadata"]["labels"]

    (fake,) = [n for name, n in api.nodes.items() if name != real["name"]]
    assert fake["metadata"]["labels"]["kwok.x-k8s.io/node"] == "fake"
    assert fake["status"]["conditions"][0]["status"] == "True"
    assert fake["status"]["allocatable"]["cpu"] == "3920m" and fake["status"]["allocatable"]["memory"] == "14162Mi"
    assert fake["metadata"]["labels"]["topology.kubernetes.io/zone"] == "us-east-1a"

    group.settle(0)
    eventually(lambda: not api.nodes and not control.running, "nodes and their objects are gone")
    group.delete()


def test_an_object_left_by_an_earlier_account_is_replaced(world):
    sim, api, control = world
    control.running["taken"] = {}
    name = "ip-10-1-0-4.ec2.internal"
    api.nodes[name] = {"metadata": {"name": name, "uid": "old"}, "spec": {"providerID": "aws:///us-east-1a/i-old"}}
    group = Group(sim, "pn-left")
    (one,) = group.settle(1)
    # For a moment the old object is gone and the new one is not there yet.
    replaced = lambda: name in api.nodes and api.nodes[name]["spec"]["providerID"].endswith(one)  # noqa: E731
    eventually(replaced, "the Node is the instance's")
    eventually(lambda: gpus(api.nodes[name]) == "1", "its GPU shows")
