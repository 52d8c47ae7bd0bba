"""Where things are, and how to wait for them."""

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(
    os.environ.get("PINNACE_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "pinnace"
)

CLUSTER = "pinnace-sandbox"
REGION = "us-east-1"
NODE_ROLE = "arn:aws:iam::111122223333:role/pinnace-gpu-node"
ZONES = {"subnet-0a1": "us-east-1a", "subnet-0b2": "us-east-1b", "subnet-0c3": "us-east-1c"}
OPERATOR_KEY = "AKIAOPERATOR"

# Asking again costs CPU that the cluster on the same machine needs.
POLL_SECONDS = 0.2


def session() -> requests.Session:
    """Without the proxies and CA bundles that the environment names: everything asked here is on this machine."""
    made = requests.Session()
    made.trust_env = False
    return made


def built(name: str) -> pathlib.Path:
    """A binary of the Cargo workspace."""
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = folder / "debug" / name
    if not path.exists():
        raise SystemExit(f"{path} is missing: run tests/tools/build")
    return path


@contextlib.contextmanager
def undivided():
    """Ctrl-C and SIGTERM that come meanwhile take effect at the end."""
    came = []
    before = {stop: signal.getsignal(stop) for stop in (signal.SIGINT, signal.SIGTERM)}
    # Threads see no signals, and processes started here are to ignore what this one ignores.
    held = [stop for stop, handler in before.items() if handler != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        held = []
    for stop in held:
        signal.signal(stop, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for stop in held:
            signal.signal(stop, before[stop])
        for stop in came:
            signal.raise_signal(stop)


def run(*command, text: str | None = None, check: bool = True, env: dict | None = None) -> str:
    """Standard output of a command; its standard error is part of the exception when it fails.

    When this process is interrupted the command is killed, also one that has only just started, which `subprocess.run`
    leaves behind.
    """
    words = [str(word) for word in command]
    pipes = {"stdin": subprocess.PIPE if text is not None else None, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = None
    try:
        with undivided():
            process = subprocess.Popen(words, text=True, env=os.environ | (env or {}), **pipes)
        output, errors = process.communicate(text)
    except BaseException:
        if process:
            process.kill()
            process.wait()
        raise
    if check and process.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {process.returncode}\n{errors.strip()}\n{output.strip()}")
    return output


def eventually(check, what: str, seconds: float = 60):
    """The first truthy answer of `check`. Until the deadline an assertion, or nobody answering, means: not yet."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = check()
            if last:
                return last
        except (AssertionError, requests.RequestException, KeyError) as error:
            last = repr(error)
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not within {seconds:.0f} s: {what}; last: {str(last)[:2000]}")
