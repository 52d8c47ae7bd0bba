"""What all peers' servers are told, through the environment: some of them read the command line themselves."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Arguments:
    model: str
    http: int
    grpc: int
    # Workers, each with one thread of ONNX Runtime.
    cores: int


def read() -> Arguments:
    port = lambda name: int(os.environ[name])  # noqa: E731
    return Arguments(os.environ["BENCH_MODEL"], port("BENCH_HTTP"), port("BENCH_GRPC"), port("BENCH_CORES"))
