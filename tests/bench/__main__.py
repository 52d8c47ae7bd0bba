"""Measures and writes the page; see `python -m bench --help` and `make bench-runtime`."""

import argparse
import gzip
import json
import os
import pathlib
import platform
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata

from bench import models, page
from bench.contenders import Client
from bench.models import BadModel
from bench.parts import Benchmark
from bench.peers import NAMES
from bench.pinnace import Runtime
from bench.stage import Setup

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ROUNDS_WANTED = 5
BODIES_WANTED = 200
PARTS = ["same-bytes", "list-shaped", "avx2", "shared", "large", "big-table", "dcnv2", "light-ranker", "start"]
# Need more than the given model.
OF_THE_SMALL_RANKER = {"big-table", "dcnv2", "light-ranker"}


@dataclass(frozen=True)
class Settings:
    rounds: int
    seconds: float
    bodies: int
    rows: list[int]
    open_rows: int
    foreign_limit: float
    server_cores: frozenset[int]
    client_cores: frozenset[int]

    def json(self) -> dict:
        cores = {"server_cores": sorted(self.server_cores), "client_cores": sorted(self.client_cores)}
        return vars(self) | cores


def main() -> None:
    # Whoever is ended leaves no servers behind, and least of all stopped ones.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = parse()
    if arguments.page_only:
        results = json.loads(arguments.result.read_text())
    else:
        try:
            results = measure(arguments)
        except BadModel as error:
            sys.exit(f"error: {error}")
    page.write(results, arguments.page)
    keep(results, arguments.page.with_suffix(".json.gz"))
    print(f"results: {arguments.result}\npage: {arguments.page}", file=sys.stderr)


def keep(results: dict, file: pathlib.Path) -> None:
    """Beside the page, every sample that it is made of; the same bytes for the same results."""
    with gzip.GzipFile(file, "wb", mtime=0) as packed:
        packed.write(json.dumps(results).encode())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    peers = ",".join(NAMES)
    parser.add_argument("--model", type=pathlib.Path, help="a model folder; by default the small ranker is made")
    parser.add_argument("--runtime", type=pathlib.Path, required=True, help="the built pinnace-runtime")
    parser.add_argument("--client", type=pathlib.Path, help="another build, to send the requests; by default the same")
    parser.add_argument("--rounds", type=int, default=ROUNDS_WANTED)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one sample")
    parser.add_argument("--bodies", type=int, default=BODIES_WANTED, help="different requests of each kind")
    parser.add_argument("--rows", type=numbers, default=[1, 64, 1024], help="pairs a request, such as 1,64,1024")
    parser.add_argument("--open-rows", type=int, default=64, help="pairs a request in the open loops")
    parser.add_argument("--foreign-limit", type=float, default=0.05, help="share of CPU that others may use in a sample")
    parser.add_argument("--peers", default=peers, help=f"of {peers}; empty for none")
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ",".join(PARTS))
    parser.add_argument("--result", type=pathlib.Path, default=REPOSITORY / "target" / "bench" / "runtime.json")
    parser.add_argument("--page", type=pathlib.Path, default=REPOSITORY / "docs" / "benchmarks" / "runtime.md")
    parser.add_argument("--page-only", action="store_true", help="write the page from --result again")
    arguments = parser.parse_args()
    arguments.peers, arguments.parts = words(arguments.peers), words(arguments.parts)
    for name, given, known in [("peers", arguments.peers, words(peers)), ("parts", arguments.parts, PARTS)]:
        if unknown := set(given) - set(known):
            parser.error(f"--{name}: {', '.join(sorted(unknown))} unknown; there are {', '.join(known)}")
    if min(arguments.rounds, arguments.bodies, *arguments.rows) < 1 or arguments.seconds < 0.1:
        parser.error("--rounds, --bodies and --rows are at least 1, --seconds at least 0.1")
    return arguments


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def numbers(text: str) -> list[int]:
    return [int(word) for word in words(text)]


def measure(arguments: argparse.Namespace) -> dict:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("error: two cores are needed: one for the server, one for its client")
    server, client = frozenset(cores[:1]), frozenset(cores[1:2])
    settings = Settings(
        arguments.rounds, arguments.seconds, arguments.bodies, arguments.rows, arguments.open_rows,
        arguments.foreign_limit, server, client,
    )  # fmt: skip
    # We rest while others are measured, but not on the server's core.
    os.sched_setaffinity(0, client)
    work = pathlib.Path(tempfile.mkdtemp(prefix="bench-runtime-"))
    try:
        return measure_in(work, arguments, settings)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def measure_in(work: pathlib.Path, arguments: argparse.Namespace, settings: Settings) -> dict:
    cache = REPOSITORY / ".cache" / "bench"
    model = models.read(arguments.model) if arguments.model else models.small_ranker(work / "small-ranker")
    if max(*settings.rows, settings.open_rows) > model.max_rows:
        raise BadModel(f"its maxBatchSize is {model.max_rows}: give --rows and --open-rows of at most that")
    results = {
        "version": 1, "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine(),
        "settings": settings.json(), "samples": [], "absent": {}, "facts": {},
        "model": {
            "folder": "the small ranker" if arguments.model is None else model.folder.name,
            "small_ranker": arguments.model is None, "once": model.once,
            "without_vocabulary": [
                given.name for given in model.inputs if given.datatype.startswith("INT") and not given.vocabularies
            ],
        },
        "versions": {name: metadata.version(name) for name in ("onnxruntime", "numpy")},
    }  # fmt: skip
    setup = Setup(Runtime(arguments.runtime, work), work, cache, settings.bodies, tuple(arguments.peers))
    client = Client(arguments.client or arguments.runtime, work, set(settings.client_cores), settings.bodies)
    benchmark = Benchmark(setup, settings, client, results)
    steps = {
        "same-bytes": lambda: benchmark.same_bytes(model),
        "list-shaped": lambda: benchmark.list_shaped(model),
        "avx2": lambda: benchmark.instruction_sets(model),
        "shared": lambda: benchmark.both_cores(model),
        "large": lambda: benchmark.large(model),
        "big-table": benchmark.big_table,
        "dcnv2": benchmark.dcnv2,
        "light-ranker": benchmark.light_ranker,
        "start": lambda: benchmark.starts(model),
    }
    started = time.monotonic()
    for part in PARTS:
        if part in arguments.parts and not (arguments.model and part in OF_THE_SMALL_RANKER):
            steps[part]()
            results["seconds"] = time.monotonic() - started
            # After each part: a run that is interrupted has what it measured.
            arguments.result.parent.mkdir(parents=True, exist_ok=True)
            arguments.result.write_text(json.dumps(results, indent=1) + "\n")
    return results


def machine() -> dict:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(info.get("flags", "").split())
    wanted = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"]
    return {
        "cpu": info.get("model name", platform.machine()), "cores": os.cpu_count(), "kernel": platform.release(),
        "instruction_sets": [name for name in wanted if name in flags], "python": platform.python_version(),
    }  # fmt: skip


if __name__ == "__main__":
    main()
