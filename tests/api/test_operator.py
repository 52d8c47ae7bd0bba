"""The operator against an API server: nodes are objects that the simulated account makes, and no pod ever runs."""

import pytest
from harness import objects
from harness.base import eventually
from harness.kube import condition

CHILDREN = ("deployments", "services", "poddisruptionbudgets", "serviceaccounts", "networkpolicies")
MANAGED = "app.kubernetes.io/managed-by=pinnace"
MODEL, POOL, NAMESPACE = objects.MODEL, objects.POOL, objects.NAMESPACE


@pytest.fixture
def operator(beside):
    """Whatever a test started is ended, and nothing of its objects is left in AWS."""
    yield beside
    beside.start()
    beside.kube("delete", "mdep", "--all", "-n", NAMESPACE, "--timeout=60s")
    beside.kube("delete", "gpool", "--all", "--timeout=120s")

    def nothing_left():
        assert not beside.aws.left() and not beside.kube.gpu_nodes(), beside.aws.left()
        return True

    eventually(nothing_left, "nothing is left in AWS", 60)
    beside.stop()
    # An API server alone has no garbage collector.
    beside.kube("delete", ",".join(CHILDREN), "-n", NAMESPACE, "-l", MANAGED)


def nodes(beside, count: int, seconds: float = 60):
    """Waits for so many Nodes with GPUs, each of a running instance."""

    def check():
        found = beside.kube.gpu_nodes(POOL)
        gpus = [node["status"]["allocatable"].get("nvidia.com/gpu") for node in found]
        assert gpus == ["1"] * count and len(beside.aws.instances()) == count, (gpus, beside.aws.instances())
        return found

    return eventually(check, f"{count} nodes with a GPU each", seconds)


def apply(beside, replicas: int = 1):
    beside.kube.apply(objects.pool(), objects.model(replicas=replicas))


def scale(beside, replicas: int):
    beside.kube("scale", "-n", NAMESPACE, f"mdep/{MODEL}", f"--replicas={replicas}")


def test_nodes_are_bought_and_returned(operator):
    operator.start()
    apply(operator)
    nodes(operator, 1)
    scale(operator, 3)
    nodes(operator, 3)
    scale(operator, 1)
    nodes(operator, 1)
    assert operator.kube.pool(POOL)["status"]["hourlyUsd"]


def test_dry_run_plans_and_changes_nothing(operator):
    apply(operator)
    calls = operator.aws.mark()
    before = [operator.kube.model(NAMESPACE, MODEL), operator.kube.pool(POOL)]
    operator.start("--dry-run")
    operator.plans(20)
    assert operator.aws.mutations(calls) == []
    assert [operator.kube.model(NAMESPACE, MODEL), operator.kube.pool(POOL)] == before
    assert operator.kube("get", ",".join(CHILDREN), "-n", NAMESPACE, "-l", MANAGED, "-o", "name") == ""
    # It says what it would do.
    assert "planned" in operator.site.log("operator")


def test_without_cloud_mutations_nothing_is_bought(operator):
    operator.start("--cloud-mutations=None")
    apply(operator)
    calls = operator.aws.mark()
    withheld = operator.kube.wait_condition(lambda: operator.kube.pool(POOL), "CapacityReady", "False", "CloudMutationsOff")
    assert "--cloud-mutations" in withheld["message"]
    operator.plans(10)
    assert operator.aws.mutations(calls) == []
    # The same objects, with the brake released.
    operator.start()
    nodes(operator, 1)


def test_with_grow_only_nothing_is_returned(operator):
    operator.start("--cloud-mutations=GrowOnly")
    apply(operator, replicas=2)
    nodes(operator, 2)
    calls = operator.aws.mark()
    scale(operator, 1)
    wanted = lambda: operator.kube.pool(POOL)["status"]["nodes"]["desired"] == 1  # noqa: E731
    eventually(wanted, "one node is wanted")
    operator.plans(20)
    assert operator.aws.mutations(calls) == [] and len(operator.aws.instances()) == 2
    assert not any(node["spec"].get("unschedulable") for node in operator.kube.gpu_nodes(POOL))
    operator.start()
    nodes(operator, 1)


def test_an_object_that_somebody_else_made_is_not_taken_over(operator):
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": MODEL, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }  # fmt: skip
    operator.kube.apply(service)
    operator.start()
    apply(operator)
    read = lambda: operator.kube.model(NAMESPACE, MODEL)  # noqa: E731
    message = operator.kube.wait_condition(read, "Ready", "False", "NameTaken")["message"]
    assert f"Service {NAMESPACE}/{MODEL}" in message
    theirs = operator.kube.find(f"/api/v1/namespaces/{NAMESPACE}/services/{MODEL}")
    assert theirs["spec"]["selector"] == {"app": "theirs"}
    operator.kube("delete", "service", MODEL, "-n", NAMESPACE)
    eventually(lambda: (condition(read(), "Ready") or {}).get("reason") != "NameTaken", "it heals", 90)


def test_a_second_budget_on_the_pods_is_named(operator):
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "theirs", "namespace": NAMESPACE},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"pinnace.dev/model": MODEL}}},
    }  # fmt: skip
    operator.kube.apply(budget)
    operator.start()
    apply(operator)
    read = lambda: operator.kube.model(NAMESPACE, MODEL)  # noqa: E731
    assert "theirs" in operator.kube.wait_condition(read, "Accepted", "True", "PdbConflict")["message"]
    operator.kube("delete", "pdb", "theirs", "-n", NAMESPACE)
    operator.kube.wait_condition(read, "Accepted", "True", "Accepted")
