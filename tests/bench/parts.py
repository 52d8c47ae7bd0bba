"""What is measured, part by part. Names of contenders are keys of the raw results; targets.py looks them up."""

import sys
from dataclasses import replace

from bench import models
from bench.contenders import Load
from bench.models import BadModel, Model
from bench.processes import Unavailable
from bench.ratios import median_of
from bench.rounds import Job, Rounds
from bench.stage import HOISTED, IN_PROCESS, Setup, Stage
from bench.targets import CANDIDATES

SHARES = [0.5, 0.7, 0.9]
# Enough that a server of one core always has the next request at hand.
CONNECTIONS = 8
OPEN_CONNECTIONS = 128
OVERLOAD_CONNECTIONS = 512
# Times the capacity; the last one is what the target is about.
OVERLOADS = [1, 2, 5, 10]
BF16 = "pinnace bf16"
BF16_ONCE = "pinnace bf16, user once"
TOP_K = 50
TOP_K_NAME = f"pinnace, user once, top {TOP_K}"
# Pairs of requests that several engine threads share.
LARGE_ROWS = [1024, 4096]
# What an operator who wants short queues would say: two seconds of this model's work at most.
SHORT_QUEUE = {"PINNACE_MAX_QUEUE": "64", "PINNACE_REQUEST_TIMEOUT": "2s"}


class Benchmark:
    def __init__(self, setup: Setup, settings, client, results: dict):
        self.setup, self.settings, self.client, self.results = setup, settings, client, results
        self.split, self.shared = settings.server_cores, settings.server_cores | settings.client_cores

    def stage(self, cores: set[int], section: str) -> Stage:
        say(section)
        return Stage(self.setup, cores, self.results["absent"].setdefault(section, {}))

    def rounds(self, place: str, section: str, jobs: list[Job], rounds: int | None = None) -> list[dict]:
        self.client.cores = self.settings.client_cores if place == "split" else self.shared
        taken = Rounds(self.client, place, self.settings.foreign_limit).run(jobs, rounds or self.settings.rounds)
        for sample in taken:
            self.results["samples"].append({"section": section} | sample)
        return taken

    def load(self, **what) -> Load:
        return Load(**{"seconds": self.settings.seconds, "connections": CONNECTIONS} | what)

    def field(self, stage: Stage, model: Model) -> None:
        """Ours, the bare server and the peers on the same graph."""
        stage.add_pinnace("pinnace", model)
        stage.add_pinnace(BF16, models.in_bf16(model, self.setup.work / "bf16"), doors=("http",))
        other = models.configured(model, self.setup.work / "on-onnxruntime", engine="onnxruntime")
        stage.add_pinnace("pinnace on ONNX Runtime", other, doors=("http",))
        try:
            bare = models.without_arithmetic(model, self.setup.work / "without-a-model")
            stage.add_pinnace("without a model", bare)
        except BadModel as reason:
            stage.absent["without a model"] = str(reason)
        stage.add_in_process(IN_PROCESS, model, model.path)
        stage.add_peers(model)

    def same_bytes(self, model: Model) -> None:
        """Row A: capacity by rows a request, then one pair alone, then the open loops."""
        section = "same bytes"
        with self.stage(self.split, section) as stage:
            self.field(stage, model)
            stage.add_openvino(model)
            self.results["facts"][section] = stage.facts
            for rows in self.settings.rows:
                self.rounds("split", section, [Job(c, self.load(rows=rows)) for c in stage.contenders])
            served = stage.served()
            alone = [Job(c, self.load(rows=1, connections=1), "alone") for c in served]
            self.rounds("split", section, alone)
            self.open_loops(section, served)
            self.memory(stage)

    def open_loops(self, section: str, served: list) -> None:
        """At shares of each one's own capacity, and all at the same rate, which the slowest can just bear."""
        rows = self.settings.open_rows
        capacity = {c.name: self.capacity(section, c.name, rows) for c in served}
        served = [c for c in served if capacity[c.name]]
        jobs = []
        for contender in served:
            for share in SHARES:
                rate = capacity[contender.name] * share
                jobs.append(Job(contender, self.open(rows, rate), "open", share))
        if served:
            equal = min(capacity[c.name] for c in served) * SHARES[1]
            jobs += [Job(c, self.open(rows, equal), "equal rate") for c in served]
        # Latency at a rate is not a ratio of neighbours: fewer rounds do.
        self.rounds("split", section, jobs, max(1, self.settings.rounds // 2))

    def open(self, rows: int, rate: float) -> Load:
        return self.load(rows=rows, rate=rate, connections=OPEN_CONNECTIONS)

    def capacity(self, section: str, name: str, rows: int) -> float | None:
        wanted = {"section": section, "contender": name, "rows": rows, "purpose": "capacity", "kind": "random"}
        taken = [sample for sample in self.results["samples"] if wanted.items() <= sample.items()]
        # On a machine that is never quiet a disturbed capacity is better than none.
        return median_of(taken, "requests_per_second", self.settings.foreign_limit) or median_of(
            taken, "requests_per_second", 1.0
        )

    def memory(self, stage: Stage) -> None:
        peaks = {c.name.rsplit(" ", 1)[0]: c.server.peak_rss_mib() for c in stage.served()}
        self.results["memory_mib"] = peaks

    def list_shaped(self, model: Model) -> None:
        """Rows B, C and D: the same user in all pairs; peers given our hoisted graph; the user sent once."""
        section = "list-shaped"
        if not model.once:
            self.results["absent"][section] = {"all": "the model's config.yaml declares no requestInputs"}
            return
        with self.stage(self.split, section) as stage:
            stage.add_pinnace("pinnace", model, "list", ("http",))
            stage.add_in_process(IN_PROCESS, model, model.path, "list")
            declared = models.configured(model, self.setup.work / "declared", requestInputs=model.once)
            stage.add_pinnace("pinnace, user declared", declared, "list", ("http",))
            stage.add_pinnace("pinnace, user once", declared, "once", ("http",))
            rounded = models.in_bf16(declared, self.setup.work / "declared-bf16")
            stage.add_pinnace(BF16_ONCE, rounded, "once", ("http",))
            if self.results["model"]["small_ranker"]:
                best = models.configured(declared, self.setup.work / "best", topK={"ids": "sparse[20]"})
                stage.add_top_k(TOP_K_NAME, best, TOP_K)
            self.add_hoisted(stage, model)
            self.results["facts"][section] = stage.facts
            once = ["pinnace, user once http", f"{BF16_ONCE} http", f"{TOP_K_NAME} http", HOISTED]
            kinds = dict.fromkeys(once, "once")
            for rows in [rows for rows in self.settings.rows if rows > 1]:
                jobs = [Job(c, self.load(rows=rows, kind=kinds.get(c.name, "list"))) for c in stage.contenders]
                self.rounds("split", section, jobs)

    def add_hoisted(self, stage: Stage, model: Model) -> None:
        path = self.setup.work / "hoisted.onnx"
        try:
            self.setup.runtime.optimize(model, path)
        except Unavailable as reason:
            stage.absent[HOISTED] = str(reason)
        else:
            stage.add_in_process(HOISTED, model, path, "once")

    def both_cores(self, model: Model) -> None:
        """Server and client share all cores."""
        section = "shared cores"
        with self.stage(self.shared, section) as stage:
            self.field(stage, model)
            rows = max(self.settings.rows)
            jobs = [Job(c, self.load(rows=rows)) for c in stage.served()]
            self.rounds("shared", section, jobs)

    def large(self, model: Model) -> None:
        """One large request at a time, scored by one engine thread or by as many as there are cores."""
        section = "large requests"
        if model.max_rows < max(LARGE_ROWS):
            self.results["absent"][section] = {"all": f"the model's maxBatchSize is {model.max_rows}"}
            return
        with self.stage(self.shared, section) as stage:
            for threads in (1, len(self.shared)):
                settings = {"PINNACE_WORKERS": str(threads)}
                stage.add_pinnace(threads_name(threads), model, doors=("http",), settings=settings)
            for rows in LARGE_ROWS:
                jobs = [Job(c, self.load(rows=rows, connections=1), "large alone") for c in stage.contenders]
                self.rounds("shared", section, jobs)

    def instruction_sets(self, model: Model) -> None:
        """The same bytes with kernels held to what older CPUs have: G5's own is AVX2."""
        section = "avx2"
        if not self.setup.runtime.forces_instruction_sets():
            reason = "this pinnace-runtime has no PINNACE_INSTRUCTION_SET"
            self.results["absent"][section] = {"all": reason}
            return
        with self.stage(self.split, section) as stage:
            stage.add_pinnace("pinnace", model, doors=("http",), settings={"PINNACE_INSTRUCTION_SET": "avx2"})
            stage.add_in_process(IN_PROCESS, model, model.path)
            for rows in [rows for rows in self.settings.rows if rows > 1]:
                self.rounds("split", section, [Job(c, self.load(rows=rows)) for c in stage.contenders])

    def big_table(self) -> None:
        section = "big table"
        say("making the model with a table of 1 GB")
        model = models.big_table(self.setup.cache / "models" / "big-table")
        with self.stage(self.split, section) as stage:
            stage.add_pinnace("pinnace", model, doors=("http",))
            stage.add_in_process(IN_PROCESS, model, model.path)
            rows = max(self.settings.rows)
            self.rounds("split", section, [Job(c, self.load(rows=rows)) for c in stage.contenders])

    def dcnv2(self) -> None:
        """A heavy model; and what is left of its capacity when up to ten times as much is asked."""
        section = "dcnv2"
        model = models.dcnv2(self.setup.cache / "models" / "dcnv2")
        seconds = max(2 * self.settings.seconds, 0.5)
        with self.stage(self.split, section) as stage:
            stage.add_pinnace("pinnace", model, doors=("http",))
            stage.add_pinnace(BF16, models.in_bf16(model, self.setup.work / "dcnv2-bf16"), doors=("http",))
            stage.add_pinnace("pinnace, short queue", model, doors=("http",), settings=SHORT_QUEUE)
            stage.add_in_process(IN_PROCESS, model, model.path)
            self.results["facts"][section] = stage.facts
            load = self.load(rows=64, seconds=seconds)
            self.rounds("split", section, [Job(c, load) for c in stage.contenders])
            ours = stage.get("pinnace, short queue http")
            rate = ours and self.capacity(section, ours.name, load.rows)
            if rate:
                over = replace(load, connections=OVERLOAD_CONNECTIONS, seconds=2 * seconds)
                jobs = [Job(ours, replace(over, rate=times * rate), "overload", times) for times in OVERLOADS]
                self.rounds("split", section, jobs, max(1, self.settings.rounds // 2))

    def light_ranker(self) -> None:
        """A thousand candidates by their ids, the 50 best answered."""
        section = "light ranker"
        say("making the light ranker with a table of 1 M items")
        model = models.light_ranker(self.setup.cache / "models" / "light-ranker")
        with self.stage(self.split, section) as stage:
            stage.add_top_k("pinnace", model, TOP_K)
            stage.add_top_k(BF16, models.light_in_bf16(model, self.setup.work / "light-bf16"), TOP_K)
            load = self.load(rows=CANDIDATES, kind="once")
            self.rounds("split", section, [Job(c, load) for c in stage.contenders])

    def starts(self, model: Model) -> None:
        say("start to ready")
        measured = self.setup.runtime.starts(model, self.split, self.settings.rounds)
        self.results["start"] = measured | {"binary_mib": self.setup.runtime.size_mib()}


def threads_name(threads: int) -> str:
    return f"pinnace, {threads} engine thread{'s' if threads > 1 else ''}"


def say(what: str) -> None:
    print(f"== {what}", file=sys.stderr, flush=True)
