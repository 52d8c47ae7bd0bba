"""What a team and its platform team do with one pool and one model."""

from . import objects
from .base import eventually
from .client import Client
from .compare import one_request
from .stack import Stack, settled

NAMES = (objects.NAMESPACE, objects.MODEL, objects.POOL)


class Team:
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
