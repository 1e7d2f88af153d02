# Every target installs what it needs: .venv is created once, and updated when pyproject.toml or constraints.txt change.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := $(VENV)/.installed-demo
BROWSER := $(VENV)/.browser

# The first interpreter that runs, is new enough and can create a virtual environment (a pyenv shim may exist and fail).
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { echo $$p; break; }; done)

EXTRAS := .[benchmark,sweeps,docs,dev]

# $(call install,PACKAGES): uv takes less than half of pip's time. It does not read pip's configuration, so it is told
# pip's index; where it fails all the same (an index that asks for more), pip tries.
install = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$("$(PY)" -m pip config get global.index-url 2>/dev/null)}" \
	"$(VENV)/bin/uv" pip install --quiet --system-certs --python "$(PY)" --compile-bytecode -c constraints.txt $(1) || \
	"$(PY)" -m pip install --quiet -c constraints.txt $(1)

# Options of reproduce-table; empty: as configured.
MODEL ?= scenes
PROMPTS ?=
PROMPTS_FILE ?=
PROMPTS_LIMIT ?=
STEPS ?=
REFERENCE ?=
RUNS ?=
RESULTS ?=
PLAN ?=
# Options of notebooks: some of them by name, and a folder to write them to instead of storing them; empty: all are stored.
NOTEBOOKS ?=
OUT ?=
# Options of demo: the person's own pipeline (MODEL=folder MODEL_PATH=DIR), and where it listens; empty: this machine alone.
MODEL_PATH ?=
DEMO_HOST ?=
DEMO_PORT ?=
EXPERIMENT ?= $(if $(filter scenes,$(MODEL)),table1,paper)
OVERRIDES = model=$(MODEL) \
	$(if $(PROMPTS),prompts=$(PROMPTS)) \
	$(if $(PROMPTS_FILE),prompts=file prompts.path=$(PROMPTS_FILE)) \
	$(if $(PROMPTS_LIMIT),prompts.limit=$(PROMPTS_LIMIT)) \
	$(if $(STEPS),sampler.steps=$(STEPS)) \
	$(if $(RUNS),paths.runs=$(RUNS)) \
	$(if $(REFERENCE),metrics.reference=$(REFERENCE)) \
	$(if $(RESULTS),paths.results=$(RESULTS))

SMOKE_DIR ?= /tmp/scalecrafter-smoke

# Several processes with one thread each are faster than with all threads each.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: help setup demo test test-slow test-faults lint format type reproduce-table reproduce-table-full preview ablations gallery report validate-metrics notebooks docs train-scenes smoke clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  reproduce-table takes MODEL= PROMPTS= PROMPTS_FILE= PROMPTS_LIMIT= REFERENCE= STEPS= RUNS= RESULTS="
	@echo "  and EXPERIMENT= (paper_1k: the paper's comparison on 1,000 prompts); PLAN=true estimates the cost instead"
	@echo "  notebooks takes RUNS= RESULTS= NOTEBOOKS=\"NAME ...\" and OUT=DIR, which leaves the stored ones"
	@echo "  demo takes MODEL=folder MODEL_PATH=DIR DEMO_HOST= DEMO_PORT="

setup: $(STAMP) ## Create the virtual environment from the pinned versions

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "No Python >= 3.10 with venv and pip found:" \
		"install one (Debian: apt install python3-venv) or pass PYTHON=/path/to/python" >&2; exit 1; fi
	@if [ ! -e "$(VENV)" ]; then \
		echo "Creating $(VENV) with $(PYTHON)"; \
		$(PYTHON) -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; \
	fi
	@"$(PY)" -m pip --version >/dev/null 2>&1 || { \
		echo "$(VENV) exists but has no working Python and pip: remove it (rm -rf $(VENV)) and run make again" >&2; exit 1; }
	@echo "Installing the pinned packages into $(VENV) (once; about a minute, and the download of 5 GB)"
	@"$(PY)" -m pip install --quiet -c constraints.txt uv
	@$(call install,-e "$(EXTRAS)")
	@touch $@

# Gradio 6.31 asks for Pillow below 13, and works with the pinned 13: it is installed without its requirements, and then
# all of these but Pillow.
$(DEMO): $(STAMP)
	@echo "Installing what the page needs into $(VENV) (once)"
	@$(call install,--no-deps gradio)
	@"$(PY)" -c 'from importlib.metadata import requires as r; \
		print(*(x for x in r("gradio") if "extra ==" not in x and not x.startswith("pillow")), sep="\n")' >"$@.txt"
	@$(call install,-r "$@.txt")
	@"$(PY)" -c "import gradio" && touch $@

# For tests in a browser. Where it cannot be installed they are skipped, and the summary of the tests says so.
$(BROWSER): $(DEMO)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && timeout 300 apt-get update -qq && timeout 600 apt-get install -y -qq chromium; } \
		>/dev/null 2>&1 || echo "Chromium is missing and was not installed: tests in a browser will be skipped"
	@touch $@

demo: $(DEMO) ## Draw in a local web page, any method beside direct inference (docs/demo.md)
	$(PY) -m experiments.demo model=$(MODEL) $(if $(MODEL_PATH),'model.path="$(MODEL_PATH)"') \
		$(if $(DEMO_HOST),--host $(DEMO_HOST)) $(if $(DEMO_PORT),--port $(DEMO_PORT))

test: $(BROWSER) ## Run the tests (no GPU, no network)
	$(SIDE_BY_SIDE) $(PY) -m pytest -q -m "not slow and not gpu and not faults" -n logical --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

test-slow: $(STAMP) ## Run the slow tests
	$(PY) -m pytest -q -m "slow and not gpu"

test-faults: $(STAMP) ## Kill, damage and fill up experiments, and resume them (docs/reliability.md)
	$(SIDE_BY_SIDE) $(PY) -m pytest -q tests/faults -n logical --maxprocesses=8

lint: $(STAMP) ## Check style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(STAMP) ## Fix style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

type: $(STAMP) ## Check types
	$(PY) -m mypy

reproduce-table: $(STAMP) ## Generate, score and print the main table (resumes; MODEL=scenes by default)
	$(PY) -m experiments.$(if $(PLAN),plan,reproduce) experiment=$(EXPERIMENT) $(strip $(OVERRIDES))

reproduce-table-full: OVERRIDES += experiment.skip=[]
reproduce-table-full: reproduce-table ## The same, with the rows that take longest

preview: $(STAMP) ## Draw one prompt with all methods at 4 and 16 times the area, in two minutes
	$(PY) -m experiments.demo.preview $(strip $(OVERRIDES)) $(if $(MODEL_PATH),'model.path="$(MODEL_PATH)"')

ablations: $(STAMP) ## Run all ablations, each with a table and a chart
	@status=0; for file in conf/experiment/ablate_*.yaml; do name=$$(basename $$file .yaml); \
		$(PY) -m experiments.reproduce experiment=$$name $(strip $(OVERRIDES)) || status=2; done; \
	$(PY) -m experiments.report $(strip $(filter paths.%,$(OVERRIDES))) && exit $$status

gallery: $(STAMP) ## Redraw the table, charts and galleries from finished runs
	$(PY) -m experiments.table experiment=$(EXPERIMENT) $(strip $(OVERRIDES))

report: $(STAMP) ## Write results/report.html from whatever is finished
	$(PY) -m experiments.report $(strip $(OVERRIDES))

validate-metrics: $(STAMP) ## Measure which score sees which damage (docs/reliability_of_scores.md)
	$(PY) -m experiments.validate_metrics $(if $(RUNS),--runs "$(RUNS)" --hand-counts docs/hand_counts.csv) \
		$(if $(RESULTS),--results "$(RESULTS)")

notebooks: $(STAMP) ## Execute the notebooks on finished runs and store them, and docs/ pictures, with what they show
	RUNS="$(RUNS)" RESULTS="$(RESULTS)" $(PY) -m notebooks.store $(if $(OUT),--out "$(OUT)") $(NOTEBOOKS)

docs: $(STAMP) ## Build the documentation as a site, in site/ (a warning is an error)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build
	@echo "site/index.html; with search: $(PY) -m http.server --directory site"

train-scenes: $(STAMP) ## Train the embedded scenes model from scratch (resumes)
	$(PY) -m experiments.scenes.train

smoke: ## Run reproduce-table at its smallest, in SMOKE_DIR
	$(MAKE) --no-print-directory reproduce-table PROMPTS_LIMIT=4 STEPS=3 \
		RUNS=$(SMOKE_DIR)/runs RESULTS=$(SMOKE_DIR)/results

clean: ## Remove caches and build artefacts (keeps .venv, runs and results)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
