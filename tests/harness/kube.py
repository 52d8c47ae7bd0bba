"""The cluster as a user sees it (kubectl), and as a program does (its API)."""

import base64
import json
import pathlib

import yaml

from .base import eventually, run, session

MODELS = "/apis/pinnace.dev/v1alpha1/namespaces/{}/modeldeployments"
POOLS = "/apis/pinnace.dev/v1alpha1/gpupools"


class Kube:
    """`site`: a Sandbox or an ApiServer: its kubeconfig, and the binary that is kubectl."""

    def __init__(self, site):
        self.site = site
        config = yaml.safe_load(site.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = cluster["server"].rstrip("/")
        self.session = session()
        if "certificate-authority-data" not in cluster and "certificate-authority" not in cluster:
            # A proxy on this machine.
            return
        folder = site.data / "harness"
        folder.mkdir(exist_ok=True)
        self.session.verify = material(cluster, "certificate-authority", folder / "ca.crt")
        self.session.cert = (
            material(user, "client-certificate", folder / "client.crt"),
            material(user, "client-key", folder / "client.key"),
        )

    def copy(self) -> "Kube":
        """For another thread: a session is not for several at once."""
        return Kube(self.site)

    def __call__(self, *words, text: str | None = None, check: bool = True) -> str:
        """kubectl WORDS"""
        return run(self.site.binary, "kubectl", f"--kubeconfig={self.site.kubeconfig}", *words, text=text, check=check)

    def apply(self, *objects: dict, dry_run: bool = False) -> str:
        more = ["--dry-run=server"] if dry_run else []
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self("apply", "--server-side", "--validate=strict", *more, "-f", "-", text=text)

    def get(self, path: str, **query) -> dict:
        answer = self.session.get(self.server + path, params=query, timeout=20)
        answer.raise_for_status()
        return answer.json()

    def items(self, path: str, selector: str = "") -> list[dict]:
        return self.get(path, **({"labelSelector": selector} if selector else {}))["items"]

    def find(self, path: str) -> dict | None:
        """The object, or None when there is none."""
        answer = self.session.get(self.server + path, timeout=20)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return answer.json()

    def create(self, path: str, item: dict):
        """With its status, where the API server takes one on creation, as it does for nodes."""
        self.session.post(self.server + path, json=item, timeout=20).raise_for_status()

    def model(self, namespace: str, name: str) -> dict | None:
        return self.find(f"{MODELS.format(namespace)}/{name}")

    def pool(self, name: str) -> dict | None:
        return self.find(f"{POOLS}/{name}")

    def gpu_nodes(self, pool: str | None = None) -> list[dict]:
        return self.items("/api/v1/nodes", f"pinnace.dev/pool={pool}" if pool else "pinnace.dev/pool")

    def pods(self, namespace: str, model: str) -> list[dict]:
        return self.items(f"/api/v1/namespaces/{namespace}/pods", f"pinnace.dev/model={model}")

    def service_address(self, namespace: str, model: str) -> str:
        service = self.find(f"/api/v1/namespaces/{namespace}/services/{model}")
        assert service, f"Service {namespace}/{model} does not exist"
        return f"{service['spec']['clusterIP']}:8000"

    def endpoints(self, namespace: str, model: str) -> list[str]:
        """Addresses of the replicas that take requests now, as a gateway would know them."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        slices = self.items(path, f"kubernetes.io/service-name={model}")
        ready = [e for s in slices for e in s["endpoints"] or [] if e.get("conditions", {}).get("ready")]
        return [f"{endpoint['addresses'][0]}:8000" for endpoint in ready]

    def wait_condition(self, read, type_: str, status: str, reason: str | None = None, seconds: float = 60) -> dict:
        """Waits for a condition that speaks of the newest spec, and returns it."""

        def check():
            found = condition(read(), type_)
            assert found and found["status"] == status and reason in (None, found["reason"]), found
            return found

        return eventually(check, f"{type_}={status} {reason or ''}", seconds)

    def leftovers(self, namespaces: list[str]) -> dict:
        """What the operator made and did not take away, by kind, without empty kinds."""
        paths = {"nodes": "/api/v1/nodes?labelSelector=pinnace.dev/pool", "pools": POOLS}
        for namespace in namespaces:
            of = f"namespaces/{namespace}"
            managed = "?labelSelector=app.kubernetes.io/managed-by%3Dpinnace"
            paths |= {
                f"{namespace}: models": MODELS.format(namespace),
                f"{namespace}: pods": f"/api/v1/{of}/pods",
                f"{namespace}: services": f"/api/v1/{of}/services{managed}",
                f"{namespace}: accounts": f"/api/v1/{of}/serviceaccounts{managed}",
                f"{namespace}: deployments": f"/apis/apps/v1/{of}/deployments{managed}",
                f"{namespace}: budgets": f"/apis/policy/v1/{of}/poddisruptionbudgets{managed}",
                f"{namespace}: policies": f"/apis/networking.k8s.io/v1/{of}/networkpolicies{managed}",
            }
        found = {kind: [item["metadata"]["name"] for item in self.get(path)["items"]] for kind, path in paths.items()}
        return {kind: names for kind, names in found.items() if names}


def condition(item: dict | None, type_: str) -> dict | None:
    """A condition, if it speaks of the newest spec."""
    for found in ((item or {}).get("status") or {}).get("conditions", []):
        if found["type"] == type_ and found.get("observedGeneration") == item["metadata"]["generation"]:
            return found
    return None


def is_true(item: dict | None, type_: str) -> bool:
    found = condition(item, type_)
    return bool(found) and found["status"] == "True"


def material(section: dict, name: str, path: pathlib.Path) -> str:
    """A file of the kubeconfig, which holds it or names it."""
    if name in section:
        return section[name]
    path.write_bytes(base64.b64decode(section[f"{name}-data"]))
    path.chmod(0o600)
    return str(path)
