"""An operator beside a cluster, as a process of this machine, under the rights that the chart gives it."""

import subprocess

import yaml

from . import install, objects
from .apiserver import ApiServer, write_kubeconfig
from .aws import Aws
from .base import CACHE, CLUSTER, OPERATOR_KEY, REGION, ROOT, built, eventually, run, session
from .kube import Kube
from .ports import free_port

ACCOUNT = f"system:serviceaccount:{install.NAMESPACE}:pinnace"
# Waits that are minutes in production.
WAITS = ["--cloud-poll=500ms", "--node-idle=1s", "--sweep-after=60s", "--absent-twice=2s", "--inventory-max-age=30s"]


class Beside:
    def __init__(self):
        self.site = ApiServer()
        self.aws = Aws(self.site, time_scale=60)
        self.kube = None
        # The newest operator, and all that were started and not stopped.
        self.process, self.running = None, []
        self.metrics = ""

    def up(self):
        self.site.up()
        self.kube = Kube(self.site)
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            self.kube("apply", "--server-side", "-f", path)
        self.kube("wait", "--for=condition=Established", "crd/gpupools.pinnace.dev", "crd/modeldeployments.pinnace.dev")
        install.make_namespace(self.kube, install.NAMESPACE)
        install.make_namespace(self.kube, objects.NAMESPACE)
        self.kube("apply", "--server-side", "-f", "-", text=rights(self.kube.get("/version")["gitVersion"]))
        self.aws.start()

    def down(self):
        self.stop()
        if self.aws.process:
            self.aws.process.terminate()
            self.aws.process.wait()
        self.site.down()

    def start(self, *flags: str, elect: bool = False, beside_others: bool = False) -> subprocess.Popen:
        """Starts the operator with more flags than the usual, instead of those that run or beside them."""
        if not beside_others:
            self.stop()
        mine = self.site.data / "operator-kubeconfig"
        server = yaml.safe_load(self.site.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        write_kubeconfig(mine, {"server": server}, {"as": ACCOUNT})
        listen = f"127.0.0.1:{free_port()}"
        self.metrics = f"http://{listen}/metrics"
        self.process = self.site.spawn(
            "operator", built("operator"), f"--cluster-name={CLUSTER}", f"--region={REGION}",
            f"--aws-endpoint-url={self.site.aws_url}", "--runtime-image=localhost/pinnace-runtime:dev",
            f"--leader-elect={str(elect).lower()}", "--log-format=text", f"--listen={listen}", *WAITS, *flags,
            env={"KUBECONFIG": str(mine), "AWS_ACCESS_KEY_ID": OPERATOR_KEY, "AWS_SECRET_ACCESS_KEY": "anything"},
        )  # fmt: skip
        self.running.append(self.process)
        eventually(lambda: self.ticks() > 0, "the operator plans", 60)
        return self.process

    def stop(self):
        """Ends those that run, in order."""
        for process in self.running:
            if process.poll() is None:
                process.terminate()
                assert process.wait(timeout=30) == 0, self.site.log("operator")[-2000:]
        self.running.clear()

    def ticks(self) -> float:
        """Plans made by the operator that runs."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the operator ended: {self.site.log('operator')[-2000:]}")
        lines = session().get(self.metrics, timeout=5).text.splitlines()
        counts = [line for line in lines if line.startswith("pinnace_operator_plan_seconds_count")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in counts)

    def plans(self, count: int):
        """Returns when the operator has made so many plans more."""
        start = self.ticks()
        eventually(lambda: self.ticks() >= start + count, f"{count} plans", 60)


def rights(kubernetes: str) -> str:
    """ClusterRole, Role and ServiceAccount of the chart."""
    shown = [f"--show-only=templates/{name}.yaml" for name in ("rbac", "serviceaccount")]
    needed = ["image.repository=x", "runtimeImage=x", f"cluster.name={CLUSTER}", f"cluster.region={REGION}"]
    sets = [word for pair in needed for word in ("--set", pair)]
    chart = ROOT / "charts/pinnace"
    return run(CACHE / "bin/helm", "template", "pinnace", chart, "-n", install.NAMESPACE, "--kube-version", kubernetes, *shown, *sets)
