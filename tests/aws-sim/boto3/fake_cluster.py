"""Small stateful fakes of what nodes are made of: a Kubernetes API, and the sandbox's control socket."""

import contextlib
import http.server
import json
import os
import socketserver
import threading

from awssim import start


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


@contextlib.contextmanager
def world(sim_binary, folder):
    """A simulator, and the Kubernetes API and control socket that it uses."""
    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
    api.nodes = {}
    path = os.path.join(folder, "c.sock")
    control = UnixServer(path, Control)
    control.running, control.api = {}, api
    for server in (api, control):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = folder / "kubeconfig"
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
    with start(sim_binary, folder, more) as sim:
        yield sim, api, control
    for server in (api, control):
        server.shutdown()
        server.server_close()


def gpus(node):
    return node["status"].get("allocatable", {}).get("nvidia.com/gpu")
