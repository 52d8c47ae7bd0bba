"""What the API server refuses, with the field named."""

import copy

import pytest
from harness import objects

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
    ("spec.autoscaling", {"minReplicas": 1}, "autoscaling"),
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
