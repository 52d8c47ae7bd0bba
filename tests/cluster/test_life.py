"""From nothing to answers and back, with every request of a client counted."""

from harness import install, objects
from harness.base import eventually
from harness.compare import largest_difference


def without_failures(clients):
    for client in clients:
        assert client.counts["failed"] == 0, client.failures
        assert client.counts["ok"] > 100, client.report()


def test_created_scaled_rolled_and_deleted_without_a_failed_request(stack, team):
    install.make_model(stack.aws.model_folder("second"), "--seed", "8")
    team.serve()
    address = stack.kube.service_address(objects.NAMESPACE, objects.MODEL)
    assert largest_difference(address, objects.MODEL, stack.aws.model_folder("small-ranker"), count=20) < 1e-4
    clients = team.clients()
    with clients[0], clients[1]:
        team.scale(3)
        team.settle(3)
        team.apply(objects.model(uri="s3://models/second", version="2", replicas=3))
        rolled = lambda: all(client.versions["2"] > 20 for client in clients)  # noqa: E731
        eventually(rolled, "the second version answers", 150)
        team.settle(3)
        team.scale(1)
        team.settle(1)
    without_failures(clients)
    assert all(set(client.versions) == {"1", "2"} for client in clients)
    assert largest_difference(address, objects.MODEL, stack.aws.model_folder("second"), count=20) < 1e-4


def test_a_killed_operator_fails_no_request(stack, team):
    team.serve()
    clients = team.clients()
    with clients[0], clients[1]:
        stack.kill_operator(everyone=True)
        team.scale(2)
        team.settle(2)
    without_failures(clients)


def test_a_pool_waits_for_the_models_that_use_it(stack, team):
    team.serve()
    team.delete_pool("--wait=false")
    message = team.pool_condition("Ready", "False", "InUse")
    assert f"{objects.NAMESPACE}/{objects.MODEL}" in message
    assert len(stack.aws.instances()) == 1
