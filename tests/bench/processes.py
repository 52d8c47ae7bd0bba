"""Servers as processes: started on given cores, stopped while others are measured, and gone in the end."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

from bench import cpu


class Unavailable(Exception):
    """This contender cannot be measured here; the message is the reason that the page gives."""


class ServerProcess:
    def __init__(self, command: list, cores: set[int], log: pathlib.Path, environment: dict | None = None, **options):
        self.log = log
        self.started = time.monotonic()
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command], start_new_session=True, stderr=output,
                stdout=options.pop("stdout", output), env=environment,
                preexec_fn=lambda: os.sched_setaffinity(0, cores), **options,
            )  # fmt: skip
        self.pid = self.process.pid

    def wait_ready(self, ready, seconds: float = 120.0) -> float:
        """Seconds from the start until `ready()`."""
        while time.monotonic() < self.started + seconds:
            if self.process.poll() is not None:
                raise Unavailable(f"it exited with {self.process.returncode} at start: {self.last_words()}")
            if ready():
                return time.monotonic() - self.started
            # A poll that spun would take the CPU that the start needs.
            time.sleep(0.002)
        raise Unavailable(f"not ready within {seconds:.0f} s: {self.last_words()}")

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " ".join(lines[-1:])[-300:] or "it said nothing"

    def signal(self, number: int) -> None:
        for pid in cpu.tree(self.pid, cpu.processes()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self) -> None:
        """Those that wait must not disturb the one that is measured."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        self.resume()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.signal(signal.SIGKILL)
        self.process.wait()


def http_ok(port: int, path: str) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
