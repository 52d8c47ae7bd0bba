"""Nodes without machines, and replicas without containers: for hundreds of them."""

from .kube import Kube
from .objects import NAMESPACE

GPU = "nvidia.com/gpu"
# What aws-sim makes of a g5.xlarge that has no room among the real nodes.
SIZE = {"cpu": "3920m", "memory": "14162Mi", "pods": "58", GPU: "1"}
TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
LABEL = "pinnace.dev/test-fleet"


class Fleet:
    """KWOK nodes with a GPU each, and a Deployment whose pods carry the labels of a model's."""

    def __init__(self, kube: Kube, model: str):
        self.kube, self.model = kube, model
        self.selector = f"{LABEL}={model}"

    @property
    def key(self) -> str:
        """Of the model in a load script."""
        return f"{NAMESPACE}/{self.model}"

    def add_nodes(self, count: int):
        """Registers them first and hands them to kwok then, as aws-sim does."""
        for number in range(count):
            name = f"{self.model}-{number}.kwok"
            labels = {LABEL: self.model, "kubernetes.io/hostname": name}
            self.kube.create(
                "/api/v1/nodes",
                {
                    "metadata": {"name": name, "labels": labels},
                    "spec": {"taints": [TAINT]},
                    "status": {"capacity": SIZE, "allocatable": SIZE},
                },
            )
        self.kube("label", "nodes", "-l", self.selector, "kwok.x-k8s.io/node=fake")

    def deploy(self, replicas: int, revision: str = "r1"):
        labels = {"app.kubernetes.io/name": "pinnace-runtime", "pinnace.dev/model": self.model}
        container = {
            "name": "runtime",
            "image": "localhost/pinnace-runtime:dev",
            "resources": {"limits": {GPU: "1"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "nodeSelector": {LABEL: self.model},
            "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
            "containers": [container],
        }
        template = {"metadata": {"labels": labels, "annotations": {"pinnace.dev/revision": revision}}, "spec": spec}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"namespace": NAMESPACE, "name": self.model},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        }
        self.kube.apply(deployment)

    def scale(self, replicas: int):
        self.kube("scale", "-n", NAMESPACE, f"deploy/{self.model}", f"--replicas={replicas}")

    def nodes(self) -> list[dict]:
        """Those that are Ready."""
        return [node for node in self.kube.items("/api/v1/nodes", self.selector) if ready(node)]

    def ready_replicas(self) -> int:
        """As the Deployment counts; asking for hundreds of pods again and again would cost more than they do."""
        found = self.kube.find(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{self.model}")
        return found["status"].get("readyReplicas", 0) if found else 0

    def addresses(self) -> dict[str, str]:
        """Of the pods that are Ready, by their name."""
        pods = [pod for pod in self.kube.pods(NAMESPACE, self.model) if ready(pod)]
        return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}

    def delete(self):
        self.kube("delete", "deploy", self.model, "-n", NAMESPACE, "--ignore-not-found", "--cascade=foreground")
        self.kube("delete", "nodes", "-l", self.selector)


def ready(item: dict) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
