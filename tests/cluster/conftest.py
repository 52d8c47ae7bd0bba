"""One installation for all tests: a real cluster, a simulated account, the operator under its own RBAC."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import install, objects  # noqa: E402
from harness.base import eventually  # noqa: E402
from harness.client import Client  # noqa: E402
from harness.compare import one_request  # noqa: E402
from harness.stack import Stack, settled  # noqa: E402

NAMES = (objects.NAMESPACE, objects.MODEL, objects.POOL)


@pytest.fixture(scope="session")
def stack():
    # A machine of continuous integration that cannot run these tests has not tested anything.
    refuse = pytest.fail if os.environ.get("CI") else pytest.skip
    for name in ("KUBECONFIG", "KUBEBUILDER_ASSETS"):
        if os.environ.get(name):
            refuse(f"{name} is set: these tests need containers on nodes, which the sandbox has; tests/api run there")
    if os.geteuid() != 0:
        refuse("the tests on a cluster start containers: they need Linux and root")
    stack = Stack()
    try:
        stack.up()
        install.make_namespace(stack.kube, objects.NAMESPACE)
        install.make_model(stack.aws.model_folder("small-ranker"))
        yield stack
    finally:
        if stack.kube:
            print(install.operator_log(stack.kube, 60))
        if not os.environ.get("KEEP"):
            stack.sandbox.down()


class Team:
    """What a team and its platform team do with one pool and one model."""

    def __init__(self, stack: Stack):
        self.stack, self.kube, self.aws = stack, stack.kube, stack.aws

    def apply(self, *things: dict) -> str:
        return self.kube.apply(*things)

    def serve(self, replicas: int = 1, **pool):
        """A pool and a model on it, settled."""
        self.apply(objects.pool(**pool), objects.model(replicas=replicas))
        self.settle(replicas)

    def scale(self, replicas: int):
        self.kube("scale", "-n", objects.NAMESPACE, f"mdep/{objects.MODEL}", f"--replicas={replicas}")

    def settle(self, size: int, seconds: float = 150):
        check = lambda: settled(self.kube, self.aws, NAMES, size)  # noqa: E731
        return eventually(check, f"{size} replicas on {size} nodes", seconds)

    def model(self) -> dict | None:
        return self.kube.model(objects.NAMESPACE, objects.MODEL)

    def pool(self) -> dict | None:
        return self.kube.pool(objects.POOL)

    def model_condition(self, type_: str, status: str, reason: str | None = None, seconds: float = 60) -> str:
        """Waits for the condition and returns its message."""
        return self.kube.wait_condition(self.model, type_, status, reason, seconds)["message"]

    def pool_condition(self, type_: str, status: str, reason: str | None = None, seconds: float = 60) -> str:
        return self.kube.wait_condition(self.pool, type_, status, reason, seconds)["message"]

    def clients(self) -> tuple[Client, Client]:
        """One that balances over the EndpointSlices as a gateway does, one that uses the Service."""
        slices, service = self.kube.copy(), self.kube.copy()
        name = (objects.NAMESPACE, objects.MODEL)
        return (
            Client(lambda: slices.endpoints(*name), objects.MODEL, one_request()),
            Client(lambda: [service.service_address(*name)], objects.MODEL, one_request()),
        )

    def delete_model(self, *words: str):
        self.kube("delete", "-n", objects.NAMESPACE, f"mdep/{objects.MODEL}", "--timeout=2m", *words)

    def delete_pool(self, *words: str):
        self.kube("delete", f"gpool/{objects.POOL}", "--timeout=3m", *words)

    def nothing_left(self):
        left = self.aws.left() | self.kube.leftovers([objects.NAMESPACE])
        assert not left and not self.stack.sandbox.real_nodes(), left
        return True

    def clear(self):
        """Deletes everything, and checks that nothing is left anywhere."""
        self.aws.release()
        for zone in ("us-east-1a", "us-east-1b", "us-east-1c"):
            self.aws.capacity("g5.xlarge", zone, None)
        self.kube("delete", "mdep", "--all", "-n", objects.NAMESPACE, "--timeout=2m")
        self.kube("delete", "gpool", "--all", "--timeout=3m")
        eventually(self.nothing_left, "nothing is left in AWS and Kubernetes", 60)


@pytest.fixture
def team(stack):
    team = Team(stack)
    yield team
    team.clear()
