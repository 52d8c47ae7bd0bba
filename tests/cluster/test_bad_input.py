"""What is wrong ends in one reason with its remedy, and heals."""

from harness import install, objects


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
