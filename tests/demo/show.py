"""What the demo prints: steps with their times, lines, a block that is refreshed in place, and a summary."""

import contextlib
import json
import shutil
import sys
import threading
import time


class Show:
    def __init__(self, total: int):
        self.total = total
        # Title, begin and seconds of the steps that are done; seconds since `started`.
        self.steps = []
        self.started = time.monotonic()
        self.lock = threading.RLock()
        self.terminal = sys.stdout.isatty()
        # Lines at the foot of the terminal that are drawn again below whatever is printed.
        self.foot = []

    def now(self) -> float:
        return time.monotonic() - self.started

    def line(self, text: str):
        with self.lock, self.above_foot():
            print(f"{self.now():7.1f} s  {text}", flush=True)

    def refresh(self, lines: list[str]):
        with self.lock:
            with self.above_foot():
                self.foot = [line[: shutil.get_terminal_size().columns - 1] for line in lines]

    @contextlib.contextmanager
    def above_foot(self):
        if self.foot:
            print(f"\033[{len(self.foot)}A\033[J", end="")
        yield
        for line in self.foot:
            print(line)
        sys.stdout.flush()

    def fail(self, text: str):
        with self.lock:
            print(f"\nerror: {text}\n", flush=True)

    @contextlib.contextmanager
    def step(self, title: str):
        begun = self.now()
        with self.lock:
            print(f"\n{bold(f'{len(self.steps) + 1}/{self.total}  {title}')}", flush=True)
        yield
        self.steps.append((title, begun, self.now() - begun))

    def summary(self, facts: list[tuple[str, str]]):
        print(f"\n{bold('summary')}")
        for number, (title, _, seconds) in enumerate(self.steps, 1):
            print(f"{seconds:7.1f} s  {number}  {title}")
        print(f"{self.now():7.1f} s     together\n")
        for name, value in facts:
            print(f"  {name:36}{value}")
        print(flush=True)


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m"


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
