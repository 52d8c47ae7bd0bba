"""What becomes of nodes: the control socket while it has room, else Node objects. Both are small stateful fakes
here; the end-to-end tests run against the real ones."""

import http.server
import json
import os
import socketserver
import threading

import pytest
from awssim import Group, eventually, start


class Api(http.server.BaseHTTPRequestHandler):
    """Nodes of a Kubernetes API: create, get, merge patch, delete. Real kubelets are Ready at once."""

    protocol_version = "HTTP/1.1"

    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"null")

    def missing(self):
        self.answer(404, status(404, "NotFound"))

    def name(self):
        return self.path.split("?")[0].split("/")[4]

    def do_POST(self):
        node = self.body()
        name = node["metadata"]["name"]
        if name in self.server.nodes:
            return self.answer(409, status(409, "AlreadyExists"))
        node["metadata"] |= {"uid": f"uid-{name}", "resourceVersion": "1"}
        self.server.nodes[name] = node
        self.answer(201, node)

    def do_GET(self):
        node = self.server.nodes.get(self.name())
        self.answer(200, node) if node else self.missing()

    def do_PATCH(self):
        node = self.server.nodes.get(self.name())
        patch = self.body()
        if not node:
            return self.missing()
        merge(node, patch)
        self.answer(200, node)

    def do_DELETE(self):
        node = self.server.nodes.pop(self.name(), None)
        self.body()
        self.answer(200, node) if node else self.missing()

    def log_message(self, *_):
        pass


def status(code, reason):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason}


def merge(into, patch):
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


class Control(Api):
    """The sandbox's control socket, with room for one node."""

    def address_string(self):
        return "socket"

    def do_POST(self):
        order = self.body()
        if self.server.running and order["name"] not in self.server.running:
            return self.answer(429, {"error": "full"})
        self.server.running[order["name"]] = order
        self.server.api.nodes[order["name"]] = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": order["name"], "uid": "kubelet", "labels": order["labels"]},
            "spec": {"providerID": order["providerId"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.answer(201, {"name": order["name"], "address": "198.19.2.1"})

    def do_DELETE(self):
        self.body()
        self.server.running.pop(self.path.split("/")[2], None)
        self.send_response(204)
        self.end_headers()


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("socket", 0)


@pytest.fixture
def world(sim_binary, tmp_path):
    """A simulator, the Kubernetes API and the control socket that it uses."""
    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    api.nodes = {}
    path = os.path.join(tmp_path, "c.sock")
    control = UnixServer(path, Control)
    control.running, control.api = {}, api
    for server in (api, control):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    more = ["--kubeconfig", str(kubeconfig), "--control-socket", path]
    with start(sim_binary, tmp_path, more) as sim:
        yield sim, api, control
    for server in (api, control):
        server.shutdown()
        server.server_close()


def gpus(node):
    return node["status"].get("allocatable", {}).get("nvidia.com/gpu")


def test_real_nodes_first_then_simulated_ones(world):
    sim, api, control = world
    group = Group(sim, "pn-nodes")
    ids = group.settle(2)
    with_gpus = lambda: len(api.nodes) == 2 and all(gpus(n) == "1" for n in list(api.nodes.values()))  # noqa: E731
    eventually(with_gpus, "both nodes show their GPU")
    (real,) = control.running.values()
    assert real["labels"]["pinnace.dev/pool"] == "g5"
    assert real["labels"]["eks.amazonaws.com/nodegroup"] == "pn-nodes"
    assert real["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert {n["spec"]["providerID"] for n in api.nodes.values()} == {f"aws:///us-east-1a/{i}" for i in ids}
    assert "kwok.x-k8s.io/node" not in api.nodes[real["name"]]["metadata"].get("annotations", {})

    (fake,) = [n for name, n in api.nodes.items() if name != real["name"]]
    assert fake["metadata"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    assert fake["status"]["conditions"][0]["status"] == "True"
    assert fake["status"]["allocatable"]["cpu"] == "3920m" and fake["status"]["allocatable"]["memory"] == "14162Mi"
    assert fake["metadata"]["labels"]["topology.kubernetes.io/zone"] == "us-east-1a"

    group.settle(0)
    eventually(lambda: not api.nodes and not control.running, "nodes and their objects are gone")
    group.delete()


def test_an_object_left_by_an_earlier_account_is_replaced(world):
    sim, api, control = world
    control.running["taken"] = {}
    name = "ip-10-1-0-4.ec2.internal"
    api.nodes[name] = {"metadata": {"name": name, "uid": "old"}, "spec": {"providerID": "aws:///us-east-1a/i-old"}}
    group = Group(sim, "pn-left")
    (one,) = group.settle(1)
    # For a moment the old object is gone and the new one is not there yet.
    replaced = lambda: name in api.nodes and api.nodes[name]["spec"]["providerID"].endswith(one)  # noqa: E731
    eventually(replaced, "the Node is the instance's")
    eventually(lambda: gpus(api.nodes[name]) == "1", "its GPU shows")
