"""What the demo prints: steps with their times, what moves meanwhile, and a summary."""

import contextlib
import json
import threading
import time

import requests

from harness.kube import condition


class Show:
    def __init__(self, total: int):
        self.total, self.times = total, []
        self.started = time.monotonic()
        self.lock = threading.Lock()

    def line(self, text: str):
        with self.lock:
            print(f"{time.monotonic() - self.started:7.1f} s  {text}", flush=True)

    def fail(self, text: str):
        with self.lock:
            print(f"\nerror: {text}\n", flush=True)

    @contextlib.contextmanager
    def step(self, title: str):
        number, begun = len(self.times) + 1, time.monotonic()
        with self.lock:
            print(f"\n{bold(f'{number}/{self.total}  {title}')}", flush=True)
        yield
        self.times.append((title, time.monotonic() - begun))

    def summary(self, facts: list[str]):
        print(f"\n{bold('summary')}")
        for number, (title, seconds) in enumerate(self.times, 1):
            print(f"{seconds:7.1f} s  {number}  {title}")
        print(f"{time.monotonic() - self.started:7.1f} s     together\n")
        for fact in facts:
            print(f"  {fact}")
        print(flush=True)


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m"


class Watch:
    """Prints what the statuses say whenever they say something new."""

    def __init__(self, show: Show, kube, namespace: str, model: str, pool: str):
        self.show, self.names = show, (namespace, model, pool)
        self.done, self.last = threading.Event(), ""
        self.kube = kube.copy()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    def run(self):
        while not self.done.wait(0.5):
            with contextlib.suppress(requests.RequestException, OSError, KeyError):
                now = self.describe()
                if now and now != self.last:
                    self.last = now
                    self.show.line(now)

    def describe(self) -> str:
        namespace, name, pool_name = self.names
        model, pool = self.kube.model(namespace, name), self.kube.pool(pool_name)
        parts = []
        if pool and pool.get("status"):
            nodes = pool["status"]["nodes"]
            words = [f"nodes {nodes['ready']} of {nodes['desired']}"]
            words += [f"{nodes[key]} {key}" for key in ("launching", "draining") if nodes[key]]
            parts.append(", ".join(words))
        if model and model.get("status"):
            replicas = model["status"]["replicas"]
            parts.append(f"replicas {replicas['ready']} of {replicas['desired']}")
        blocked = [b for b in (blocker(model), blocker(pool)) if b]
        return "   ".join(parts + blocked[:1])


def blocker(item: dict | None) -> str:
    ready = condition(item, "Ready")
    if not ready or ready["status"] == "True":
        return ""
    message = ready["message"]
    return f"{ready['reason']}: {message[:90]}{'...' if len(message) > 90 else ''}"


def curl_lines(sandbox, kube, model: tuple[str, str], request: dict):
    """How to play with what was left up."""
    namespace, name = model
    file = sandbox.data / "request.json"
    file.write_text(json.dumps(request))
    address = kube.service_address(namespace, name)
    print(f"""Everything is left up. To play with it:

  export KUBECONFIG={sandbox.kubeconfig}
  {sandbox.binary} kubectl get mdep,gpool,nodes,pods -A
  curl -d @{file} http://{address}/v2/models/{name}/infer
  {sandbox.binary} kubectl scale -n {namespace} mdep/{name} --replicas 3
  curl http://198.18.0.1:4566/_sim/ledger

To end it: make sandbox-down
""")
