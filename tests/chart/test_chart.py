"""The charts, rendered: what they refuse, what they grant, and that they ship the generated definitions."""

import json
import pathlib
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pinnace"
CRDS = ROOT / "charts" / "pinnace-crds"
VALUES = ROOT / "tests" / "chart" / "values"
MINIMAL = VALUES / "minimal.yaml"
FULL = VALUES / "full.yaml"
KEEP = "  annotations:\n    helm.sh/resource-policy: keep\n"


def helm(*arguments):
    assert shutil.which("helm"), "helm is not installed: run make setup"
    return subprocess.run(["helm", *map(str, arguments)], capture_output=True, text=True, check=False)


def template(*arguments, chart=CHART):
    # Without a server helm assumes the Kubernetes release it was linked with, which `go install` leaves unset.
    return helm(
        "template", "pinnace", chart, "--namespace", "pinnace-system", "--kube-version", "1.36.4", *arguments
    )


def render(values, *arguments):
    done = template("--values", values, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def operator(documents):
    [deployment] = of_kind(documents, "Deployment")
    return deployment["spec"]["template"]["spec"]


def arguments_of(documents):
    return operator(documents)["containers"][0]["args"]


@pytest.mark.parametrize("values", [MINIMAL, FULL], ids=lambda path: path.stem)
def test_lint(values):
    done = helm("lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_of_the_definitions():
    done = helm("lint", CRDS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_ships_the_generated_definitions():
    generated = {path.name: path.read_bytes() for path in (ROOT / "crds").glob("*.yaml")}
    shipped = {path.name: path.read_bytes() for path in (CRDS / "files").glob("*.yaml")}
    assert generated and shipped == generated


def test_rendered_definitions_differ_by_the_annotation_only():
    done = template(chart=CRDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(KEEP) == len(list((ROOT / "crds").glob("*.yaml")))
    without = done.stdout.replace(KEEP, "")
    for path in (ROOT / "crds").glob("*.yaml"):
        assert path.read_text().rstrip("\n") in without, path.name
    rendered = {document["metadata"]["name"]: document for document in yaml.safe_load_all(done.stdout) if document}
    for path in (ROOT / "crds").glob("*.yaml"):
        expected = yaml.safe_load(path.read_text())
        expected["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
        assert rendered.pop(expected["metadata"]["name"]) == expected
    assert rendered == {}


def test_definitions_can_be_applied_by_a_client():
    for path in (ROOT / "crds").glob("*.yaml"):
        # `kubectl apply` without --server-side keeps a copy in an annotation of at most 262,144 bytes.
        assert len(json.dumps(yaml.safe_load(path.read_text()))) < 200_000, path.name


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--set", "image.repository="], "repository"),
        (["--set", "runtimeImage="], "runtimeImage"),
        (["--set", "cluster.name="], "name"),
        (["--set", "cluster.region=moon"], "region"),
        (["--set", "operator.cloudMutations=Some"], "cloudMutations"),
        (["--set", "operator.nodeIdle=5 minutes"], "nodeIdle"),
        (["--set", "operator.groupSlots=0"], "groupSlots"),
        (["--set", "replicas=0"], "replicas"),
        (["--set", "replica=2"], "replica"),
        (["--set", "image.digest=sha256:12"], "digest"),
        (["--set", "awsEndpointUrl=ftp://x"], "awsEndpointUrl"),
        (["--set", "devicePlugin.enabled=true,devicePlugin.namespace=pinnace-system"], "devicePlugin.namespace"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_values_are_refused_and_named(arguments, named):
    done = template("--values", MINIMAL, *arguments)
    assert done.returncode != 0
    assert named in done.stderr


def test_required_values_have_no_default():
    done = template()
    assert done.returncode != 0
    for name in ("repository", "runtimeImage", "cluster"):
        assert name in done.stderr


@pytest.mark.parametrize("values", [MINIMAL, FULL], ids=lambda path: path.stem)
def test_no_wildcards_and_no_secrets(values):
    documents = render(values)
    roles = of_kind(documents, "ClusterRole") + of_kind(documents, "Role")
    assert roles
    for role in roles:
        for rule in role["rules"]:
            for field in ("apiGroups", "resources", "verbs"):
                assert not any("*" in item for item in rule[field]), role["metadata"]["name"]
            assert not any(item.split("/")[0] == "secrets" for item in rule["resources"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
            assert not {"pods/exec", "serviceaccounts/token"} & set(rule["resources"])


def test_the_operator_may_not_write_specs_of_nodes_or_leases_elsewhere():
    documents = render(MINIMAL)
    [role] = [role for role in of_kind(documents, "ClusterRole") if role["metadata"]["name"] == "pinnace"]
    verbs = {}
    for rule in role["rules"]:
        for resource in rule["resources"]:
            verbs.setdefault(resource, set()).update(rule["verbs"])
    assert "leases" not in verbs
    assert verbs["nodes"] == {"get", "list", "watch", "patch"}
    # Evictions, which heed disruption budgets; no deletion of pods.
    assert verbs["pods/eviction"] == {"create"} and "delete" not in verbs["pods"]
    assert not {"create", "update", "delete"} & verbs["modeldeployments"]
    assert not {"create", "update", "delete"} & verbs["gpupools"]
    [leader] = of_kind(documents, "Role")
    assert leader["metadata"]["namespace"] == "pinnace-system"
    assert [rule["resources"] for rule in leader["rules"]] == [["leases"]]


@pytest.mark.parametrize("values", [MINIMAL, FULL], ids=lambda path: path.stem)
def test_operator_pods_are_restricted(values):
    pod = operator(render(values))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC", "volumes"))
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container["ports"])


def test_probes_and_budget():
    documents = render(MINIMAL)
    container = operator(documents)["containers"][0]
    assert container["ports"] == [{"name": "metrics", "containerPort": 8080, "protocol": "TCP"}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    [budget] = of_kind(documents, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1 and "minAvailable" not in budget["spec"]
    [deployment] = of_kind(documents, "Deployment")
    assert deployment["spec"]["replicas"] == 2


def test_every_flag_has_an_argument():
    flags = {argument.split("=")[0] for argument in arguments_of(render(FULL))}
    assert flags == {
        f"--{name}"
        for name in (
            "cluster-name region aws-endpoint-url namespace runtime-image allowed-runtime-images runtime-env"
            " leader-elect lease-name dry-run cloud-mutations log-format listen cloud-poll node-idle sweep-after"
            " absent-twice load-period inventory-max-age group-slots group-max-nodes max-nodes launch-burst launch-per-second"
        ).split()
    }


def test_arguments_are_written_as_the_operator_reads_them():
    arguments = arguments_of(render(FULL))
    for expected in (
        "--max-nodes=1000000",
        "--launch-per-second=0.5",
        "--leader-elect=true",
        "--allowed-runtime-images=localhost/",
        "--allowed-runtime-images=registry.example.com/models/",
        "--runtime-env=AWS_ENDPOINT_URL=http://198.18.0.1:4566",
        "--dry-run",
    ):
        assert expected in arguments
    assert "--dry-run" not in arguments_of(render(MINIMAL))


def test_optional_parts_are_off_by_default():
    kinds = {document["kind"] for document in render(MINIMAL)}
    assert not {"ServiceMonitor", "DaemonSet", "Namespace"} & kinds
    assert {"ServiceMonitor", "DaemonSet", "Namespace"} <= {document["kind"] for document in render(FULL)}


def test_device_plugin_lives_alone_and_tolerates_gpu_taints():
    documents = render(FULL)
    [namespace] = of_kind(documents, "Namespace")
    [plugin] = of_kind(documents, "DaemonSet")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert plugin["metadata"]["namespace"] == namespace["metadata"]["name"] != "pinnace-system"
    pod = plugin["spec"]["template"]["spec"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert "privileged" not in pod["containers"][0]["securityContext"]


def test_service_account_annotations():
    [account] = of_kind(render(FULL), "ServiceAccount")
    assert account["metadata"]["name"] == "gpu-operator"
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("role/pinnace-operator")
    bindings = of_kind(render(FULL), "ClusterRoleBinding") + of_kind(render(FULL), "RoleBinding")
    assert {subject["name"] for binding in bindings for subject in binding["subjects"]} == {"gpu-operator"}


def test_aggregated_roles():
    roles = {role["metadata"]["name"]: role for role in of_kind(render(MINIMAL), "ClusterRole")}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert roles["pinnace-view"]["metadata"]["labels"][prefix + "view"] == "true"
    assert prefix + "view" not in roles["pinnace-edit"]["metadata"]["labels"]
    edited = {resource for rule in roles["pinnace-edit"]["rules"] for resource in rule["resources"]}
    assert edited == {"modeldeployments", "modeldeployments/scale"}
    assert not any(key.startswith(prefix) for key in roles["pinnace-pool-edit"]["metadata"]["labels"])
