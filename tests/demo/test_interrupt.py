"""Whatever ends the demo, and whenever: afterwards, or after `make sandbox-down`, nothing of it is left."""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness.base import ROOT, eventually, run  # noqa: E402
from harness.sandbox import Sandbox  # noqa: E402


def traces(sandbox: Sandbox) -> dict:
    """What a cluster could leave on this machine."""
    mounts = pathlib.Path("/proc/mounts").read_text().splitlines()
    return {
        "processes": sorted(processes(sandbox)),
        "mounts": [line for line in mounts if str(sandbox.data) in line or "containerd" in line],
        "links": [line.split(":")[1].strip() for line in run("ip", "-o", "link").splitlines()],
        "namespaces": run("ip", "netns", "list").split(),
        "cgroups": [str(path) for path in pathlib.Path("/sys/fs/cgroup").rglob("*sandbox*") if path.is_dir()],
        "data": sandbox.data.exists(),
    }


def processes(sandbox: Sandbox):
    folder = str(sandbox.binary.parent)
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "exe").startswith((folder, "/usr/local/bin/operator", "/usr/local/bin/pinnace-runtime")):
                yield entry.name
        except OSError:
            continue


def started(until: str) -> subprocess.Popen:
    """The demo, run until its output has this word."""
    demo = subprocess.Popen(
        [ROOT / "tests/demo/run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A shell that runs the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if until in line:
            return demo
    raise AssertionError(f"the demo ended before it said {until!r}:\n{''.join(seen)}")


@pytest.fixture
def clean():
    if os.geteuid() != 0:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("the demo starts containers: it needs Linux and root")
    sandbox = Sandbox()
    sandbox.own()
    run(sandbox.binary, "down")
    sandbox.disown()
    before = traces(sandbox)
    yield sandbox

    def same():
        assert traces(sandbox) == before
        return True

    eventually(same, "nothing is left", 20)


# In step 1, where nothing stands yet, and when pods run on nodes.
@pytest.mark.parametrize("until", ["1/9", "first answer"])
def test_ctrl_c_removes_everything(clean, until):
    demo = started(until)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=120)
    assert demo.returncode == 130


@pytest.mark.parametrize("until", ["1/9", "first answer"])
def test_sandbox_down_removes_what_sigkill_left(clean, until):
    demo = started(until)
    demo.kill()
    demo.communicate(timeout=60)
    run(clean.binary, "down")


# Before process 1, with it, and with the first components.
@pytest.mark.parametrize("made", ["log", "init.pid", "audit.log"])
def test_sandbox_down_ends_an_up_that_is_under_way(clean, made):
    up = subprocess.Popen([clean.binary, "up"], stderr=subprocess.DEVNULL)
    while not (clean.data / made).exists():
        assert up.poll() is None
        time.sleep(0.001)
    run(clean.binary, "down")
    assert up.wait(timeout=10) == -signal.SIGKILL


def test_an_up_does_not_start_for_a_process_that_has_ended(clean):
    with pytest.raises(RuntimeError, match="process 1 .* has ended"):
        run(clean.binary, "up", "--parent", 1)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_a_command_that_has_only_just_started(monkeypatch, stop):
    # Whoever runs the tests in the background has Ctrl-C ignored.
    before = signal.signal(stop, signal.default_int_handler)
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            started.append(self)
            signal.raise_signal(stop)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            run("sleep", "60")
        assert signal.getsignal(stop) is signal.default_int_handler
    finally:
        signal.signal(stop, before)
    assert started[0].poll() == -signal.SIGKILL


def test_who_waits_for_the_cluster_of_others_does_not_take_it_down(tmp_path, monkeypatch):
    monkeypatch.setenv("PINNACE_SANDBOX", str(tmp_path / "sandbox"))
    sandbox = Sandbox()
    # Never the real one: it removes the link that all sandboxes of this machine share.
    sandbox.binary = "false"
    really = fcntl.flock

    def interrupted(file, operation):
        if not operation & fcntl.LOCK_NB:
            raise KeyboardInterrupt
        really(file, operation)

    monkeypatch.setattr(fcntl, "flock", interrupted)
    with open(f"{sandbox.data}.lock", "w") as theirs:
        really(theirs, fcntl.LOCK_EX)
        with pytest.raises(KeyboardInterrupt):
            sandbox.own()
        sandbox.down()
    sandbox.own()
    with pytest.raises(RuntimeError, match="false"):
        sandbox.down()
    sandbox.disown()
