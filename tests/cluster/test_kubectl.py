"""What people do with kubectl and helm."""

from harness import install, objects
from harness.base import eventually

NAMESPACE, MODEL = objects.NAMESPACE, objects.MODEL


def test_kubectl_behaves_as_expected(stack, team):
    kube = stack.kube
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
    # The last transitions may still be on their way.
    team.model_condition("Reconciling", "False")
    team.pool_condition("Reconciling", "False")
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
