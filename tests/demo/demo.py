"""From `kubectl apply` to scored recommendations, on one machine, in seven steps.

KEEP=1 stops before the last step and leaves everything up. Ctrl-C ends the demo and removes what it started.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import install  # noqa: E402
from harness.aws import Aws  # noqa: E402
from harness.base import ROOT, eventually  # noqa: E402
from harness.client import Client  # noqa: E402
from harness.compare import largest_difference, one_request  # noqa: E402
from harness.kube import Kube  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402
from harness.stack import settled  # noqa: E402
from show import Show, Watch, curl_lines  # noqa: E402

NAMESPACE, MODEL, POOL = "recsys", "home-feed-ranker", "g5"
# What the sample calls s3://models/small-ranker.
IN_BUCKET = "small-ranker"
SAMPLES = ROOT / "docs" / "samples"
LOGS = ROOT / "target" / "demo-logs"
TOLERATED_DIFFERENCE = 1e-4


class Demo:
    def __init__(self, show: Show):
        self.show = show
        self.sandbox = Sandbox()
        self.aws = Aws(self.sandbox)
        self.kube = None
        self.facts = []

    def cluster(self):
        """a Kubernetes cluster: API server, scheduler, controllers, one system node"""
        self.sandbox.up()
        self.kube = Kube(self.sandbox)
        version = self.kube.get("/version")["gitVersion"]
        self.show.line(f"Kubernetes {version} answers, node sandbox-system is Ready")

    def cloud(self):
        """a simulated AWS account, which the AWS SDKs talk to"""
        self.aws.start()
        digest = install.make_model(self.aws.model_folder(IN_BUCKET))
        self.show.line(f"EKS, EC2, Auto Scaling and S3 at {self.sandbox.aws_url}, {self.aws.time_scale} times as fast as the clock")
        self.show.line(f"s3://models/{IN_BUCKET} holds a ranking model, {digest[:19]}...")

    def operator(self):
        """the custom resources and the operator, with helm"""
        install.load_images(self.sandbox)
        self.show.line("images of operator and runtime are loaded")
        install.install_crds(self.sandbox)
        install.install_operator(self.sandbox, self.kube)
        pods = install.operator_pods(self.kube)
        leader = install.leader(self.kube)["metadata"]["name"]
        self.show.line(f"{len(pods)} pods of the operator are ready, {leader} leads")

    def apply(self):
        """kubectl apply --server-side -f docs/samples"""
        install.make_namespace(self.kube, NAMESPACE)
        self.applied = time.monotonic()
        for line in self.kube("apply", "--server-side", "-f", SAMPLES).splitlines():
            self.show.line(line)

    def serve(self):
        """nodes are bought, the model is loaded, and answers are compared with ONNX Runtime"""
        with Watch(self.show, self.kube, NAMESPACE, MODEL, POOL):
            self.kube("wait", "-n", NAMESPACE, f"mdep/{MODEL}", "--for=condition=Ready", "--timeout=5m")
        address = self.kube.service_address(NAMESPACE, MODEL)
        folder = self.aws.model_folder(IN_BUCKET)
        largest_difference(address, MODEL, folder, count=1)
        first = time.monotonic() - self.applied
        self.show.line(f"first answer {first:.1f} s after kubectl apply")
        difference = largest_difference(address, MODEL, folder)
        self.show.line(f"100 answers compared with ONNX Runtime in Python: largest difference {difference:.2e}")
        assert difference <= TOLERATED_DIFFERENCE, "the answers differ from ONNX Runtime's"
        self.settle(1)
        self.facts += [f"first answer after apply      {first:.1f} s", f"largest difference            {difference:.2e}"]

    def scale(self):
        """kubectl scale 1 -> 3 -> 1, while a client asks all the time"""
        kube = self.kube.copy()
        addresses = lambda: kube.endpoints(NAMESPACE, MODEL)  # noqa: E731
        with Client(addresses, MODEL, one_request(), threads=3) as client:
            for size in (3, 1):
                self.show.line(f"kubectl scale mdep/{MODEL} --replicas {size}")
                with Watch(self.show, self.kube, NAMESPACE, MODEL, POOL):
                    self.kube("scale", "-n", NAMESPACE, f"mdep/{MODEL}", f"--replicas={size}")
                    self.settle(size)
        self.show.line(client.report())
        assert client.counts["failed"] == 0 and client.counts["ok"] > 0, "\n".join(client.failures)
        self.facts.append(f"while scaling                 {client.report()}")

    def delete(self):
        """the model, then the pool, are deleted, and nothing is left"""
        with Watch(self.show, self.kube, NAMESPACE, MODEL, POOL):
            self.kube("delete", "-n", NAMESPACE, f"mdep/{MODEL}", "--timeout=3m")
            self.show.line("the model is gone")
            self.kube("delete", f"gpool/{POOL}", "--timeout=5m")
            self.show.line("the pool is gone")

        def nothing_left():
            left = self.aws.left() | self.kube.leftovers([NAMESPACE])
            assert not left and not self.sandbox.real_nodes(), left
            return True

        eventually(nothing_left, "nothing is left", 60)
        self.show.line("nothing is left in AWS, nothing in Kubernetes")
        self.facts.append("left in AWS and Kubernetes    nothing")

    def settle(self, size: int):
        """Waits until everybody agrees on the size, and compares prices."""

        check = lambda: settled(self.kube, self.aws, (NAMESPACE, MODEL, POOL), size)  # noqa: E731
        said, rate = eventually(check, f"{size} replicas on {size} nodes, at the ledger's price", 240)
        self.show.line(f"settled at {size}: hourlyUsd {said:.2f}, the ledger says {rate:.3f} USD/h")

    def summary(self):
        ledger = self.aws.ledger()
        hours = ledger["nowSeconds"] / 3600
        self.facts.append(
            f"cost                          {ledger['totalUsd']:.2f} simulated USD for {len(ledger['instances'])} instances "
            f"in {hours:.1f} simulated hours"
        )
        self.show.summary(self.facts)


def end(demo: Demo, failed: bool):
    """Removes everything; of a demo that failed, the logs stay."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    if failed and demo.sandbox.logs.exists():
        shutil.rmtree(LOGS, ignore_errors=True)
        shutil.copytree(demo.sandbox.logs, LOGS, dirs_exist_ok=True)
        if demo.kube:
            (LOGS / "operator.log").write_text(install.operator_log(demo.kube, -1))
            with contextlib.suppress(RuntimeError):
                (LOGS / "objects.yaml").write_text(demo.kube("get", "gpool,mdep,pods,nodes,events", "-A", "-o", "yaml"))
        demo.show.line(f"logs are in {LOGS}")
    demo.show.line("removing the cluster")
    demo.sandbox.down()


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    show = Show(total=7)
    demo = Demo(show)
    failed, keep = True, False
    try:
        for step in (demo.cluster, demo.cloud, demo.operator, demo.apply, demo.serve, demo.scale):
            with show.step(step.__doc__):
                step()
        if os.environ.get("KEEP"):
            keep = True
            demo.summary()
            curl_lines(demo.sandbox, demo.kube, (NAMESPACE, MODEL), one_request(pairs=1))
            return 0
        with show.step(demo.delete.__doc__):
            demo.delete()
        demo.summary()
        failed = False
        return 0
    except KeyboardInterrupt:
        show.line("interrupted")
        failed = False
        return 130
    except (AssertionError, RuntimeError) as error:
        show.fail(str(error))
        return 1
    finally:
        if not keep:
            end(demo, failed)


if __name__ == "__main__":
    sys.exit(main())
