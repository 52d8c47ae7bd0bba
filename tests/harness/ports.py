"""Ports for servers that tests start."""

import random
import socket

# Below those that the kernel gives to clients (from 32768 on): between the look and the server's own bind, one of the
# many connections of other tests could be given a port from there.
PORTS = range(10_000, 30_000)


def free_port() -> int:
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"of 100 ports from {PORTS.start} to {PORTS.stop} none is free")
