"""One installation for all tests: a real cluster, a simulated account, the operator under its own RBAC."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import install, objects  # noqa: E402
from harness.stack import Stack, needs_containers  # noqa: E402
from harness.team import Team  # noqa: E402


@pytest.fixture(scope="session")
def stack():
    needs_containers(pytest)
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


@pytest.fixture
def team(stack):
    team = Team(stack)
    yield team
    team.clear()
