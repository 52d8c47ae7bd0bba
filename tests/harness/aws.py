"""The simulated AWS account: its process beside a cluster, and what it can be asked and told."""

import pathlib
import signal
import subprocess

from .base import CLUSTER, NODE_ROLE, REGION, ROOT, ZONES, built, eventually, session

# Simulated seconds in a real one: node groups and nodes come in seconds, and the 25 minutes after which EKS gives a
# group up are still longer than a kubelet needs on a busy machine.
TIME_SCALE = 20


class Aws:
    """`site`: a Sandbox or an ApiServer: where it runs, and what it listens on."""

    def __init__(self, site, time_scale: int = TIME_SCALE, real_nodes: bool = True):
        self.site, self.time_scale = site, time_scale
        self.control = site.control if real_nodes else None
        self.buckets = site.data / "s3"
        self.log = site.logs / "aws-sim.log"
        self.session = session()
        self.process = None

    def start(self):
        self.buckets.mkdir(parents=True, exist_ok=True)
        subnets = [word for id_, zone in ZONES.items() for word in ("--subnet", f"{id_}={zone}")]
        real_nodes = ["--control-socket", self.control] if self.control else []
        command = self.site.command(
            built("aws-sim"), "serve", "--listen", self.site.aws_listen, "--cluster", CLUSTER, "--region", REGION,
            "--node-role", NODE_ROLE, *subnets, "--iam-policy", ROOT / "terraform/modules/operator-iam/policy.json",
            "--s3-root", self.buckets, "--kubeconfig", self.site.kubeconfig, *real_nodes,
            "--journal-file", self.site.data / "aws-journal.jsonl", "--time-scale", self.time_scale,
        )  # fmt: skip
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the demo, which ends it with the sandbox.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self.healthy, f"the simulated AWS answers; see {self.log}", 30)

    def healthy(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"aws-sim ended: {self.log.read_text()[-2000:]}")
        return self.call("GET", "health")["status"] == "ok"

    def call(self, method: str, path: str, body=None) -> dict:
        answer = self.session.request(method, f"{self.site.aws_url}/_sim/{path}", json=body, timeout=10)
        if not answer.ok:
            raise RuntimeError(f"{method} /_sim/{path}: {answer.status_code} {answer.text}")
        return answer.json()

    # -- the journal of calls

    def mark(self) -> int:
        """Number of the last call, to ask for those after it."""
        return self.call("GET", f"journal?since={2**40}")["last"]

    def journal(self, since: int = 0, mutation: bool | None = None) -> list[dict]:
        only = "" if mutation is None else f"&mutation={str(mutation).lower()}"
        return self.call("GET", f"journal?since={since}{only}")["entries"]

    def mutations(self, since: int = 0) -> list[str]:
        """Actions of callers that changed something, in order; what was changed by hand is not among them."""
        calls = [e for e in self.journal(since, True) if e["outcome"] == "OK" and e["principal"] != "by-hand"]
        return [entry["action"] for entry in calls]

    # -- what there is

    def ledger(self) -> dict:
        return self.call("GET", "ledger")

    def inventory(self) -> dict:
        return self.call("GET", "inventory")

    def instances(self) -> list[dict]:
        """Those that are not on their way out."""
        gone = ("shutting-down", "terminated")
        return [i for i in self.inventory()["instances"] if i["state"] not in gone]

    def left(self) -> dict:
        """Everything that should not be there when nothing is wanted, by kind, without empty kinds."""
        inventory = self.inventory()
        found = {kind: [item["name"] for item in inventory[kind]] for kind in ("groups", "scalingGroups", "templates")}
        found["instances"] = [i["id"] for i in inventory["instances"] if i["state"] != "terminated"]
        return {kind: names for kind, names in found.items() if names}

    # -- faults

    def capacity(self, instance_type: str, zone: str, available: int | None):
        """How many more launches succeed; None: no limit."""
        self.call("PUT", "capacity", {"type": instance_type, "zone": zone, "available": available})

    def hold(self, action: str, point: str, count: int = 1):
        """Holds the next calls of an action, "before" they are committed or "after" it, before the answer."""
        self.call("POST", "holds", {"action": action, "point": point, "count": count})

    def held(self) -> list[dict]:
        return self.call("GET", "holds")["held"]

    def release(self) -> int:
        return self.call("DELETE", "holds")["released"]

    def fault(self, kind: str, **fields) -> int:
        """Sets a fault and returns its number; kinds and fields: tests/aws-sim/FAULTS.md."""
        return self.call("POST", "faults", {"kind": kind, **fields})["id"]

    def faults(self) -> list[dict]:
        """Those that are set, with their hits and whether they are active still."""
        return self.call("GET", "faults")["faults"]

    def remove_fault(self, number: int):
        self.call("DELETE", f"faults/{number}")

    def clear_faults(self) -> int:
        return self.call("DELETE", "faults")["removed"]

    def faulty(self, since: int = 0) -> list[dict]:
        """Entries of the journal that a fault made or met."""
        return [entry for entry in self.journal(since) if "fault" in entry]

    def change_by_hand(self, change: str, **fields):
        """Somebody else changes "size" (group, min, max, desired), "tags" (resource, set, remove), or ends an
        instance: "terminate" (instance)."""
        self.call("POST", "changes", {"change": change, **fields})

    # -- models in the bucket

    def model_folder(self, name: str) -> pathlib.Path:
        """The folder behind s3://models/NAME."""
        folder = self.buckets / "models" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        return folder

    def stop(self):
        """Ends it in order; ending the sandbox ends it as well."""
        if self.process is None or self.process.poll() is not None:
            return
        # The child of nsenter is the simulator; nsenter itself passes no signals on.
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            subprocess.run(["kill", f"-{signal.SIGTERM.value}", pid], check=False)
        self.process.wait(timeout=20)
