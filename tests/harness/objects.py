"""Pools and models as the tests apply them: small, valid, and with waits of seconds."""

from .base import NODE_ROLE, ZONES

API = "pinnace.dev/v1alpha1"
NAMESPACE = "recsys"
POOL, MODEL = "g5", "ranker"


def pool(name: str = POOL, annotations: dict | None = None, **spec) -> dict:
    full = {
        "purpose": "Inference",
        "instanceTypes": ["g5.xlarge"],
        "subnetIds": list(ZONES),
        "nodeRole": NODE_ROLE,
        "image": {"family": "Al2023Nvidia", "releaseVersion": "1.34.2-20261101"},
        # As many real GPU nodes as the sandbox has; on others nothing answers.
        "limits": {"maxNodes": 4},
        "deletionPolicy": "Delete",
        "namespaceSelector": {},
    }
    metadata = {"name": name} | ({"annotations": annotations} if annotations else {})
    return {"apiVersion": API, "kind": "GpuPool", "metadata": metadata, "spec": full | spec}


def model(name: str = MODEL, uri: str = "s3://models/small-ranker", version: str = "1", digest=None, **spec) -> dict:
    full = {
        "model": {"uri": uri, "version": version} | ({"digest": digest} if digest else {}),
        "runtime": {"resources": {"gpus": 1, "cpu": "250m", "memory": "512Mi"}, "drainTimeout": "10s"},
        "replicas": 1,
        "placement": [{"pool": POOL}],
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": API, "kind": "ModelDeployment", "metadata": metadata, "spec": full | spec}


RATE = {"name": "rate", "type": "RequestRate", "requestRate": {"targetPerReplica": 100}}
QUEUE = {"name": "queue", "type": "QueueDelay", "queueDelay": {"target": "20ms"}}
GPU = {"name": "gpu", "type": "GpuUtilization", "gpuUtilization": {"targetPercent": 60}}


def scaled(minimum: int, maximum: int, metrics: list[dict], down: str = "10s", **spec) -> dict:
    """A model whose number of replicas follows metrics, down after seconds instead of minutes."""
    made = model(**spec)
    del made["spec"]["replicas"]
    made["spec"]["autoscaling"] = {
        "minReplicas": minimum,
        "maxReplicas": maximum,
        "metrics": metrics,
        "stabilization": {"scaleUp": "0s", "scaleDown": down},
    }
    return made
