"""An API server, a simulated account and an operator, beside each other on this machine; no root, no containers.

KUBECONFIG or KUBEBUILDER_ASSETS say which API server it is; see harness/apiserver.py.
"""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.beside import Beside  # noqa: E402


@pytest.fixture(scope="session")
def beside():
    beside = Beside()
    try:
        beside.up()
        yield beside
    finally:
        beside.down()
