# The few commands that everyone uses; continuous integration calls only these. Anything longer is in tests/tools.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint fmt crds corpus bench-runtime sandbox-up sandbox-down images

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install the tools that are missing (Debian packages only as root)
	@tests/tools/setup

demo: ## The whole path on this machine, from kubectl apply to answers, scaling and deletion (KEEP=1: leave it up)
	@tests/tools/build
	@tests/demo/run

test: ## Run all tests but the long ones (PARTS="rust chart": only these)
	@tests/tools/test $(PARTS)

test-long: ## Run all tests
	@tests/tools/test --long $(PARTS)

lint: ## Formatting, clippy, dependencies, generated files, charts, go vet
	@tests/tools/setup toolchains helm kubeconform packages
	@tests/tools/lint

fmt: ## Format the Rust and Go code
	cargo fmt --all
	gofmt -l -w tests/sandbox

crds: ## Generate crds/*.yaml and copy them into the chart
	@tests/tools/crds

corpus: ## Make the exported models of the rank engine's tests again (PyTorch from PyPI, several GB)
	python3 -m venv .cache/corpus
	.cache/corpus/bin/pip install -q -r inference-runtime/rank/tests/corpus/requirements.txt
	.cache/corpus/bin/python inference-runtime/rank/tests/corpus/make.py

bench-runtime: ## Measure the runtime beside its peers, and write docs/benchmarks/runtime.md (MODEL=folder: that model; ARGS=...)
	@tests/bench/run "$(MODEL)" $(ARGS)

sandbox-up: ## Start the Kubernetes cluster of the tests on this machine
	@tests/tools/setup
	@"$$(tests/sandbox/build)" up

sandbox-down: ## Stop it, and remove whatever it left behind
	@"$$(tests/sandbox/build)" down

images: ## Build the container images of operator and runtime as OCI tars
	@tests/tools/build
	@tests/tools/images
