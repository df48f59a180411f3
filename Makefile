# `make repro PYTHON=python3.12 TARGETS=train@mnist_cnn`: the variables one may set, with what they are otherwise.
PYTHON ?= python3
REQUIREMENTS ?= requirements.txt# or requirements-gpu.txt, in a .venv of its own: remove the CPU one first
TARGETS ?=
BASE ?= main# any revision: branch, tag, commit, DVC experiment
EXPERIMENTS ?=
TOPIC ?=
QUICK ?=
TIME ?= 600# seconds of `make fuzz`

BIN := $(CURDIR)/.venv/bin
# dvc.yaml says `python`: the one with the pinned packages
RUN := PATH="$(BIN):$$PATH"
# Recipes read these from the environment: the name of a branch is never part of a command.
export BASE EXPERIMENTS

.PHONY: help setup repro cluster setup-cluster pull test test-slow test-cluster check verify review plots gate experiments seeds fuzz bench bench-torch audit lock
help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

# Keyed on what the lock says, not on its date: a checkout that brings the same lock back installs nothing. What it says
# goes to standard error: `make review > comment.md` holds the comment alone.
setup: ## .venv with the pinned packages; every target below makes it first
	@test -x .venv/bin/pip || { \
	    $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	    { echo "Python 3.10 to 3.13 is needed, but $(PYTHON) is not: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	    $(PYTHON) -m venv .venv; }
	@cmp -s $(REQUIREMENTS) .venv/installed.txt || { \
	    echo "Installing $(REQUIREMENTS) into .venv: some minutes the first time" >&2; \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(REQUIREMENTS) && \
	    cp $(REQUIREMENTS) .venv/installed.txt; }
	@test .dvc/plots.html -nt .venv/installed.txt -a .dvc/plots.html -nt tools/plots_template.py || \
	    $(RUN) python -m tools.plots_template >&2

repro: setup ## the pipeline: dvc repro, of TARGETS or of everything that is stale
	@$(RUN) python -m stages.params
	@$(RUN) python -m tools.unlock
	@$(RUN) dvc repro $(TARGETS)

cluster: setup-cluster ## the same with `engine: ray`, and all stale models in training at the same time
	@$(RUN) python -m stages.params
	@$(RUN) python -m tools.unlock
	@$(RUN) python -m tools.cluster

# Changes none of the pinned packages that are there: the lock is made on top of theirs.
setup-cluster: setup
	@cmp -s requirements-cluster.txt .venv/installed-cluster.txt || { \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-cluster.txt && \
	    cp requirements-cluster.txt .venv/installed-cluster.txt; }

test: setup ## the tests
	@$(RUN) pytest

test-slow: setup ## the tests that take long: forty kills, damaged caches
	@$(RUN) pytest -m slow

test-cluster: setup-cluster ## the tests of Ray and of object storage, which `make test` leaves out where they are not installed
	@$(RUN) pytest -n 0 tests/test_cluster.py tests/test_storage.py

check: setup ## style and types
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy

verify: setup ## two clones of HEAD, run from nothing: do they end with the same bytes?
	@$(RUN) python tools/verify.py

pull: setup ## what a remote has, if one is configured
	@if $(RUN) dvc remote default > /dev/null 2>&1; then $(RUN) dvc pull --run-cache --allow-missing; \
	else echo "no remote is configured: nothing to pull"; fi

review: setup ## what the workspace changes against BASE, as a comment in Markdown
	@$(RUN) python -m tools.review "$$BASE"

plots: setup ## the plots of BASE and of the workspace on one page, in dvc_plots/
	@$(RUN) dvc plots diff "$$BASE"

gate: setup ## fails if a model is worse than `gates` of params.yaml allows, by itself or against BASE
	@$(RUN) python -m tools.gate "$$BASE"

experiments: setup ## what each DVC experiment of HEAD changed, a row for each model
	@$(RUN) python -m tools.experiments

seeds: setup ## mean and spread over seeds, of EXPERIMENTS="name name" or of all of HEAD
	@$(RUN) python -m tools.seeds "$$EXPERIMENTS"

fuzz: setup ## the readers of archives against any bytes, for TIME seconds
	@$(RUN) python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.txt
	@$(RUN) python -m tools.fuzz $(TIME)

bench: setup ## how fast it is, all of it or one TOPIC, in minutes with QUICK=1; see benchmarks/README.md
	@$(RUN) python -m benchmarks $(if $(QUICK),--quick) $(TOPIC)

bench-torch: setup ## PyTorch, which the benchmark of training is compared with, in a folder of its own
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --target benchmarks/.torch torch==2.13.0

audit: setup ## known vulnerabilities of the pinned packages, as PyPI has them; fails where it cannot ask
	@for lock in requirements.txt requirements-cluster.txt; do \
	    $(RUN) uv tool run pip-audit@2.10.1 --strict --disable-pip --require-hashes -r $$lock 2> .venv/audit.log || { \
	    echo "error: $$lock: audit failed: $$(tail -n 1 .venv/audit.log)" >&2; exit 1; }; done

COMPILE = $(RUN) uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-strip-extras \
    --custom-compile-command "make lock"
# Before 23.3 pip forgets the pin of a package that another one asks for with an extra, unless a constraint says it again.
lock: setup ## requirements*.txt from requirements*.in, with as few changes as will do; UPGRADE=--upgrade: the newest
	@$(COMPILE) $(UPGRADE) requirements.in -o requirements.txt
	@$(COMPILE) requirements-gpu.in -c requirements.txt --no-emit-package tensorflow-cpu -o requirements-gpu.txt
	@sed -n 's/\[.*\]\(==[^\]*[^ \]\).*/\1/p' requirements.txt > constraints.txt
	@$(COMPILE) $(UPGRADE) requirements-cluster.in -c requirements.txt -o requirements-cluster.txt
	@for lock in requirements.txt requirements-gpu.txt requirements-cluster.txt; do echo '-c constraints.txt' >> $$lock; done
