"""Turns: in each round every contender is measured once, while all the others are stopped."""

import sys
from dataclasses import dataclass, replace

from bench.contenders import Client, Load
from bench.ratios import clean


@dataclass(frozen=True)
class Job:
    contender: object
    load: Load
    # What the sample is for: "capacity", "alone", "open", "overload".
    purpose: str = "capacity"
    # Of an open loop: the share of the contender's own capacity, if its rate is one.
    share: float | None = None


class Rounds:
    """`samples` grows; whatever is written from them later can be written again."""

    def __init__(self, client: Client, place: str, foreign_limit: float):
        self.client, self.place, self.foreign_limit = client, place, foreign_limit
        self.samples: list[dict] = []

    def run(self, jobs: list[Job], rounds: int) -> list[dict]:
        """Until each job has `rounds` undisturbed samples, but at most twice as many rounds."""
        taken: list[dict] = []
        for number in range(2 * rounds):
            if number >= rounds and all(count >= rounds for count in self.undisturbed(jobs, taken)):
                break
            # Nobody always comes after the same neighbour.
            turn = number % len(jobs)
            for job in jobs[turn:] + jobs[:turn]:
                taken.append(self.sample(job, number))
            if number == 0:
                jobs = [job for job in jobs if not failed(job, taken)]
                if not jobs:
                    break
        self.samples += taken
        return taken

    def undisturbed(self, jobs: list[Job], taken: list[dict]) -> list[int]:
        good = [sample for sample in taken if clean(sample, self.foreign_limit)]
        return [sum(matches(sample, job) for sample in good) for job in jobs]

    def sample(self, job: Job, number: int) -> dict:
        job.contender.server.resume()
        try:
            if number == 0:
                # The first requests of a server pay for what later ones find ready.
                job.contender.sample(self.client, replace(job.load, seconds=job.load.seconds / 4))
            measured = job.contender.sample(self.client, job.load)
        finally:
            job.contender.server.pause()
        sample = key(job) | {"place": self.place, "round": number, "rate": job.load.rate} | measured
        tell(sample)
        return sample


def key(job: Job) -> dict:
    return {
        "contender": job.contender.name, "kind": job.load.kind, "rows": job.load.rows, "purpose": job.purpose,
        "share": job.share,
    }  # fmt: skip


def matches(sample: dict, job: Job) -> bool:
    return key(job).items() <= sample.items()


def failed(job: Job, taken: list[dict]) -> bool:
    """One that cannot answer is not asked five times."""
    return any(matches(sample, job) and sample.get("failure") for sample in taken)


def tell(sample: dict) -> None:
    what = sample.get("failure") or (
        f"{sample.get('core_us_per_pair') or 0:8.2f} core-us/pair {sample['pairs_per_second']:12,.0f} pairs/s"
        f"  p99 {sample['p99_ms'] or 0:8.2f} ms  client {sample['client_cpu_share']:4.0%}"
    )
    disturbed = f"  foreign {sample['foreign_share']:.0%}"
    words = f"{sample['place']:6} {sample['purpose']:8} {sample['kind']:6} {sample['rows']:5} {sample['contender']:28}"
    print(words, what, disturbed, file=sys.stderr, flush=True)
