"""Images, charts, and the operator in the cluster."""

import json
import pathlib
import subprocess
import sys

from .base import CACHE, CLUSTER, OPERATOR_KEY, REGION, ROOT, eventually, run
from .kube import Kube
from .sandbox import Sandbox

NAMESPACE = "pinnace-system"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
# Waits that are minutes in production, and would be the longest part of a test.
SECONDS = {"cloudPoll": "1s", "loadPeriod": "1s", "nodeIdle": "5s", "sweepAfter": "60s", "absentTwice": "5s", "inventoryMaxAge": "30s"}


def values(sandbox: Sandbox, **operator) -> dict:
    """Values of the chart for the sandbox; `operator` overrides what stands under that key."""
    return {
        "image": {"repository": "localhost/pinnace-operator", "tag": "dev"},
        "runtimeImage": "localhost/pinnace-runtime:dev",
        "allowedRuntimeImages": ["localhost/"],
        "runtimeEnv": {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": sandbox.aws_url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_SKIP_SIGNATURE": "true",
        },
        "cluster": {"name": CLUSTER, "region": REGION},
        "awsEndpointUrl": sandbox.aws_url,
        "operator": SECONDS | {"logFormat": "json"} | operator,
        "extraEnv": [
            {"name": "AWS_ACCESS_KEY_ID", "value": OPERATOR_KEY},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": "anything"},
        ],
        "nodeSelector": {"pinnace.dev/sandbox-system": "true"},
        "networkPolicy": {"egressPorts": [443, 6443, 4566]},
    }


def load_images(sandbox: Sandbox):
    """Builds the images that are not current, and imports them into the nodes, those that come later included."""
    for path in run(ROOT / "tests/tools/images").split():
        sandbox.load(pathlib.Path(path))


def helm(sandbox: Sandbox, *words) -> str:
    return run(CACHE / "bin" / "helm", *words, env={"KUBECONFIG": str(sandbox.kubeconfig)})


def make_namespace(kube: Kube, name: str, **labels):
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED | labels}})


def install_crds(sandbox: Sandbox):
    helm(sandbox, "upgrade", "--install", "pinnace-crds", ROOT / "charts/pinnace-crds")


def install_operator(sandbox: Sandbox, kube: Kube, **operator):
    """Installs or upgrades, and waits until all its pods are ready."""
    make_namespace(kube, NAMESPACE)
    file = sandbox.data / "values.json"
    file.write_text(json.dumps(values(sandbox, **operator)))
    helm(
        sandbox, "upgrade", "--install", "pinnace", ROOT / "charts/pinnace", "--namespace", NAMESPACE,
        "--values", file, "--wait", "--timeout", "3m",
    )  # fmt: skip
    eventually(lambda: leader(kube), "a pod of the operator leads")


def operator_pods(kube: Kube) -> list[dict]:
    return kube.items(f"/api/v1/namespaces/{NAMESPACE}/pods", "app.kubernetes.io/name=pinnace")


def leader(kube: Kube) -> dict | None:
    """The pod that holds the lease, if it is alive."""
    lease = kube.find(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/pinnace-operator")
    holder = lease["spec"].get("holderIdentity") if lease else None
    alive = [p for p in operator_pods(kube) if not p["metadata"].get("deletionTimestamp")]
    return next((p for p in alive if p["metadata"]["name"] == holder), None)


def make_model(folder: pathlib.Path, *flags: str) -> str:
    """Writes the small ranker and returns its digest."""
    return run(sys.executable, ROOT / "tests/models/make_small_ranker.py", folder, *flags).strip()


def operator_log(kube: Kube, lines: int = 40) -> str:
    words = ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=pinnace", f"--tail={lines}", "--prefix"]
    try:
        return kube(*words, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return repr(error)
