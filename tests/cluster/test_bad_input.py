"""Bad input is refused with the field named, or ends in one reason with its remedy, and heals."""

import copy

import pytest
from harness import install, objects

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


def refusal(team, thing: dict) -> str:
    with pytest.raises(RuntimeError) as caught:
        team.kube.apply(thing, dry_run=True)
    return str(caught.value)


@pytest.mark.parametrize(("path", "value", "named"), BAD_MODELS)
def test_a_bad_model_is_refused_at_admission(team, path, value, named):
    assert named in refusal(team, changed(objects.model(), path, value))


@pytest.mark.parametrize(("path", "value", "named"), BAD_POOLS)
def test_a_bad_pool_is_refused_at_admission(team, path, value, named):
    assert named in refusal(team, changed(objects.pool(), path, value))


def test_immutable_fields_stay(team):
    team.apply(objects.pool())
    assert "spec.purpose" in refusal(team, objects.pool(purpose="Training"))


def test_a_missing_pool_and_an_unknown_type_heal(stack, team):
    team.apply(objects.model())
    assert "g5" in team.model_condition("Accepted", "False", "PoolNotFound")
    team.apply(objects.pool(instanceTypes=["g9.xlarge"]))
    assert "g9.xlarge" in team.pool_condition("Accepted", "False", "UnknownInstanceType")
    assert stack.aws.instances() == []
    team.apply(objects.pool())
    team.settle(1)
    team.model_condition("Accepted", "True")


def test_a_model_that_cannot_be_loaded_says_why_and_heals(stack, team):
    digest = install.make_model(stack.aws.model_folder("small-ranker"))
    install.make_model(stack.aws.model_folder("corrupt"), "--corrupt")
    bad = [
        (objects.model(digest="sha256:" + "0" * 64), "DigestMismatch"),
        (objects.model(uri="s3://models/corrupt"), "ModelInvalid"),
        (objects.model(uri="s3://models/nowhere"), "ModelNotFound"),
        (objects.model(uri="https://198.18.0.1:9/model"), "ModelUnreachable"),
    ]
    team.apply(objects.pool())
    for model, reason in bad:
        team.apply(model)
        message = team.model_condition("ModelReady", "False", reason, seconds=120)
        assert len(message) > 20, message
        team.model_condition("Ready", "False", reason)
    # The cause is mended in the store: nobody touches the object, and it heals.
    team.apply(objects.model(uri="s3://models/late", digest=digest))
    team.model_condition("ModelReady", "False", "ModelNotFound", seconds=120)
    install.make_model(stack.aws.model_folder("late"))
    team.model_condition("ModelReady", "True", seconds=120)
    team.settle(1)
