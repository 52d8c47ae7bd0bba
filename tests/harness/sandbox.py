"""The Kubernetes cluster of tests/sandbox."""

import fcntl
import json
import os
import pathlib
import subprocess
import sys

from .base import ROOT, run


class Sandbox:
    def __init__(self):
        self.binary = build()
        self.data = pathlib.Path(os.environ.get("PINNACE_SANDBOX", "/var/tmp/pinnace-sandbox"))
        self.kubeconfig = self.data / "kubeconfig"
        self.control = self.data / "control.sock"
        self.audit_log = self.data / "audit.log"
        self.logs = self.data / "log"
        # Pods and this machine reach the simulated AWS by the same address.
        self.aws_listen, self.aws_url = "0.0.0.0:4566", "http://198.18.0.1:4566"
        self.lock = None

    def up(self):
        """Starts it; what an earlier one left is removed first."""
        self.own()
        # It ends with this process, whatever ends that: nobody else waits for it.
        run(self.binary, "up", "--parent", os.getpid())

    def own(self):
        """Waits while another process of the harness has the sandbox of this machine."""
        lock = open(f"{self.data}.lock", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("a demo or a test run has the sandbox of this machine: waiting until it ends", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        # Not before: who ends while it waits must not take the other's cluster down.
        self.lock = lock

    def disown(self):
        self.lock.close()
        self.lock = None

    def down(self):
        """Ends it and removes what is left, if it is this process's."""
        if not self.lock:
            return
        run(self.binary, "down")

    def command(self, *words) -> list[str]:
        """A command line that runs inside the namespaces, on the same file system."""
        return [str(word) for word in (self.binary, "exec", "--", *words)]

    def load(self, image: pathlib.Path):
        run(self.binary, "image", "load", image)

    def set_load(self, models: dict[str, dict], seed: int = 1, started_at: str | None = None) -> dict:
        """Posts the load script for pods on KWOK nodes (tests/sandbox/README.md) and returns what is in force.

        `started_at` of an earlier answer goes on with its clock, to change a fault in the middle of a run.
        """
        script = {"seed": seed, "models": models} | ({"startedAt": started_at} if started_at else {})
        words = ["-sS", "--fail-with-body", "--unix-socket", self.control, "--data-binary", "@-"]
        return json.loads(run("curl", *words, "http://sandbox/load-script", text=json.dumps(script)))

    def cpu_seconds(self) -> float:
        """CPU time of everything that runs inside, containers included, since it started."""
        init = json.loads((self.data / "init.pid").read_text())["pid"]
        namespace = os.readlink(f"/proc/{init}/ns/pid")
        ticks = 0
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(entry / "ns/pid") == namespace:
                    # utime, stime, and both of the children that ended; the name before them may hold spaces.
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    ticks += sum(int(field) for field in fields[11:15])
            except OSError:
                continue
        return ticks / os.sysconf("SC_CLK_TCK")

    def real_nodes(self) -> list[str]:
        """Names of the nodes with a kubelet, the system node apart."""
        answer = run("curl", "-sS", "--fail", "--unix-socket", self.control, "http://sandbox/nodes")
        return [node["name"] for node in json.loads(answer) if node["name"] != "sandbox-system"]


def build() -> pathlib.Path:
    """The binary; a missing one is built, with progress on standard error."""
    command = [ROOT / "tests" / "sandbox" / "build"]
    return pathlib.Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
