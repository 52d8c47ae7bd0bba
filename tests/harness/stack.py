"""A whole installation: cluster, simulated account, operator; and what tells whether it has come to rest."""

import contextlib
import json
import os
import pathlib
import signal

from . import install, objects
from .aws import Aws
from .base import session
from .kube import Kube, is_true
from .sandbox import Sandbox

ACCOUNT = f"system:serviceaccount:{install.NAMESPACE}:pinnace"
# How far a pool's hourlyUsd may be from the ledger's rate.
TOLERATED_PRICE = 0.02


class Stack:
    """`real_nodes`: with a kubelet and containers, as many as the sandbox has room for; else KWOK's, any number."""

    def __init__(self, real_nodes: bool = True):
        self.sandbox = Sandbox()
        self.aws = Aws(self.sandbox, real_nodes=real_nodes)
        self.kube = None

    def up(self):
        self.sandbox.up()
        self.kube = Kube(self.sandbox)
        self.aws.start()
        install.load_images(self.sandbox)
        install.install_crds(self.sandbox)
        install.install_operator(self.sandbox, self.kube)

    def writes(self) -> list[tuple]:
        """Writes of the operator that reached the API server, Leases apart: (verb, resource, name)."""
        found = []
        for line in self.sandbox.audit_log.read_text().splitlines():
            event = json.loads(line)
            target = event.get("objectRef", {})
            if event["user"]["username"] == ACCOUNT and target.get("resource") != "leases":
                found.append((event["verb"], target.get("resource"), target.get("name")))
        return found

    def reconciles(self) -> float:
        """Reconciles of the pod that leads."""
        leader = install.leader(self.kube)
        assert leader, "no pod of the operator leads"
        text = session().get(f"http://{leader['status']['podIP']}:8080/metrics", timeout=5).text
        lines = [line for line in text.splitlines() if line.startswith("pinnace_operator_reconciles_total")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def kill_operator(self, everyone: bool):
        """SIGKILL to the process that leads, or to all; the kubelet starts them again."""
        leader = install.leader(self.kube)
        pods = install.operator_pods(self.kube) if everyone else [leader] if leader else []
        names = {pod["metadata"]["name"] for pod in pods}
        killed = [pid for pid, pod in operator_processes() if pod in names]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert len(killed) == len(names) > 0, (killed, names)


@contextlib.contextmanager
def installed(pytest, real_nodes: bool = True):
    """A stack with the team's namespace, for a whole session of tests; KEEP leaves it up."""
    needs_containers(pytest)
    stack = Stack(real_nodes)
    try:
        stack.up()
        install.make_namespace(stack.kube, objects.NAMESPACE)
        yield stack
    finally:
        if stack.kube:
            print(install.operator_log(stack.kube, 60))
        if not os.environ.get("KEEP"):
            stack.sandbox.down()


def needs_containers(pytest):
    """Skips what cannot run here, and says so; a machine of continuous integration that skips has tested nothing."""
    refuse = pytest.fail if os.environ.get("CI") else pytest.skip
    for name in ("KUBECONFIG", "KUBEBUILDER_ASSETS"):
        if os.environ.get(name):
            refuse(f"{name} is set: these tests need containers on nodes, which the sandbox has; tests/api run there")
    if os.geteuid() != 0:
        refuse("the tests on a cluster start containers: they need Linux and root")


def operator_processes() -> list[tuple[int, str]]:
    """Processes of the operator in any container of this machine, and the pods they run in."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "exe") != "/usr/local/bin/operator":
                continue
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        names = [v.removeprefix(b"POD_NAME=").decode() for v in variables if v.startswith(b"POD_NAME=")]
        found += [(int(entry.name), name) for name in names]
    return found


def operator_memory() -> float:
    """The most that a process of the operator has held so far, in MiB."""
    peaks = []
    for pid, _ in operator_processes():
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        peaks += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def settled(kube: Kube, aws: Aws, names: tuple[str, str, str], size: int, beside: int = 0) -> tuple[float, float]:
    """Asserts that everybody agrees on the size of a model with a node a replica, and on the price; returns both prices.

    `beside`: nodes that other models have in the pool.
    """
    namespace, model_name, pool_name = names
    model, pool = kube.model(namespace, model_name), kube.pool(pool_name)
    replicas, nodes = model["status"]["replicas"], pool["status"]["nodes"]
    assert is_true(model, "Ready") and is_true(pool, "Ready"), [model["status"], pool["status"]]
    assert all(replicas[key] == size for key in ("current", "desired", "ready", "updated")), replicas
    all_nodes = size + beside
    counts = [nodes[key] for key in ("desired", "ready", "launching", "draining")]
    assert counts == [all_nodes, all_nodes, 0, 0], nodes
    ledger, said = aws.ledger(), float(pool["status"]["hourlyUsd"])
    assert len(aws.instances()) == ledger["instancesRunning"] == all_nodes, ledger
    rate = ledger["rateUsdPerHour"]
    assert abs(said - rate) <= TOLERATED_PRICE * rate, f"hourlyUsd {said}, ledger {rate}"
    return said, rate
