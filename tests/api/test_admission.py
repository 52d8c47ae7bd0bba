"""What the API server refuses, with the field named."""

import copy

import pytest
from harness import objects

RATE = {"name": "rate", "type": "RequestRate", "requestRate": {"targetPerReplica": 100}}


def autoscaling(**change) -> dict:
    return {"minReplicas": 1, "maxReplicas": 3, "metrics": [RATE]} | change


def scaled(**change) -> dict:
    """The spec of a model that scales itself."""
    spec = objects.model()["spec"] | {"autoscaling": autoscaling(**change)}
    del spec["replicas"]
    return spec


BAD_MODELS = [
    ("spec.model.uri", "ftp://models/x", "spec.model.uri"),
    ("spec.model.version", "a b", "spec.model.version"),
    ("spec.model.digest", "sha256:abc", "spec.model.digest"),
    ("spec.replicas", -1, "spec.replicas"),
    ("spec.placement", [], "spec.placement"),
    ("spec.placement", [{"pool": "g5"}, {"pool": "g5"}], "spec.placement"),
    ("spec.runtime.resources", {"gpus": 0}, "spec.runtime.resources.gpus"),
    ("spec.runtime.resources", {"cpu": "lots"}, "spec.runtime.resources.cpu"),
    ("spec.runtime.drainTimeout", "soon", "spec.runtime.drainTimeout"),
    ("spec.rollout", {"maxSurge": "0", "maxUnavailable": "0%"}, "spec.rollout"),
    ("spec.autoscaling", autoscaling(), "exactly one of replicas and autoscaling"),
    ("spec", scaled(minReplicas=5), "minReplicas must not be above maxReplicas"),
    ("spec", scaled(maxReplicas=30000), "spec.autoscaling.maxReplicas"),
    ("spec", scaled(metrics=[]), "spec.autoscaling.metrics"),
    ("spec", scaled(metrics=[RATE, RATE]), "spec.autoscaling.metrics"),
    ("spec", scaled(metrics=[RATE | {"type": "QueueDelay"}]), "queueDelay must be set for type QueueDelay"),
    ("spec", scaled(metrics=[RATE | {"requestRate": {"targetPerReplica": 0}}]), "targetPerReplica"),
    ("spec", scaled(stabilization={"scaleDown": "soon"}), "spec.autoscaling.stabilization.scaleDown"),
    ("spec", scaled(forecast="Seasonal"), "forecast"),
    ("metadata.name", "9lives", "metadata.name"),
]
BAD_POOLS = [
    ("spec.instanceTypes", [], "spec.instanceTypes"),
    ("spec.instanceTypes", ["g5.xlarge", "g5.xlarge"], "spec.instanceTypes"),
    ("spec.subnetIds", ["vpc-1"], "spec.subnetIds"),
    ("spec.nodeRole", "gpu-node", "spec.nodeRole"),
    ("spec.diskSize", "5Gi", "spec.diskSize"),
    ("spec.purchase", "Spot", "spec.purchase"),
    ("spec.limits.maxNodes", -1, "spec.limits.maxNodes"),
    ("spec.tags", {"aws:x": "1"}, "spec.tags"),
    ("spec.labels", {"pinnace.dev/pool": "x"}, "spec.labels"),
    ("spec.image.releaseVersion", "latest", "spec.image.releaseVersion"),
]


def changed(thing: dict, path: str, value) -> dict:
    thing = copy.deepcopy(thing)
    *parents, last = path.split(".")
    place = thing
    for key in parents:
        place = place[key]
    place[last] = value
    return thing


def refusal(beside, thing: dict) -> str:
    with pytest.raises(RuntimeError) as caught:
        beside.kube.apply(thing, dry_run=True)
    return str(caught.value)


@pytest.mark.parametrize(("path", "value", "named"), BAD_MODELS)
def test_a_bad_model_is_refused_at_admission(beside, path, value, named):
    assert named in refusal(beside, changed(objects.model(), path, value))


@pytest.mark.parametrize(("path", "value", "named"), BAD_POOLS)
def test_a_bad_pool_is_refused_at_admission(beside, path, value, named):
    assert named in refusal(beside, changed(objects.pool(), path, value))


def test_immutable_fields_stay(beside):
    beside.kube.apply(objects.pool())
    assert "spec.purpose" in refusal(beside, objects.pool(purpose="Training"))
    beside.kube("delete", f"gpool/{objects.POOL}")


def test_a_good_model_that_scales_itself_is_admitted(beside):
    beside.kube.apply(changed(objects.model(), "spec", scaled()), dry_run=True)
