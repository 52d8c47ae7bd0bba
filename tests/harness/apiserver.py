"""A Kubernetes API without nodes of its own, for tests of the API and of an operator beside it.

KUBECONFIG         the cluster that it points to: kind, k3d, EKS
KUBEBUILDER_ASSETS a folder with `etcd` and `kube-apiserver`, which are started here
neither            the same two programs, from the sandbox's binary; needs no root
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from . import sandbox
from .base import eventually, run, session
from .ports import free_port

ADMIN_TOKEN = "test-admin"


class ApiServer:
    """What is asked of it goes through `kubectl proxy`, which knows how to log in wherever the kubeconfig points to."""

    def __init__(self):
        self.binary = sandbox.build()
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="pinnace-api-"))
        self.logs = self.data / "log"
        self.logs.mkdir()
        self.kubeconfig = self.data / "kubeconfig"
        # Without it aws-sim makes Node objects only.
        self.control = None
        port = free_port()
        self.aws_listen, self.aws_url = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"
        self.processes = []

    def command(self, *words) -> list[str]:
        return [str(word) for word in words]

    def up(self):
        theirs = os.environ.get("KUBECONFIG")
        source = pathlib.Path(theirs.split(":")[0]) if theirs else self.start_assets()
        self.proxy(source)
        if not theirs:
            return
        text = run(self.binary, "kubectl", f"--kubeconfig={self.kubeconfig}", "get", "gpools", "-o", "name", check=False)
        if text.strip():
            raise SystemExit(f"the cluster of KUBECONFIG={theirs} has GpuPools; these tests delete them: use another one")

    def down(self):
        for process in reversed(self.processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            process.wait()
        shutil.rmtree(self.data)

    def spawn(self, name: str, *words, env: dict | None = None) -> subprocess.Popen:
        """A process that ends with this API server at the latest."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | (env or {})
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()

    # -- how it is started

    def start_assets(self) -> pathlib.Path:
        """Starts etcd and kube-apiserver, and returns an administrator's kubeconfig."""
        assets = pathlib.Path(os.environ.get("KUBEBUILDER_ASSETS") or self.link_assets())
        etcd = f"http://127.0.0.1:{free_port()}"
        self.spawn(
            "etcd", assets / "etcd", f"--data-dir={self.data / 'etcd'}", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
        )  # fmt: skip
        key, tokens, port = self.data / "service-account.key", self.data / "tokens.csv", free_port()
        run("openssl", "genrsa", "-out", key, "2048")
        tokens.write_text(f'{ADMIN_TOKEN},admin,admin,"system:masters"\n')
        self.spawn(
            "kube-apiserver", assets / "kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={port}", f"--cert-dir={self.data / 'certificates'}", f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )  # fmt: skip
        cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
        path = self.data / "assets-kubeconfig"
        write_kubeconfig(path, cluster, {"token": ADMIN_TOKEN})
        return path

    def link_assets(self) -> pathlib.Path:
        folder = self.data / "assets"
        folder.mkdir()
        for name in ("etcd", "kube-apiserver"):
            (folder / name).symlink_to(self.binary)
        return folder

    def proxy(self, source: pathlib.Path):
        # KUBECONFIG may list several files, and kubectl merges them.
        named = ["kubectl"] if os.environ.get("KUBECONFIG") and shutil.which("kubectl") else [self.binary, "kubectl", f"--kubeconfig={source}"]
        self.spawn("kubectl-proxy", *named, "proxy", "--port=0")

        def port() -> str:
            return re.search(r"127\.0\.0\.1:(\d+)", self.log("kubectl-proxy"))[1]

        eventually(lambda: "Starting to serve" in self.log("kubectl-proxy"), "kubectl proxy serves", 30)
        server = f"http://127.0.0.1:{port()}"
        write_kubeconfig(self.kubeconfig, {"server": server}, {})
        made = session()

        def ready():
            if self.processes and any(process.poll() is not None for process in self.processes):
                raise RuntimeError("\n".join(path.read_text()[-1000:] for path in self.logs.iterdir()))
            return made.get(f"{server}/readyz", timeout=5).text == "ok"

        eventually(ready, f"the API server answers; see {self.logs}", 90)


def write_kubeconfig(path: pathlib.Path, cluster: dict, user: dict):
    """One cluster, one user."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    # JSON is YAML.
    path.write_text(json.dumps(content))
