"""What people do with kubectl and helm, and what the operator may not do."""

import pytest
from harness import install, objects
from harness.base import eventually
from harness.stack import ACCOUNT

NAMESPACE, MODEL = objects.NAMESPACE, objects.MODEL
FORBIDDEN = [
    ("get", "secrets"), ("list", "secrets"), ("create", "pods"), ("create", "pods/exec"), ("delete", "nodes"),
    ("create", "clusterrolebindings"), ("update", "gpools"), ("delete", "gpools"), ("impersonate", "users"),
    ("delete", "namespaces"), ("create", "serviceaccounts/token"),
]  # fmt: skip


def test_kubectl_behaves_as_expected(stack, team):
    kube = stack.kube
    assert "Pools that may hold replicas" in kube("explain", "mdep.spec.placement")
    assert "FIELDS" in kube("explain", "mdep.spec") and "instanceTypes" in kube("explain", "gpool.spec")
    team.apply(objects.pool(), objects.model())
    kube("wait", f"mdep/{MODEL}", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=120s")
    kube("wait", f"gpool/{objects.POOL}", "--for=condition=Ready", "--timeout=60s")
    table = kube("get", "mdep,gpool", "-A")
    for column in ("READY", "REASON", "DESIRED", "READY-REPLICAS", "NODES", "VERSION", "USD/H", "AGE"):
        assert column in table, table
    assert MODEL in kube("get", "pinnace", "-n", NAMESPACE)
    kube("scale", f"mdep/{MODEL}", "-n", NAMESPACE, "--replicas=2")
    team.settle(2)
    scale = kube("get", "--raw", f"/apis/pinnace.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments/{MODEL}/scale")
    assert '"replicas":2' in scale and f"pinnace.dev/model={MODEL}" in scale


def test_an_upgrade_that_changes_nothing_does_nothing(stack, team):
    team.serve()
    runtime = {pod["metadata"]["uid"] for pod in stack.kube.pods(NAMESPACE, MODEL)}
    operator = {pod["metadata"]["uid"] for pod in install.operator_pods(stack.kube)}
    calls, writes = stack.aws.mark(), stack.writes()
    install.install_operator(stack.sandbox, stack.kube)
    stack.kube("rollout", "restart", "-n", install.NAMESPACE, "deploy/pinnace")
    stack.kube("rollout", "status", "-n", install.NAMESPACE, "deploy/pinnace", "--timeout=2m")
    team.settle(1)
    assert {pod["metadata"]["uid"] for pod in stack.kube.pods(NAMESPACE, MODEL)} == runtime
    replaced = lambda: not {pod["metadata"]["uid"] for pod in install.operator_pods(stack.kube)} & operator  # noqa: E731
    eventually(replaced, "the pods of the operator are new ones")
    assert stack.aws.mutations(calls) == [] and stack.writes()[len(writes) :] == []


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN)
def test_the_operator_may_not(stack, verb, resource):
    # "pods/exec" would be read as the pod called exec.
    resource, _, subresource = resource.partition("/")
    words = ["auth", "can-i", verb, resource, "--as", ACCOUNT, "-A"]
    words += [f"--subresource={subresource}"] if subresource else []
    assert stack.kube(*words, check=False).strip() == "no"


def test_the_operator_may_what_it_does(stack):
    for verb, resource in (("patch", "nodes"), ("list", "pods"), ("create", "deployments.apps")):
        assert stack.kube("auth", "can-i", verb, resource, "--as", ACCOUNT, "-A", check=False).strip() == "yes"
