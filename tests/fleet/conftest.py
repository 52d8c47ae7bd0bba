"""One installation whose GPU nodes are KWOK's: any number of them, and replicas that answer by a load script."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import objects  # noqa: E402
from harness.base import eventually  # noqa: E402
from harness.stack import installed, settled  # noqa: E402
from harness.team import NAMES, Team  # noqa: E402

# Of the autoscaler, around a metric's target.
TOLERANCE = 0.1


@pytest.fixture(scope="session")
def stack():
    with installed(pytest, real_nodes=False) as stack:
        yield stack


class Crowd(Team):
    """A model whose load is told to its replicas by a script."""

    def load(self, requests: float, started_at: str | None = None, **more) -> dict:
        """So many requests a second from now on, on replicas that can take 200 each."""
        script = {"requestsPerSecond": [[0, requests]], "capacity": 200} | more
        return self.stack.sandbox.set_load({f"{objects.NAMESPACE}/{objects.MODEL}": script}, started_at=started_at)

    def desired(self) -> int:
        return self.model()["status"]["replicas"]["desired"]

    def settle_near(self, size: float) -> int:
        """Waits for rest within the autoscaler's tolerance around a size; returns the most replicas that were asked for."""
        seen = []

        def check():
            seen.append(self.desired())
            assert abs(seen[-1] - size) <= TOLERANCE * size, seen[-1]
            return settled(self.kube, self.aws, NAMES, seen[-1])

        eventually(check, f"about {size} replicas, a node each", 150)
        return max(seen)

    def clear(self):
        self.stack.sandbox.set_load({})
        super().clear()


@pytest.fixture
def crowd(stack):
    crowd = Crowd(stack)
    yield crowd
    crowd.clear()
