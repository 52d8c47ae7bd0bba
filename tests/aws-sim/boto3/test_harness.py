"""The harness's own client of the control API, which the end-to-end tests set faults with."""

import pathlib
import sys
import types

import pytest
import requests
from awssim import Group

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from harness.aws import Aws  # noqa: E402


@pytest.fixture
def aws(sim):
    """As after start(), but of a simulator without a sandbox."""
    client = Aws.__new__(Aws)
    client.site, client.session = types.SimpleNamespace(aws_url=sim.url), requests.Session()
    yield client
    client.clear_faults()


def test_faults_are_set_listed_seen_and_removed(sim, aws):
    mark = aws.mark()
    number = aws.fault("throttled", action="ListNodegroups", count=1)
    sim.client("eks", tries=2).list_nodegroups(clusterName="pinnace-sandbox")
    assert [(f["id"], f["hits"], f["active"]) for f in aws.faults()] == [(number, 1, False)]
    assert [(e["action"], e["fault"]["id"]) for e in aws.faulty(mark)] == [("ListNodegroups", number)]
    aws.remove_fault(number)
    aws.fault("stale", action="*", lagSeconds=9)
    assert aws.clear_faults() == 1 and aws.faults() == []
    with pytest.raises(RuntimeError, match="kind: must be one of throttled"):
        aws.fault("slow", action="*")


def test_changes_by_hand_are_nobodys_mutations(sim, aws):
    mark, group = aws.mark(), Group(sim, "pn-harness")
    aws.change_by_hand("size", group="pn-harness", desired=1)
    assert aws.mutations(mark) == ["CreateNodegroup"]
    assert [e["principal"] for e in aws.faulty(mark)] == ["by-hand"]
    group.delete()
