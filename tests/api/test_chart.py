"""The API server takes every object of the charts, strictly and with all that is optional."""

import pytest
from harness import install
from harness.base import CACHE, ROOT, run

SETS = ["image.repository=x", "runtimeImage=x", "cluster.name=c", "cluster.region=us-east-1"]


def render(beside, *sets: str) -> str:
    words = [word for pair in (*SETS, *sets) for word in ("--set", pair)]
    version = beside.kube.get("/version")["gitVersion"]
    chart = ROOT / "charts/pinnace"
    return run(CACHE / "bin/helm", "template", "pinnace", chart, "-n", install.NAMESPACE, "--kube-version", version, *words)


@pytest.mark.parametrize("sets", [[], ["devicePlugin.enabled=true"]])
def test_every_object_is_admitted(beside, sets):
    text = render(beside, *sets)
    kinds = {line.split()[1] for line in text.splitlines() if line.startswith("kind: ")}
    assert ("DaemonSet" in kinds) == bool(sets), kinds
    # A dry run creates no namespace for what comes after it.
    namespace = "pinnace-device-plugin"
    if sets:
        beside.kube("create", "namespace", namespace)
    try:
        beside.kube("apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", "-", text=text)
    finally:
        if sets:
            beside.kube("delete", "namespace", namespace, "--wait=false")
