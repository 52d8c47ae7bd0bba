"""Replicas on KWOK nodes: no containers, and `/load` of each as the load script has it."""

import json
import math
import time

import pytest
from harness import kwok
from harness.base import eventually, run
from harness.stack import operator_processes

MODEL = "crowd"
CURL = ["curl", "-sS", "--fail", "--fail-early", "--noproxy", "*", "-m", "2", "-w", "\n"]
# What curl exits with.
REFUSED, TIMED_OUT = 7, 28


@pytest.fixture
def fleet(stack):
    fleet = kwok.Fleet(stack.kube, MODEL)
    yield fleet
    stack.sandbox.set_load({})
    fleet.delete()


def up(fleet, count: int) -> dict[str, str]:
    """So many nodes and replicas, all Ready; the addresses of the replicas."""
    fleet.add_nodes(count)
    fleet.deploy(count)
    eventually(lambda: fleet.ready_replicas() == count, f"{count} replicas are Ready", 120)
    return fleet.addresses()


def ask(addresses, path: str = "load", inside: int | None = None) -> list[str]:
    """What each answers, as the host asks, or as a pod does in whose network the process `inside` is.

    Fails with the first that does not answer; by itself curl would tell of the last one only.
    """
    words = ["nsenter", "-t", inside, "-n"] if inside else []
    urls = [f"http://{address}:8002/{path}" for address in addresses]
    return run(*words, *CURL, *urls).splitlines()


def loads(addresses, **how) -> list[dict]:
    return [json.loads(text) for text in ask(addresses, **how)]


def offered(answers: list[dict]) -> float:
    return sum(answer["requestsPerSecond"]["offered"][0] for answer in answers)


def fails_with(code: int, address: str) -> bool:
    try:
        ask([address])
    except RuntimeError as error:
        return f"exit {code}\n" in str(error)
    return False


def test_the_operators_pods_read_the_load_that_the_script_says(stack, fleet):
    addresses = up(fleet, 12)
    assert len(set(addresses.values())) == 12 and all(a.startswith("198.19.") for a in addresses.values())
    stack.sandbox.set_load({fleet.key: {"requestsPerSecond": [[0, 900]], "capacity": 100}})
    operator = operator_processes()[0][0]

    def divided(count: int, each: float, **how):
        try:
            answers = loads(fleet.addresses().values(), **how)
        except RuntimeError as error:
            raise AssertionError("a replica left after it was looked up") from error
        assert len(answers) == count and math.isclose(offered(answers), 900, rel_tol=1e-3), answers
        assert all(math.isclose(a["requestsPerSecond"]["offered"][0], each, rel_tol=1e-3) for a in answers), answers
        return answers

    answers = eventually(lambda: divided(12, 75, inside=operator), "12 replicas share the load", 30)
    assert len({answer["bootId"] for answer in answers}) == 12
    first = answers[0]
    assert (first["version"], first["revision"], first["ready"], first["draining"]) == (1, "r1", True, False)
    assert first["gpu"]["count"] == 1 and math.isclose(first["gpu"]["utilizationPercent"], 75, rel_tol=1e-3)
    ask(addresses.values(), "v2/health/ready", inside=operator)

    fleet.scale(10)
    answers = eventually(lambda: divided(10, 90), "10 share it", 30)
    assert abs(answers[0]["busyPercent"] - 90) < 0.1
    gone = set(addresses.values()) - set(fleet.addresses().values())
    assert len(gone) == 2
    eventually(lambda: all(fails_with(REFUSED, address) for address in gone), "nobody answers for those that went", 10)


def test_faults_are_of_the_replicas_that_the_script_names(stack, fleet):
    addresses = up(fleet, 4)
    refuses, hangs, fails, good = sorted(addresses)
    faults = [{"kind": k, "pods": [p]} for k, p in (("Refuse", refuses), ("Hang", hangs), ("Error", fails))]
    load = {"requestsPerSecond": [[0, 100]], "capacity": 100}
    script = stack.sandbox.set_load({fleet.key: load | {"faults": faults}})
    eventually(lambda: fails_with(REFUSED, addresses[refuses]), "one refuses", 10)
    assert fails_with(TIMED_OUT, addresses[hangs]) and fails_with(22, addresses[fails])
    loads([addresses[good]])
    with pytest.raises(RuntimeError, match=rf"models.{fleet.key}.capacity"):
        stack.sandbox.set_load({fleet.key: load | {"capacity": 0}})
    # The script outlives the process, and its clock goes on.
    run(stack.sandbox.binary, "kill", "responder")
    eventually(lambda: fails_with(TIMED_OUT, addresses[hangs]), "one hangs still", 20)
    healed = stack.sandbox.set_load({fleet.key: load}, started_at=script["startedAt"])
    assert healed["startedAt"] == script["startedAt"]
    eventually(lambda: math.isclose(offered(loads(addresses.values())), 100, rel_tol=1e-3), "all answer", 20)


@pytest.mark.long
def test_three_hundred_nodes(stack, fleet, record_property):
    count, spent = 300, {}

    def measure(what: str, act):
        started, cpu = time.monotonic(), stack.sandbox.cpu_seconds()
        result = act()
        spent[what] = f"{time.monotonic() - started:.1f} s, {stack.sandbox.cpu_seconds() - cpu:.1f} CPU s"
        return result

    measure("nodes", lambda: (fleet.add_nodes(count), eventually(lambda: len(fleet.nodes()) == count, "nodes", 180)))
    fleet.deploy(count)
    measure("replicas", lambda: eventually(lambda: fleet.ready_replicas() == count, "replicas are Ready", 180))
    addresses = fleet.addresses().values()
    assert len(set(addresses)) == count
    stack.sandbox.set_load({fleet.key: {"requestsPerSecond": [[0, 60_000]], "capacity": 400, "noise": 0.0}})
    whole = lambda: math.isclose(offered(loads(addresses)), 60_000, rel_tol=1e-3)  # noqa: E731
    measure("load of all, shared", lambda: eventually(whole, "all share the load", 60))
    fleet.scale(0)
    measure("replicas gone", lambda: eventually(lambda: not fleet.addresses(), "no replica is left", 120))
    print(spent)
    record_property("spent", spent)
