"""The step in which pods are evicted by hand, through the Eviction API, as `kubectl drain` does."""

from samples import MODEL, NAMESPACE
from scaling import STEADY

from harness.base import eventually

# The operator's name for it.
BUDGET = f"pinnace-{MODEL}"
POD = f"/api/v1/namespaces/{NAMESPACE}/pods/"
ALLOWED, REFUSED = 201, 429


def evict(demo):
    """pods are evicted by hand: the PodDisruptionBudget lets one go, and the next when that one is replaced"""
    with demo.table(MODEL):
        demo.scale(2)
        with demo.traffic(MODEL) as traffic:
            traffic.set_rate(STEADY)
            traffic.flows()
            demo.recorder.mark("evictions")
            both = sorted(budget_is_full(demo))
            try_eviction(demo, both[0], ALLOWED)
            # Until the first one is replaced none is to spare.
            try_eviction(demo, both[1], REFUSED)
            (new,) = budget_is_full(demo, without=both[0]) - set(both)
            demo.show.line(f"{new} serves in its place")
            try_eviction(demo, both[1], ALLOWED)
            budget_is_full(demo, without=both[1])
            demo.settle(MODEL, 2)
        demo.scale(1)
    demo.show.line(traffic.report())
    traffic.assert_all_answered()
    demo.facts.append(("while evicting", traffic.report()))


def budget_is_full(demo, without: str = "") -> set[str]:
    """Waits until two replicas serve, `without` not among them, and the budget lets one go; returns their names."""

    def check():
        pods = {pod["metadata"]["name"] for pod in demo.kube.pods(NAMESPACE, MODEL) if not pod["metadata"].get("deletionTimestamp")}
        budget = demo.kube.get(f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/{BUDGET}")
        status = budget["status"]
        assert status["observedGeneration"] == budget["metadata"]["generation"], budget
        counts = [status[key] for key in ("expectedPods", "currentHealthy", "disruptionsAllowed")]
        assert counts == [2, 2, 1] and len(pods) == 2 and without not in pods, (status, pods)
        return pods

    return eventually(check, f"{BUDGET} lets one of two replicas go", 180)


def try_eviction(demo, pod: str, expected: int):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    answer = demo.kube.session.post(f"{demo.kube.server}{POD}{pod}/eviction", json=body, timeout=20)
    causes = answer.json().get("details", {}).get("causes", [])
    why = "; ".join(cause["message"] for cause in causes)
    assert answer.status_code == expected, f"eviction of {pod}: {answer.status_code} {answer.text}"
    if expected == REFUSED:
        assert BUDGET in why, answer.text
        demo.show.line(f"evict {pod}: 429, refused: {why}")
    else:
        demo.show.line(f"evict {pod}: allowed")
