"""`make bench-runtime`: the runtime and its peers, measured in turns on one machine.

    settings -> model folders (models) -> requests (lists, wires) -> contenders (servers, peers) -> rounds (rounds,
    client, cpu) -> target/bench/runtime.json -> ratios (ratios, targets) -> docs/benchmarks/runtime.md (page, plots)

Everything on the page comes from the JSON file: `python -m bench --page-only` writes it again without measuring.
"""
