"""What kubectl says of the kinds, and what the operator may do."""

import pytest
from harness import objects
from harness.beside import ACCOUNT

FORBIDDEN = [
    ("get", "secrets"), ("list", "secrets"), ("create", "pods"), ("create", "pods/exec"), ("delete", "nodes"),
    ("create", "clusterrolebindings"), ("update", "gpools"), ("delete", "gpools"), ("impersonate", "users"),
    ("delete", "namespaces"), ("create", "serviceaccounts/token"),
]  # fmt: skip


def test_the_kinds_explain_themselves(beside):
    kube = beside.kube
    assert "Pools that may hold replicas" in kube("explain", "mdep.spec.placement")
    assert "FIELDS" in kube("explain", "mdep.spec") and "instanceTypes" in kube("explain", "gpool.spec")


@pytest.mark.parametrize(("verb", "resource"), FORBIDDEN)
def test_the_operator_may_not(beside, verb, resource):
    # "pods/exec" would be read as the pod called exec.
    resource, _, subresource = resource.partition("/")
    words = ["auth", "can-i", verb, resource, "--as", ACCOUNT, "-A"]
    words += [f"--subresource={subresource}"] if subresource else []
    assert beside.kube(*words, check=False).strip() == "no"


def test_the_operator_may_what_it_does(beside):
    for verb, resource in (("patch", "nodes"), ("list", "pods"), ("create", "deployments.apps")):
        assert beside.kube("auth", "can-i", verb, resource, "--as", ACCOUNT, "-A", check=False).strip() == "yes"
