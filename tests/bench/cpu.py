"""Who used the CPU: our own processes, from /proc/<pid>/stat, and all others, from /proc/stat."""

import os
import pathlib
import time
from dataclasses import dataclass

PROC = pathlib.Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    session: int
    # Its own and that of children it has waited for.
    seconds: float


def processes() -> dict[int, Process]:
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                process = parse_stat((folder / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[process.pid] = process
    return found


def parse_stat(text: str) -> Process:
    """The command's name is in parentheses, and may have spaces and parentheses itself."""
    before, _, after = text.rpartition(")")
    fields = after.split()
    ticks = sum(int(field) for field in fields[11:15])
    return Process(int(before.split(" ", 1)[0]), int(fields[1]), int(fields[3]), ticks / TICKS)


def tree(root: int, all_processes: dict[int, Process]) -> set[int]:
    """The process, what descends from it, and what is in the session that it leads."""
    members = {pid for pid, process in all_processes.items() if process.session == root or pid == root}
    grown = True
    while grown:
        more = {pid for pid, process in all_processes.items() if process.parent in members} - members
        members |= more
        grown = bool(more)
    return members


def tree_seconds(root: int) -> float:
    every = processes()
    return sum(every[pid].seconds for pid in tree(root, every) if pid in every)


def busy_seconds() -> float:
    """All CPUs together since boot, what the hypervisor took for others included.

    Interrupts are left out: nearly all of them carry our own requests over the loopback device, and whether they count
    as a process's time too depends on the kernel's configuration.
    """
    line = (PROC / "stat").read_text().splitlines()[0].split()
    user, nice, system, _idle, _iowait, _irq, _softirq, steal = (int(field) for field in line[1:9])
    return (user + nice + system + steal) / TICKS


class Watch:
    """What the CPUs did between its making and `end`."""

    def __init__(self, server: int):
        self.server = server
        self.started, self.busy, self.server_start = time.monotonic(), busy_seconds(), tree_seconds(server)
        self.self_start = own_seconds()

    def end(self) -> dict:
        """Seconds of the server, of this process with its client, and the share of all CPUs that others used."""
        busy, server = busy_seconds() - self.busy, tree_seconds(self.server) - self.server_start
        own, elapsed = own_seconds() - self.self_start, time.monotonic() - self.started
        return {
            "server_cpu_seconds": server,
            "harness_cpu_seconds": own,
            "foreign_share": foreign_share(busy, server + own, elapsed, os.cpu_count() or 1),
        }


def own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def foreign_share(busy: float, own: float, elapsed: float, cpus: int) -> float:
    return max(0.0, busy - own) / (elapsed * cpus)


def peak_rss_mib(root: int) -> float:
    """Sum over the processes of the tree of the most memory each ever had resident; what they share counts for each."""
    total = 0.0
    for pid in tree(root, processes()):
        try:
            status = (PROC / str(pid) / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    return total
