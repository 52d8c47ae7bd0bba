import json
import threading
import urllib.error

import pytest
from awssim import CLUSTER, Group, eventually, nodegroup


def test_the_journal_has_every_call(sim, eks):
    mark = sim.mark()
    eks.describe_cluster(name=CLUSTER)
    eks.create_nodegroup(**nodegroup("pn-journal"))
    with pytest.raises(eks.exceptions.ResourceInUseException):
        eks.create_nodegroup(**nodegroup("pn-journal"))
    read, made, again = sim.journal(mark)["entries"]
    assert (read["action"], read["mutation"], read["outcome"]) == ("DescribeCluster", False, "OK")
    assert (made["action"], made["mutation"], made["outcome"]) == ("CreateNodegroup", True, "OK")
    assert made["parameters"]["nodegroupName"] == "pn-journal" and made["principal"] == "AKIAADMIN"
    assert (again["outcome"], again["status"]) == ("ResourceInUseException", 409)
    assert [e["n"] for e in (read, made, again)] == [mark + 1, mark + 2, mark + 3]
    mutations = sim.control("GET", f"journal?since={mark}&mutation=true")["entries"]
    assert [e["action"] for e in mutations] == ["CreateNodegroup", "CreateNodegroup"]


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_held_call_waits_before_or_after_it_is_done(sim, eks, point):
    name = f"pn-held-{point}"
    sim.control("POST", "holds", {"action": "CreateNodegroup", "point": point, "count": 1})
    caller = threading.Thread(target=lambda: sim.client("eks").create_nodegroup(**nodegroup(name)))
    caller.start()
    eventually(lambda: sim.control("GET", "holds")["held"], "the call is held")
    (held,) = sim.control("GET", "holds")["held"]
    assert (held["action"], held["point"]) == ("CreateNodegroup", point)
    exists = name in eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]
    assert exists == (point == "after")
    assert caller.is_alive()
    assert sim.control("DELETE", "holds")["released"] == 1
    caller.join(timeout=10)
    assert name in eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]


def test_a_caller_killed_while_held_before_has_done_nothing(sim, eks):
    import http.client

    sim.control("POST", "holds", {"action": "CreateNodegroup", "point": "before"})
    body = {k: v for k, v in nodegroup("pn-killed").items() if k != "clusterName"}
    scope = "AWS4-HMAC-SHA256 Credential=AKIAADMIN/20261124/us-east-1/eks/aws4_request, SignedHeaders=host, Signature=0"
    connection = http.client.HTTPConnection(sim.url.removeprefix("http://"))
    connection.request("POST", f"/clusters/{CLUSTER}/node-groups", json.dumps(body), {"Authorization": scope})
    eventually(lambda: sim.control("GET", "holds")["held"], "the call is held")
    connection.close()
    eventually(lambda: not sim.control("GET", "holds")["held"], "the caller is gone")
    assert sim.control("DELETE", "holds")["released"] == 0
    assert "pn-killed" not in eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]


def test_no_capacity_and_its_return(sim, autoscaling):
    where = {"type": "g5.2xlarge", "zone": "us-east-1b", "purchase": "OnDemand"}
    sim.control("PUT", "capacity", {**where, "available": 1})
    group = Group(sim, "pn-capacity", instanceTypes=["g5.2xlarge"], subnets=["subnet-0b2"])
    group.resize(3)

    def failed():
        activities = autoscaling.describe_scaling_activities(AutoScalingGroupName=group.asg)["Activities"]
        return [a for a in activities if a["StatusCode"] == "Failed"]

    activity = eventually(failed, "a launch fails")[0]
    assert "InsufficientInstanceCapacity" in activity["StatusMessage"]
    assert "g5.2xlarge" in activity["StatusMessage"] and "us-east-1b" in activity["StatusMessage"]
    assert len(group.members()) == 1
    issues = eventually(lambda: group.describe()["health"]["issues"], "the group is DEGRADED in the end")
    assert group.describe()["status"] == "DEGRADED" and issues[0]["code"] == "AsgInstanceLaunchFailures"
    sim.control("PUT", "capacity", {**where, "available": None})
    eventually(lambda: len(group.in_service()) == 3, "the Auto Scaling group keeps trying")
    assert group.describe()["status"] == "ACTIVE"
    group.delete()


def test_inventory_and_ledger(sim):
    group = Group(sim, "pn-ledger")
    (one,) = group.settle(1)
    inventory = sim.control("GET", "inventory")
    (instance,) = [i for i in inventory["instances"] if i["id"] == one]
    assert instance["state"] == "running" and instance["providerId"] == f"aws:///us-east-1a/{one}"
    assert "pn-ledger" in [g["name"] for g in inventory["groups"]]
    assert {"scalingGroups", "templates"} <= set(inventory)
    ledger = sim.control("GET", "ledger")
    assert ledger["rateUsdPerHour"] == pytest.approx(1.006)
    (line,) = [i for i in ledger["instances"] if i["instanceId"] == one]
    assert line["usdPerHour"] == 1.006 and line["to"] is None and line["from"] > 0
    group.settle(0)
    after = sim.control("GET", "ledger")
    (line,) = [i for i in after["instances"] if i["instanceId"] == one]
    assert after["rateUsdPerHour"] == 0
    assert line["usd"] == pytest.approx(1.006 * max(60, line["to"] - line["from"]) / 3600)
    group.delete()


def test_bad_orders_are_refused(sim):
    for method, path, body in [
        ("PUT", "capacity", {"type": "g9.huge", "zone": "us-east-1a", "available": 0}),
        ("PUT", "capacity", {"type": "g5.xlarge", "zone": "mars", "available": 0}),
        ("POST", "holds", {"action": "CreateNodegroup", "point": "during"}),
        ("GET", "journal?since=x", None),
        ("GET", "nothing", None),
    ]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            sim.control(method, path, body)
        assert refused.value.code in (400, 404)
