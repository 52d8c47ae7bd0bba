"""One installation for all tests: a real cluster, a simulated account, the operator under its own RBAC."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import install  # noqa: E402
from harness.stack import installed  # noqa: E402
from harness.team import Team  # noqa: E402


@pytest.fixture(scope="session")
def stack():
    with installed(pytest) as stack:
        install.make_model(stack.aws.model_folder("small-ranker"))
        yield stack


@pytest.fixture
def team(stack):
    team = Team(stack)
    yield team
    team.clear()
