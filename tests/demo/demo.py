"""From `kubectl apply` to scored recommendations, on one machine, in nine steps.

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

import eviction  # noqa: E402
import report  # noqa: E402
import scaling  # noqa: E402
from harness import install  # noqa: E402
from harness.aws import Aws  # noqa: E402
from harness.base import ROOT, eventually  # noqa: E402
from harness.compare import largest_difference, one_request  # noqa: E402
from harness.kube import Kube  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402
from harness.stack import operator_memory, settled  # noqa: E402
from record import Recorder  # noqa: E402
from samples import AUTOSCALED, MODEL, NAMESPACE, POOL, SAMPLES  # noqa: E402
from show import Show, curl_lines  # noqa: E402
from table import live_table  # noqa: E402
from traffic import Traffic  # noqa: E402

# What the samples call s3://models/small-ranker.
IN_BUCKET = "small-ranker"
LOGS = ROOT / "target" / "demo-logs"
REPORT = ROOT / "target" / "demo" / "report.html"
TOLERATED_DIFFERENCE = 1e-4
OPERATOR_MEMORY_MIB = 64


class Demo:
    def __init__(self, show: Show):
        self.show = show
        self.sandbox = Sandbox()
        self.aws = Aws(self.sandbox)
        self.kube = self.recorder = None
        # Replicas of each model, as they should be.
        self.sizes = {}
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
        self.recorder = Recorder(self.show, self.sandbox, NAMESPACE, POOL)
        self.recorder.start()
        self.applied = time.monotonic()
        self.apply_folder(SAMPLES)

    def serve(self):
        """nodes are bought, the model is loaded, and answers are compared with ONNX Runtime"""
        with self.table(MODEL):
            self.kube("wait", "-n", NAMESPACE, f"mdep/{MODEL}", "--for=condition=Ready", "--timeout=5m")
        address = self.kube.service_address(NAMESPACE, MODEL)
        folder = self.aws.model_folder(IN_BUCKET)
        largest_difference(address, MODEL, folder, count=1)
        first = time.monotonic() - self.applied
        self.show.line(f"first answer {first:.1f} s after kubectl apply")
        difference = largest_difference(address, MODEL, folder)
        self.show.line(f"100 answers compared with ONNX Runtime in Python: largest difference {difference:.2e}")
        assert difference <= TOLERATED_DIFFERENCE, "the answers differ from ONNX Runtime's"
        self.settle(MODEL, 1)
        self.facts += [("first answer after apply", f"{first:.1f} s"), ("largest difference", f"{difference:.2e}")]

    def delete(self):
        """the models, then the pool, are deleted, and nothing is left"""
        with self.table(MODEL):
            names = [f"mdep/{name}" for name in self.sizes]
            self.kube("delete", "-n", NAMESPACE, *names, "--timeout=3m")
            self.show.line("the models are gone")
            self.kube("delete", f"gpool/{POOL}", "--timeout=5m")
            self.show.line("the pool is gone")

        def nothing_left():
            left = self.aws.left() | self.kube.leftovers([NAMESPACE])
            assert not left and not self.sandbox.real_nodes(), left
            return True

        eventually(nothing_left, "nothing is left", 60)
        self.show.line("nothing is left in AWS, nothing in Kubernetes")
        self.facts.append(("left in AWS and Kubernetes", "nothing"))

    # -- what several steps do

    def apply_folder(self, folder: pathlib.Path):
        for line in self.kube("apply", "--server-side", "-f", folder).splitlines():
            self.show.line(line)

    def scale(self, size: int):
        """Scales the first model by hand, and waits until everything has followed."""
        self.show.line(f"kubectl scale mdep/{MODEL} --replicas {size}")
        self.recorder.mark(f"scale {size}")
        self.kube("scale", "-n", NAMESPACE, f"mdep/{MODEL}", f"--replicas={size}")
        self.settle(MODEL, size)

    def settle(self, model: str, size: int):
        """Waits until everybody agrees on the size of all models, and compares prices."""
        self.sizes[model] = size
        nodes = sum(self.sizes.values())

        def check():
            for name, replicas in self.sizes.items():
                prices = settled(self.kube, self.aws, (NAMESPACE, name, POOL), replicas, nodes - replicas)
            return prices

        said, rate = eventually(check, f"{size} replicas of {model}, {nodes} nodes, at the ledger's price", 300)
        self.show.line(f"settled: replicas {size}, nodes {nodes}, hourlyUsd {said:.2f}, the ledger says {rate:.3f} USD/h")

    def table(self, model: str):
        return live_table(self.show, self.recorder, model)

    @contextlib.contextmanager
    def traffic(self, model: str):
        """An open-loop client of the model; leaving waits for its last answers."""
        address = self.kube.service_address(NAMESPACE, model)
        with Traffic.in_sandbox(self.sandbox, address, model, one_request()) as traffic:
            self.recorder.traffic = traffic
            try:
                yield traffic
            finally:
                self.recorder.traffic = None

    def memory(self):
        """What the operator has needed at most."""
        most = operator_memory()
        self.facts.append(("operator's memory at most", f"{most:.0f} MiB"))
        assert most < OPERATOR_MEMORY_MIB, f"the operator has held {most:.0f} MiB; it is to stay below {OPERATOR_MEMORY_MIB}"

    def summary(self):
        ledger = self.aws.ledger()
        hours = ledger["nowSeconds"] / 3600
        self.facts.append((
            "cost",
            f"{ledger['totalUsd']:.2f} simulated USD for {len(ledger['instances'])} instances in {hours:.1f} simulated hours",
        ))  # fmt: skip
        self.show.summary(self.facts)
        self.recorder.stop()
        run = report.Run(self.recorder.samples, self.show.steps, self.recorder.marks, self.facts, [MODEL, AUTOSCALED])
        report.write(REPORT, run)
        self.show.line(f"charts: {REPORT}")


STEPS = (
    Demo.cluster,
    Demo.cloud,
    Demo.operator,
    Demo.apply,
    Demo.serve,
    scaling.by_hand,
    scaling.by_load,
    eviction.evict,
    Demo.delete,
)


def end(demo: Demo, failed: bool):
    """Removes everything; of a demo that failed, the logs stay."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    if not demo.sandbox.lock:
        # It ended while it waited for the cluster of somebody else.
        return
    if demo.recorder:
        demo.recorder.stop()
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
    show = Show(total=len(STEPS))
    demo = Demo(show)
    failed, keep = True, False
    try:
        for step in STEPS:
            if step is Demo.delete:
                demo.memory()
            if step is Demo.delete and os.environ.get("KEEP"):
                keep = True
                demo.summary()
                curl_lines(demo.sandbox, demo.kube, (NAMESPACE, MODEL), one_request(pairs=1))
                return 0
            with show.step(step.__doc__):
                step(demo)
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
