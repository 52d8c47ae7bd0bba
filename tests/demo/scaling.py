"""The steps in which replicas and nodes become more and fewer: by hand, and by the load."""

import datetime
import time

import requests
from samples import AUTOSCALED, AUTOSCALED_MAXIMUM, AUTOSCALED_SAMPLES, MODEL, NAMESPACE

from harness.base import eventually, session
from harness.kube import is_true
from harness.kwok import ready

STEADY = 20
# Requests a second; the sample wants 30 for a replica: half of one, and nearly three.
LOW, HIGH = 15, 80
ADMIN_PORT = 8002


def by_hand(demo):
    """kubectl scale 1 -> 3 -> 1, while a client asks all the time"""
    with demo.table(MODEL):
        with demo.traffic(MODEL) as traffic:
            traffic.set_rate(STEADY)
            traffic.flows()
            for size in (3, 1):
                demo.scale(size)
    demo.show.line(traffic.report())
    traffic.assert_all_answered()
    demo.facts.append(("while scaling by hand", traffic.report()))


def by_load(demo):
    """a second model scales itself 1 -> 3 -> 1, by the load of an open-loop client"""
    demo.apply_folder(AUTOSCALED_SAMPLES)
    with demo.table(AUTOSCALED):
        demo.settle(AUTOSCALED, 1)
        with demo.traffic(AUTOSCALED) as traffic:
            offer(demo, traffic, LOW)
            traffic.flows()
            follows = lambda: is_true(demo.kube.model(NAMESPACE, AUTOSCALED), "ScalingActive")  # noqa: E731
            eventually(follows, "the number of replicas follows the metrics", 60)
            rise(demo, traffic)
            gpu_line(demo)
            offer(demo, traffic, LOW)
            demo.settle(AUTOSCALED, 1)
    demo.show.line(traffic.report())
    traffic.assert_all_answered()
    demo.facts.append(("while scaling by load", traffic.report()))


def offer(demo, traffic, rate: int):
    demo.show.line(f"load: {rate} requests a second")
    demo.recorder.mark(f"load {rate}/s")
    traffic.set_rate(rate)


def rise(demo, traffic):
    """Returns when all replicas that the sample allows serve, on nodes that were bought for them."""
    calls, stepped, begun = demo.aws.mark(), time.time(), time.monotonic()
    offer(demo, traffic, HIGH)
    first = eventually(lambda: orders(demo.aws, calls), "AWS is asked for nodes", 60)[0]
    order = datetime.datetime.fromisoformat(first["time"]).timestamp() - stepped
    demo.show.line(f"first call that changes AWS, {first['action']}, {order:.1f} s after the load rose")
    demo.recorder.mark("first AWS call")
    demo.settle(AUTOSCALED, AUTOSCALED_MAXIMUM)
    grown = time.monotonic() - begun
    demo.facts += [
        ("first AWS call after the load rose", f"{order:.1f} s ({first['action']})"),
        (f"{AUTOSCALED_MAXIMUM} replicas settled after it rose", f"{grown:.1f} s"),
    ]


def orders(aws, since: int) -> list[dict]:
    """Calls of the operator after number `since` that changed something."""
    return [e for e in aws.journal(since, mutation=True) if e["outcome"] == "OK" and e["principal"] != "by-hand"]


def gpu_line(demo):
    """What the runtimes say of their GPUs, if anything."""
    pods = [pod for pod in demo.kube.pods(NAMESPACE, AUTOSCALED) if ready(pod)]
    loads = [load(pod["status"]["podIP"]) for pod in pods]
    gpus = [told["gpu"] for told in loads if "gpu" in told]
    if not gpus:
        return
    busy = ", ".join(f"{gpu['utilizationPercent']} %" for gpu in gpus)
    kind = "SIMULATED: CPU time of the engine threads" if all(gpu.get("simulated") for gpu in gpus) else "NVML"
    demo.show.line(f"GPU utilization that the replicas tell ({kind}): {busy}")


def load(ip: str) -> dict:
    def ask():
        answer: requests.Response = session().get(f"http://{ip}:{ADMIN_PORT}/load", timeout=5)
        answer.raise_for_status()
        return answer.json()

    return eventually(ask, f"{ip} tells its load", 30)
