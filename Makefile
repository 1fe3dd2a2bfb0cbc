# Every verb makes the environment itself if it is missing. `make help` lists them.
SHELL := bash
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3,$(shell command -v $(p))))
BIN := .venv/bin
TORCH_INDEX := https://download.pytorch.org/whl/cpu
REPORT ?=
PYTEST := $(BIN)/python -m pytest

# The tests and the demo start dozens of processes: without bytecode each compiles the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help check test test-unit test-simulation test-store test-ray test-e2e test-faults demo bench format lock clean

help:  ## list the verbs
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.venv: .venv/installed  ## make the environment from the lock (about 3 GB)

.venv/installed: .locks/cpu.txt .locks/torch-cpu.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "Interlock needs Python 3.11 or 3.12; name it with PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --requirement .locks/torch-cpu.txt \
	  || $(BIN)/pip install --no-deps --index-url $(TORCH_INDEX) --requirement .locks/torch-cpu.txt
	$(BIN)/pip install --no-deps --requirement .locks/cpu.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

check: .venv/installed  ## ruff, mypy strict, the rooms' import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: test-unit test-simulation test-store test-ray test-e2e  ## what needs no GPU, but for test-faults: ten to twenty minutes

test-unit: .venv/installed  ## pure and fake, in virtual time: seconds
	$(PYTEST) -n auto --dist worksteal -m "not store and not simulation and not faults" tests/unit

test-simulation: .venv/installed  ## many swaps, histories and spenders in virtual time: tens of seconds
	$(PYTEST) -n auto --dist worksteal -m "simulation and not store and not faults" tests/unit

test-store: .venv/installed  ## the store on a real PostgreSQL, and under real threads and processes
	$(PYTEST) -m store tests/unit

test-ray: .venv/installed  ## local Ray clusters, fake engines
	$(PYTEST) -m "not faults" tests/ray

test-e2e: .venv/installed models  ## real vLLM and real models, on the CPU
	$(PYTEST) -m "not faults" tests/e2e

test-faults: .venv/installed models  ## processes killed in each phase of a swap, beyond the four in test-ray; a dark node (as root, with iproute2); a hundred swaps: 20 minutes
	$(PYTEST) -n auto --dist worksteal -m faults tests/unit
	$(PYTEST) -m faults tests/ray
	$(PYTEST) -m faults tests/e2e

.PHONY: models
models: .venv/installed
	@$(BIN)/interlock models fetch

demo: .venv/installed  ## swap two model sets under load; REPORT=path.json writes the report
	$(BIN)/python -m benchmarks.demo $(if $(REPORT),--report $(REPORT))

bench: .venv/installed  ## the short form of all benchmarks, results into benchmarks/results/: a quarter of an hour
	$(BIN)/python -m benchmarks.overhead --engine scripted --short --streams 256 --only interlock-tuned --only ray-llm-tuned \
	  --report benchmarks/results/overhead.json
	$(BIN)/python -m benchmarks.update --short --peers interlock,restart --report benchmarks/results/update.json
	$(BIN)/python -m benchmarks.swap --swaps 10 --report benchmarks/results/swap.json
	$(BIN)/python -m benchmarks.chain --short --report benchmarks/results/chain.json
	$(BIN)/python -m benchmarks.ledger --short --report benchmarks/results/ledger.json
	$(BIN)/python -m benchmarks.scale --short --report benchmarks/results/scale.json

format: .venv/installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/installed  ## write what is installed now into the lock
	@{ sed -n '/^#/p' .locks/cpu.txt; $(BIN)/pip freeze --all --exclude-editable | grep -v -E '^(pip|torch)='; } > .locks/cpu.txt.new
	@mv .locks/cpu.txt.new .locks/cpu.txt

clean:  ## remove the environment and caches
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
