"""Who used the CPU."""

import subprocess
import sys

from bench import cpu
from bench.cpu import Process, foreign_share, parse_stat, tree


def test_a_command_with_spaces_and_parentheses():
    text = "42 (a) b (c) S 7 42 40 0 -1 4194304 1 2 3 4 100 50 25 25 20 0 1 0 5 6 7"
    assert parse_stat(text) == Process(42, 7, 40, 200 / cpu.TICKS)


def test_a_tree_has_descendants_and_the_session():
    every = {
        pid: Process(pid, parent, session, 0.0)
        for pid, parent, session in [(1, 0, 1), (10, 1, 10), (11, 10, 10), (12, 11, 12), (13, 1, 10), (20, 1, 20)]
    }
    # 12 has left the session, 13 was orphaned: both belong to 10.
    assert tree(10, every) == {10, 11, 12, 13}


def test_foreign_is_what_is_not_ours():
    assert foreign_share(busy=1.5, own=1.3, elapsed=1.0, cpus=2) == (1.5 - 1.3) / 2
    # Ticks are counted a little apart: never less than nothing.
    assert foreign_share(busy=1.0, own=1.01, elapsed=1.0, cpus=2) == 0.0


def test_a_childs_work_is_the_childs():
    """A process that works while it is watched is seen at work, and another one's work is not its own."""
    spin = "import sys, time\nfor _ in sys.stdin:\n  end = time.process_time() + 0.3\n  while time.process_time() < end: pass\n  print(flush=True)"
    command = [sys.executable, "-c", spin]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **pipes) as ours, subprocess.Popen(command, **pipes) as other:
        for process, low, high in [(ours, 0.25, 0.6), (other, 0.0, 0.1)]:
            watch = cpu.Watch(ours.pid)
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.readline()
            assert low <= watch.end()["server_cpu_seconds"] <= high
        ours.stdin.close()
        other.stdin.close()


def test_memory_is_of_the_whole_tree():
    code = "import subprocess, sys; data = bytearray(64 << 20); print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.readline()
        assert 64 <= cpu.peak_rss_mib(process.pid) <= 160
        process.stdin.close()
