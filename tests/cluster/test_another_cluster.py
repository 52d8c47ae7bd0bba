"""The tests that need no containers also run on the cluster that KUBECONFIG points to (kind, k3d, EKS)."""

import os
import subprocess
import sys

from harness import install
from harness.base import ROOT, eventually

# Those on faults of AWS and of operators take minutes, and look at the cluster no closer than these.
TESTS = [ROOT / "tests/api" / f"test_{name}.py" for name in ("admission", "chart", "kubectl")]
TESTS.append(f"{ROOT}/tests/api/test_operator.py::test_nodes_are_bought_and_returned")


def test_api_tests_run_on_the_cluster_of_kubeconfig(stack, team):
    kube = stack.kube
    kube("scale", "-n", install.NAMESPACE, "deploy/pinnace", "--replicas=0")
    eventually(lambda: not install.operator_pods(kube), "no operator runs in the cluster")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
            env=os.environ | {"KUBECONFIG": str(stack.sandbox.kubeconfig)}, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        install.install_operator(stack.sandbox, kube)
    assert done.returncode == 0, done.stdout[-4000:]
