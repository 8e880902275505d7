# Every target works from a bare clone: it first makes .venv and builds what changed.
.DEFAULT_GOAL := help
.PHONY: help bootstrap up test check fix types lock docs wheels ci

# Recipes are silent: `make up ARGS="--for 15s --json"` prints one JSON document and nothing else.
.SILENT:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=

help:
	echo 'make up ARGS="..."    a whole sealed mesh on this machine (ARGS as for "meshfold up")'
	echo 'make test             Rust and Python tests'
	echo 'make check            everything that only reads: format, lint, types, layers, generated files'
	echo 'make fix              format, and apply the lints that can fix themselves'
	echo 'make docs             build the manual into target/site and run its code'
	echo 'make lock             refresh the hashed lists in requirements/'
	echo 'make wheels           both release wheels, into dist/'
	echo 'make ci               what CI runs'

bootstrap:
	tools/bootstrap.sh

up: bootstrap
	exec $(BIN)/meshfold up $(ARGS)

test: bootstrap
	cargo test --quiet --workspace
	$(PYTEST) $(ARGS)

check: bootstrap
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) types
	$(BIN)/lint-imports
	$(BIN)/python tools/registry.py --check

types: bootstrap
	$(BIN)/python -m mypy
	MYPYPATH=tools:core/tests:helm/tests:mesh/tests:security/tests:consensus/tests $(BIN)/python -m mypy $(sort tools $(filter-out tools/%,$(wildcard */tests)))
	MYPYPATH=integration/containers:helm/tests $(BIN)/python -m mypy integration/containers
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m mypy.stubtest meshfold._native --concise --ignore-disjoint-bases --allowlist tools/stubtest-allow.txt --ignore-unused-allowlist --mypy-config-file pyproject.toml

fix: bootstrap
	$(BIN)/python tools/registry.py
	$(BIN)/python tools/examples.py
	$(BIN)/python tools/parity.py
	$(BIN)/python tools/hostile_rows.py
	$(BIN)/python tools/commands.py
	cargo fmt --all
	cargo clippy --quiet --fix --allow-dirty --allow-staged --workspace --all-targets
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: bootstrap
	$(BIN)/zensical build --clean
	$(PYTEST) tools/tests/test_docs.py

lock: bootstrap
	$(BIN)/python tools/lock.py

wheels: bootstrap
	tools/wheels.sh dist

ci:
	.ci/run
