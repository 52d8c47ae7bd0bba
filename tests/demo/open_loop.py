"""An open-loop client: a request leaves when it is due, whether or not earlier ones have been answered.

    open_loop.py HOST:PORT PATH FILE     FILE: the body of every request

Standard input   lines with a number: so many requests a second from now on; 0 at first. Its end: no more requests
Standard output  a JSON object each second: {"rate", "sent", "answered", "refused", "failed", "p99Ms"}; one for each of
                 the first failures, {"failure"}; and when all answers have come {"end": true, "p99Ms"}, over all

Arrivals are a Poisson process. Latency counts from the time at which a request was due, so that neither a slow server
nor a late client hides the waiting (coordinated omission). Each request has a connection of its own, so that those who
spread connections spread requests. `refused` is 429, what is neither that nor 200 has failed, and nothing is sent again.
"""

import asyncio
import contextlib
import json
import math
import pathlib
import random
import sys
from collections import Counter

TIMEOUT_SECONDS = 15
FAILURES_TOLD = 20


class OpenLoop:
    def __init__(self, address: str, path: str, body: bytes):
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.request = head.encode() + body
        self.rate, self.changed = 0.0, asyncio.Event()
        # The same arrivals in every run.
        self.random = random.Random(1)
        self.counts, self.latencies, self.all = Counter(), [], []
        self.open, self.failures = set(), 0

    async def run(self):
        sending, telling = asyncio.create_task(self.send()), asyncio.create_task(self.tell_each_second())
        await self.obey()
        sending.cancel()
        if self.open:
            await asyncio.wait(self.open)
        telling.cancel()
        self.tell_second()
        tell({"end": True, "p99Ms": p99_ms(self.all)})

    async def obey(self):
        """Takes rates until the input ends."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        async for line in reader:
            self.rate = float(line)
            self.changed.set()

    async def send(self):
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            due += self.random.expovariate(self.rate) if self.rate > 0 else math.inf
            if await self.changed_before(due):
                # The past of a Poisson process says nothing of its future: the new rate may start at once.
                due = now()
                continue
            task = asyncio.create_task(self.ask(due))
            self.open.add(task)
            task.add_done_callback(self.open.discard)
            self.counts["sent"] += 1

    async def changed_before(self, due: float) -> bool:
        """Waits until a request is due, or until there is another rate. What is overdue leaves at once."""
        if due <= asyncio.get_running_loop().time():
            # Without it a client that is late would never read an answer.
            await asyncio.sleep(0)
            return False
        try:
            async with asyncio.timeout_at(due if due < math.inf else None):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True

    async def ask(self, due: float):
        status, what = 0, ""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                status, what = await self.exchange()
        except TimeoutError:
            what = f"no answer in {TIMEOUT_SECONDS} s"
        except (OSError, ValueError, IndexError) as error:
            what = repr(error)
        latency = asyncio.get_running_loop().time() - due
        outcome = {200: "answered", 429: "refused"}.get(status, "failed")
        self.counts[outcome] += 1
        if outcome == "answered":
            self.latencies.append(latency)
            self.all.append(latency)
        elif outcome == "failed":
            self.failures += 1
            if self.failures <= FAILURES_TOLD:
                tell({"failure": what})

    async def exchange(self) -> tuple[int, str]:
        """The status of one answer, and its begin for people."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self.request)
            await writer.drain()
            answer = await reader.read(-1)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if not answer:
            raise ConnectionError("closed without an answer")
        return int(answer.split(None, 2)[1]), answer[:300].decode(errors="replace")

    async def tell_each_second(self):
        now = asyncio.get_running_loop().time
        next_second = now() + 1
        while True:
            await asyncio.sleep(next_second - now())
            next_second += 1
            self.tell_second()

    def tell_second(self):
        counts = {key: self.counts[key] for key in ("sent", "answered", "refused", "failed")}
        tell({"rate": self.rate} | counts | {"p99Ms": p99_ms(self.latencies)})
        self.counts.clear()
        self.latencies.clear()


def p99_ms(latencies: list[float]) -> float | None:
    """99th percentile by nearest rank: of fewer than 100 the largest."""
    if not latencies:
        return None
    return round(sorted(latencies)[math.ceil(len(latencies) * 0.99) - 1] * 1000, 1)


def tell(what: dict):
    print(json.dumps(what), flush=True)


async def main(address: str, path: str, file: str):
    await OpenLoop(address, path, pathlib.Path(file).read_bytes()).run()


if __name__ == "__main__":
    # Whoever reads has gone: there is nothing left to do.
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(main(*sys.argv[1:]))
