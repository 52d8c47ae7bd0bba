"""A whole installation on one machine: the sandbox cluster, a simulated AWS account in it, and the operator."""

import contextlib
import json
import os
import pathlib
import subprocess
import time

import requests

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
VENV_PYTHON = REPOSITORY / ".cache" / "venv" / "bin" / "python"
AWS_URL = "http://198.18.0.1:4566"
NAMESPACE = "pinnace-system"
SUBNETS = {"subnet-0a1": "us-east-1a", "subnet-0b2": "us-east-1b", "subnet-0c3": "us-east-1c"}
NODE_ROLE = "arn:aws:iam::111122223333:role/pinnace-gpu-node"
# Simulated seconds a second: a node joins after about 4 s instead of 2 minutes.
TIME_SCALE = 30


def wait_until(condition, seconds, what):
    """Asks until the condition holds and returns its value: never a fixed sleep."""
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (requests.RequestException, subprocess.CalledProcessError, KeyError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s" + (f" ({last})" if last else ""))


def run(*command, stdin=None, check=True, quiet=True):
    done = subprocess.run([str(c) for c in command], input=stdin, text=True, capture_output=True)
    if check and done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, f"{done.stdout}\n{done.stderr}")
    return done.stdout


class World:
    """Started and stopped by whoever made it; `stop` is safe at any moment."""

    def __init__(self, say=lambda text: None):
        self.say = say
        self.sandbox = run(REPOSITORY / "tests/sandbox/build").strip()
        self.data = pathlib.Path(os.environ.get("PINNACE_SANDBOX", "/var/tmp/pinnace-sandbox"))
        self.kubeconfig = self.data / "kubeconfig"
        self.buckets = self.data / "s3"
        self.account = None

    # -- life

    def start(self):
        self.say("starting Kubernetes: API server, scheduler, controllers, a real system node")
        run(self.sandbox, "up")
        self.say("loading the images of operator and runtime")
        for archive in run(REPOSITORY / "tests/tools/images").split():
            run(self.sandbox, "image", "load", archive)
        self.say("starting a simulated AWS account")
        self.start_account()

    def stop(self):
        if self.account:
            self.account.terminate()
        subprocess.run([self.sandbox, "down"], check=True)
        if self.account:
            self.account.wait()
            self.account = None

    def start_account(self):
        self.buckets.mkdir(exist_ok=True)
        subnets = [word for subnet, zone in SUBNETS.items() for word in ("--subnet", f"{subnet}={zone}")]
        log = open(self.data / "log" / "aws-sim.log", "w")
        command = [self.sandbox, "exec", "--", TARGET / "debug" / "aws-sim", "serve", "--listen", "0.0.0.0:4566"]
        command += ["--cluster", "pinnace-sandbox", "--region", "us-east-1", "--account", "111122223333"]
        command += ["--node-role", NODE_ROLE, *subnets, "--s3-root", self.buckets]
        command += ["--iam-policy", REPOSITORY / "terraform/modules/operator-iam/policy.json"]
        command += ["--kubeconfig", self.kubeconfig, "--control-socket", self.data / "control.sock"]
        command += ["--time-scale", TIME_SCALE, "--seed", "1"]
        self.account = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self.aws("health"), 30, f"the simulated AWS answers (see {log.name})")

    def install(self, *extra):
        """The definitions and the operator, with waits of seconds instead of minutes."""
        self.say("installing the definitions and the operator with helm")
        self.helm("upgrade", "--install", "pinnace-crds", REPOSITORY / "charts/pinnace-crds", "-n", NAMESPACE, "--create-namespace")
        values = {
            "image": {"repository": "localhost/pinnace-operator", "tag": "dev"},
            "runtimeImage": "localhost/pinnace-runtime:dev",
            "cluster": {"name": "pinnace-sandbox", "region": "us-east-1"},
            "awsEndpointUrl": AWS_URL,
            "runtimeEnv": {
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": AWS_URL,
                "AWS_ALLOW_HTTP": "true",
                "AWS_SKIP_SIGNATURE": "true",
            },
            "extraEnv": [
                {"name": "AWS_ACCESS_KEY_ID", "value": "AKIAOPERATOR"},
                {"name": "AWS_SECRET_ACCESS_KEY", "value": "simulated"},
            ],
            "operator": {
                "cloudPoll": "1s",
                "nodeIdle": "5s",
                "sweepAfter": "60s",
                "absentTwice": "3s",
                "inventoryMaxAge": "30s",
            },
            "nodeSelector": {"pinnace.dev/sandbox-system": "true"},
            "networkPolicy": {"egressPorts": [4566, 443, 6443]},
        }
        file = self.data / "values.json"
        file.write_text(json.dumps(values))
        self.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
        command = ["upgrade", "--install", "pinnace", REPOSITORY / "charts/pinnace", "-n", NAMESPACE, "-f", file]
        self.helm(*command, "--wait", "--timeout", "3m", *extra)

    def helm(self, *args):
        return run("helm", "--kubeconfig", self.kubeconfig, *args)

    def publish_model(self, name="small-ranker", *flags):
        """Writes a model folder into the simulated bucket `models`, and returns its digest."""
        folder = self.buckets / "models" / name
        script = REPOSITORY / "tests/models/make_small_ranker.py"
        return run(VENV_PYTHON, script, folder, *flags).strip().splitlines()[-1]

    def run_inside(self, *command):
        """Runs a command in the sandbox's namespaces."""
        return run(self.sandbox, "exec", "--", *command)

    # -- Kubernetes

    def kubectl(self, *args, stdin=None, check=True):
        command = (self.sandbox, "kubectl", *args)
        return run(*command, stdin=stdin, check=check)

    def apply(self, *objects):
        text = "\n---\n".join(o if isinstance(o, str) else json.dumps(o) for o in objects)
        return self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def refused(self, obj):
        """The API server's words when it refuses an object."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.apply(obj)
            raise AssertionError(f"it was admitted: {json.dumps(obj)[:300]}")
        done = subprocess.run(
            [self.sandbox, "kubectl", "apply", "--server-side", "-f", "-"],
            input=json.dumps(obj), text=True, capture_output=True,
        )
        return done.stderr

    def get(self, kind, name=None, namespace=None, selector=None):
        args = ["get", kind, "-o", "json"]
        args += [name] if name else []
        args += ["-n", namespace] if namespace else ["-A"] if not name else []
        args += ["-l", selector] if selector else []
        found = json.loads(self.kubectl(*args))
        return found if name else found["items"]

    def condition(self, kind, name, type_, namespace=None):
        """(status, reason, message) of a condition of the current generation; None while there is none."""
        obj = self.get(kind, name, namespace)
        for c in obj.get("status", {}).get("conditions", []):
            if c["type"] == type_ and c.get("observedGeneration") == obj["metadata"]["generation"]:
                return c["status"], c["reason"], c["message"]
        return None

    def wait_condition(self, kind, name, type_, status, seconds, reason=None, namespace=None):
        def holds():
            found = self.condition(kind, name, type_, namespace)
            return found and found[0] == status and (reason is None or found[1] == reason) and found

        return wait_until(holds, seconds, f"{kind} {name}: {type_}={status} {reason or ''}")

    # -- AWS

    def aws(self, path, method="GET", **body):
        answer = requests.request(method, f"{AWS_URL}/_sim/{path}", json=body or None, timeout=10)
        answer.raise_for_status()
        return answer.json() if answer.text else {}

    def instances(self):
        return [i for i in self.aws("inventory")["instances"] if i.get("state") not in ("terminated", "shutting-down")]

    def mutations(self, since=0):
        return [e for e in self.aws(f"journal?since={since}&mutation=true")["entries"] if e["outcome"] == "OK"]

    def left_in_aws(self):
        inventory = self.aws("inventory")
        left = [f"group {g.get('name', g)}" for g in inventory["groups"]]
        left += [f"template {t.get('name', t)}" for t in inventory["templates"]]
        return left + [f"instance {i.get('instanceId', i)}" for i in self.instances()]
