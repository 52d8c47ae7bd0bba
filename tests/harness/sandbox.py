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
        run(self.binary, "up")

    def own(self):
        """Waits while another process of the harness has the sandbox of this machine."""
        self.lock = open(f"{self.data}.lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("a demo or a test run has the sandbox of this machine: waiting until it ends", file=sys.stderr)
            fcntl.flock(self.lock, fcntl.LOCK_EX)

    def disown(self):
        self.lock.close()

    def down(self):
        run(self.binary, "down")

    def command(self, *words) -> list[str]:
        """A command line that runs inside the namespaces, on the same file system."""
        return [str(word) for word in (self.binary, "exec", "--", *words)]

    def load(self, image: pathlib.Path):
        run(self.binary, "image", "load", image)

    def real_nodes(self) -> list[str]:
        """Names of the nodes with a kubelet, the system node apart."""
        answer = run("curl", "-sS", "--fail", "--unix-socket", self.control, "http://sandbox/nodes")
        return [node["name"] for node in json.loads(answer) if node["name"] != "sandbox-system"]


def build() -> pathlib.Path:
    """The binary; a missing one is built, with progress on standard error."""
    command = [ROOT / "tests" / "sandbox" / "build"]
    return pathlib.Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
