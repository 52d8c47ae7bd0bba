"""The open-loop client, run inside the sandbox's network, where Services have addresses that spread connections."""

import contextlib
import json
import pathlib
import subprocess
import sys
import threading
from collections import Counter

from harness.base import eventually
from harness.sandbox import Sandbox

SCRIPT = pathlib.Path(__file__).with_name("open_loop.py")
COUNTS = ("sent", "answered", "refused", "failed")


class Traffic:
    """`command`: what prefixes a command line so that it runs where `address` is reached."""

    def __init__(self, command, address: str, model: str, body: pathlib.Path):
        self.words = command(sys.executable, SCRIPT, address, f"/v2/models/{model}/infer", body)
        self.seconds, self.failures, self.counts = [], [], Counter()
        self.p99_ms, self.ended, self.process = None, False, None
        self.thread = threading.Thread(target=self.follow, daemon=True)

    @classmethod
    def in_sandbox(cls, sandbox: Sandbox, address: str, model: str, request: dict) -> "Traffic":
        body = sandbox.data / "one-request.json"
        body.write_text(json.dumps(request))
        return cls(sandbox.command, address, model, body)

    def __enter__(self):
        # A session of its own: Ctrl-C in the terminal is for the demo. When the demo dies, its input ends.
        self.process = subprocess.Popen(
            self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.thread.start()
        return self

    def __exit__(self, *_):
        """No more requests; returns when every answer has come."""
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            self.process.stdin.close()
            self.process.wait(timeout=30)
        self.process.kill()
        self.thread.join()

    def follow(self):
        for line in self.process.stdout:
            told = json.loads(line)
            if "failure" in told:
                self.failures.append(told["failure"])
            elif "end" in told:
                self.p99_ms, self.ended = told["p99Ms"], True
            else:
                self.counts.update({key: told[key] for key in COUNTS})
                self.seconds.append(told)

    def set_rate(self, rate: float):
        """Requests a second from now on."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the open-loop client ended by itself: {self.words}")
        self.process.stdin.write(f"{rate}\n")
        self.process.stdin.flush()

    def flows(self):
        """Returns when answers come at the rate that is set."""
        start = len(self.seconds)
        eventually(lambda: sum(s["answered"] > 0 for s in self.seconds[start:]) >= 3, "the client gets answers", 60)

    def last(self) -> dict | None:
        """The last second, with all that failed or was refused until then."""
        if not self.seconds:
            return None
        return self.seconds[-1] | {"refused": self.counts["refused"], "failed": self.counts["failed"]}

    def report(self) -> str:
        counts = self.counts
        p99 = "" if self.p99_ms is None else f", p99 {self.p99_ms:.0f} ms"
        return (
            f"{counts['sent']} requests: {counts['answered']} answered, {counts['refused']} refused with 429, "
            f"{counts['failed']} failed{p99}"
        )

    def assert_all_answered(self):
        """429 is an answer that was declared; everything else that is not 200 is a failure."""
        counts = self.counts
        assert self.ended, "the open-loop client did not come to its end"
        assert counts["failed"] == 0 and counts["answered"] > 0, "\n".join([self.report(), *self.failures])
        assert counts["sent"] == counts["answered"] + counts["refused"], self.report()
