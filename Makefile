# `make repro PYTHON=python3.12 TARGETS=train@mnist_cnn`: variables that you may set, and their defaults.
PYTHON ?= python3
REMEMBERED := $(shell cat .venv/requirements-name 2> /dev/null)
REQUIREMENTS ?= $(or $(REMEMBERED),requirements.txt)# or requirements-gpu.txt; the clone remembers it
TARGETS ?=
JOBS ?=# stages of `make repro` at the same time, cores / threads by default; trials of `make search`, one by default
BASE ?= main# any revision: branch, tag, commit, DVC experiment
REAL ?= mnist_dense mnist_cnn fashion_mnist_dense fashion_mnist_lenet# models of `make real`
EXPERIMENTS ?=
NAME ?=# name of the dataset that `make dataset` adds
FROM ?=# its source: a folder or table of images
BACKBONE ?=# its backbone: a network of keras.applications, such as efficientnetv2b0
GROUP ?=# a pattern; files in whose names it matches the same text stay in one split
FIT ?=# crop (the default), pad or stretch pictures to the shape that a model takes
SKIP_INVALID ?=# 1: leave out files that are not valid images
MODEL ?=# one model; `make measure` takes several names with spaces between, empty for all
IMAGES ?=# files, folders and globs for `make predict`, with spaces between
SEED ?=# seeds for `make measure`; empty: three for models that train in up to ten minutes, else one, and those it has
WHOLE ?=# 1: `make measure` trains on the whole training split, without validation images
TRIALS ?= 40# number of trials of `make search`
FORCE ?=# 1: `make promote` promotes a model that the gate did not judge, or that did not pass
BENCHMARK ?=
DATASET ?=# dataset of `make audit-data`: an entry of `datasets` in params.yaml
QUICK ?=# 1: `make bench` takes minutes, and writes nothing

BIN := $(CURDIR)/.venv/bin
# dvc.yaml says `python`: the one with the pinned packages
RUN := PATH="$(BIN):$$PATH"
# Recipes read these from the environment: the name of a branch is never part of a command.
GIVEN := BACKBONE BASE DATASET EXPERIMENTS FIT FORCE FROM GROUP IMAGES JOBS MODEL NAME QUICK REAL SEED SKIP_INVALID TARGETS TRIALS WHOLE
export $(GIVEN)
# As they were given: of a value from its command line, make would expand `$(…)`, even `$(shell …)`.
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))

# A line of a recipe: `$(call check_switch,QUICK)`
check_switch = @case "$$$(1)" in ''|1) ;; *) echo "error: $(1): '$$$(1)': it should be 1, or empty" >&2; exit 1;; esac

# What other installations need, such as ROS or modules of a computing center, must not reach this one.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONWARNINGS PYTHONOPTIMIZE PIP_TARGET PIP_PREFIX PIP_USER
export PYTHONUTF8 = 1

.PHONY: help setup repro dataset finetune setup-cluster pull test test-slow test-cluster check verify machine base review plots gate real measure probe unchanged measured-tables experiments seeds search promote predict export serve bench bench-torch audit audit-data lock
help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

# Compares the content of the lock, not its date: a checkout that brings the same lock back installs nothing. Messages go
# to standard error: `make review > comment.md` contains the comment alone.
setup: ## .venv with the pinned packages; every target below makes it first
	@case "$$(uname -s)-$$(uname -m)" in Linux-*|Darwin-arm64) ;; *) \
	    echo "error: $$(uname -s) on $$(uname -m) is not supported: use Linux, macOS on Apple silicon, or Windows through WSL" >&2; \
	    exit 1;; esac
	@folder="$(CURDIR)"; while [ -n "$$folder" ] && [ ! -e "$$folder/.git" ]; do folder="$${folder%/*}"; done; \
	    test -n "$$folder" || { echo "error: $(CURDIR) is not in a Git repository, which DVC needs: clone the project, or run git init here" >&2; exit 1; }
	@test -z "$(REMEMBERED)" -o "$(REMEMBERED)" = "$(REQUIREMENTS)" || { \
	    echo "error: .venv has the packages of $(REMEMBERED): remove .venv to install $(REQUIREMENTS)" >&2; exit 1; }
	@test -f "$(REQUIREMENTS)" || { echo "error: $(REQUIREMENTS): no such file: set REQUIREMENTS to requirements.txt or requirements-gpu.txt" >&2; exit 1; }
	@test -x .venv/bin/pip || { \
	    $(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	    { echo "error: $(PYTHON) is not Python 3.10 to 3.13: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	    $(PYTHON) -m venv .venv; }
	@cmp -s $(REQUIREMENTS) .venv/installed.txt || { \
	    echo "Installing $(REQUIREMENTS) into .venv: some minutes the first time" >&2; \
	    echo $(REQUIREMENTS) > .venv/requirements-name && \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(REQUIREMENTS) && \
	    cp $(REQUIREMENTS) .venv/installed.txt; }
	@test -f .venv/requirements-name || echo $(REQUIREMENTS) > .venv/requirements-name
	@test .dvc/plots.html -nt .venv/installed.txt -a .dvc/plots.html -nt tools/run/plots_template.html || \
	    $(RUN) python -m tools.run.plots_template >&2

repro: setup ## the pipeline: dvc repro, of TARGETS or of everything that is stale; JOBS stages at a time
	@$(RUN) python -m tools.run.repro "$$JOBS" "$$TARGETS"

dataset: setup ## make the folder or table FROM of images the dataset NAME of params.yaml; docs/datasets.md
	$(call check_switch,SKIP_INVALID)
	@$(RUN) python -m tools.data.dataset "$$NAME" "$$FROM" $(if $(GROUP),--group "$$GROUP") $(if $(SKIP_INVALID),--skip-invalid) $(if $(FIT),--fit "$$FIT") $(if $(BACKBONE),--backbone "$$BACKBONE")

finetune: setup ## add a model that trains the backbone of the head MODEL, too; docs/transfer.md
	@$(RUN) python -m tools.data.head "$$MODEL"

new: setup ## turn this clone into your own project: the sample's entries and results leave
	@$(RUN) python -m tools.data.new

# Changes no installed package: this lock is made on top of the other.
setup-cluster: setup ## Ray on top of it, for `engine: ray`; docs/cluster.md
	@cmp -s requirements-cluster.txt .venv/installed-cluster.txt || { \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-cluster.txt && \
	    cp requirements-cluster.txt .venv/installed-cluster.txt; }

test: setup ## the tests
	@$(RUN) pytest

test-slow: setup ## the tests that take long: forty kills, corrupt caches, runs beside a queue, some benchmarks
	@$(RUN) pytest -m slow

test-cluster: setup-cluster ## the tests of Ray and of object storage, which `make test` skips if they are not installed
	@$(RUN) pytest -n 0 tests/robustness/test_cluster.py tests/robustness/test_storage.py

check: setup ## style and types
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy

verify: setup ## run two clones of HEAD from scratch and compare the bytes
	@$(RUN) python -m tools.run.verify

pull: setup ## fetch outputs from the remote, if one is configured
	@if $(RUN) dvc remote default > /dev/null 2>&1; then $(RUN) dvc pull --allow-missing; \
	else echo "no remote is configured: nothing to pull"; fi

machine: setup ## one line on this machine, which the cache of CI is keyed on
	@$(RUN) python -c 'from stages.reporting.environments import describe; from stages.runtime.numerics import machine; print(describe(machine()))'

base: setup ## reproduce BASE on this machine, for review, plots and gate to compare with
	@$(RUN) python -m tools.compare.base "$$BASE"

review: setup ## the differences between BASE and the workspace, as a comment in Markdown
	@$(RUN) python -m tools.compare.review "$$BASE"

plots: setup ## the plots of BASE and of the workspace on one page, in dvc_plots/
	@reproduced=$$(git rev-parse --quiet --verify "refs/reproduced/$$(git rev-parse --quiet --verify "$$BASE^{commit}")"); \
	    $(RUN) dvc plots diff "$${reproduced:-$$BASE}"

gate: setup ## fail if a model is worse than `gates` in BASE's params.yaml allows, by itself or against BASE
	@$(RUN) python -m tools.compare.gate "$$BASE"

real: setup ## review and gate of the REAL models on real data, BASE and workspace run here; 43 MB of downloads
	@$(RUN) python -m tools.compare.real "$$BASE" "$$REAL"

measure: setup ## train MODEL, or all models, on the real data and write reports/measured/; resumes
	$(call check_switch,WHOLE)
	@$(RUN) python -m tools.compare.measure "$$MODEL" "$$SEED" "$$WHOLE"

probe: setup ## would today's code give the measured results? Minutes; fails and names the models if not
	@$(RUN) python -m tools.compare.probe

unchanged: setup ## after a change of code: record it for stale trainings and extractions that compute the same
	@$(RUN) python -m tools.run.unchanged

measured-tables: setup ## tables and gates from reports/measured/; marks results of other code or params than today's
	@$(RUN) python -c 'from tools.compare.measure import write_limits, write_tables; write_limits(); write_tables()'

experiments: setup ## what each DVC experiment changed against HEAD, a model's best validation accuracy first
	@$(RUN) python -m tools.compare.experiments

seeds: setup ## mean and spread over seeds, of EXPERIMENTS="name name" or of HEAD and all experiments
	@$(RUN) python -m tools.compare.seeds "$$EXPERIMENTS"

# IMAGES without quotes: the shell splits it and expands its globs
predict: setup ## classes of IMAGES="file folder glob" according to MODEL; python -m tools.use.predict --help has options
	@$(RUN) python -m tools.use.predict "$$MODEL" $$IMAGES

export: setup ## MODEL as LiteRT files in data/export, in float32 and with 8-bit integers
	@test -n "$$MODEL" || { echo "error: name a model: make export MODEL=mnist_cnn" >&2; exit 1; }
	@$(RUN) python -m tools.run.repro "" "train@$$MODEL"
	@$(RUN) python -m stages.export "$$MODEL"

serve: setup ## answer for MODEL on http://127.0.0.1:8000, with a page for images; see docs/serving.md
	@test -n "$$MODEL" || { echo "error: name a model: make serve MODEL=mnist_cnn" >&2; exit 1; }
	@$(RUN) python -m tools.use.serve "$$MODEL"

search: setup ## find hyperparameters of MODEL with TRIALS experiments, JOBS at a time; resumes
	@$(RUN) python -m tools.search.search "$$MODEL" "$$TRIALS" "$${JOBS:-1}"

promote: setup ## make MODEL the champion if the gate passes: MLflow alias, GTO tags, model card
	$(call check_switch,FORCE)
	@$(RUN) python -m tools.release.promote "$$MODEL" "$$FORCE"

bench: setup ## all benchmarks or one BENCHMARK, in minutes with QUICK=1; see benchmarks/README.md
	$(call check_switch,QUICK)
	@$(RUN) python -m benchmarks $(if $(QUICK),--quick) $(BENCHMARK)

bench-torch: setup ## install PyTorch, which the training benchmark compares with, in a folder of its own
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --target benchmarks/.torch torch==2.13.0

audit: setup ## known vulnerabilities of the pinned packages according to PyPI; fails offline
	@for lock in requirements.txt requirements-cluster.txt; do \
	    $(RUN) uv tool run pip-audit@2.10.1 --strict --disable-pip --require-hashes -r $$lock 2> .venv/audit.log || { \
	    echo "error: $$lock: audit failed: $$(tail -n 1 .venv/audit.log)" >&2; exit 1; }; done

audit-data: setup ## examine DATASET for duplicates, bad images and label errors: an entry of `audits`, and its stage
	@$(RUN) python -m tools.data.audit_data "$$DATASET"

COMPILE = $(RUN) uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-strip-extras \
    --custom-compile-command "make lock"
# pip before 23.3 forgets the pin of a package that another one requires with an extra, unless a constraint repeats it.
lock: setup ## requirements*.txt from requirements*.in with minimal changes; UPGRADE=--upgrade: newest versions
	@$(COMPILE) $(UPGRADE) requirements.in -o requirements.txt
	@$(COMPILE) requirements-gpu.in -c requirements.txt --no-emit-package tensorflow-cpu -o requirements-gpu.txt
	@sed -n 's/\[.*\]\(==[^\]*[^ \]\).*/\1/p' requirements.txt > constraints.txt
	@$(COMPILE) $(UPGRADE) requirements-cluster.in -c requirements.txt -o requirements-cluster.txt
	@for lock in requirements.txt requirements-gpu.txt requirements-cluster.txt; do echo '-c constraints.txt' >> $$lock; done
