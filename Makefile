# Python >= 3.11 and make are all that a machine needs: everything else lands in .venv.
.DEFAULT_GOAL := help
.PHONY: help book pdf chapter lab test slow browser links lint pairs figure address pins peers grid guarantee bench scale clean
SHELL := /bin/sh
.DELETE_ON_ERROR:

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
BIN := .venv/bin
READY := .venv/.made-from-requirements
PEERS := _build/peers/.made-from-requirements
SITE := _build/html
CHAPTERS = $(basename $(notdir $(wildcard book/*.md)))
PAIRED = $(shell grep -l '^kernelspec:' book/*.md)
WORKERS ?= 2
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

# Chapters run in book/: a folder given relative to the top level would not be found from there.
ifdef SCANVI_DATA_DIR
  override SCANVI_DATA_DIR := $(if $(filter /% ~%,$(SCANVI_DATA_DIR)),$(SCANVI_DATA_DIR),$(abspath $(SCANVI_DATA_DIR)))
else ifneq ($(wildcard ../shared/data),)
  SCANVI_DATA_DIR := $(abspath ../shared/data)
endif
ifdef SCANVI_DATA_DIR
  export SCANVI_DATA_DIR
endif

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{ printf "  make %-8s %s\n", $$1, $$2 }'
	@echo "  SCANVI_DATASET=facs-t make book    the same on another data set; SCANVI_SMOKE=1 is a short run on simulated counts"

book: $(READY) ## run every chapter on real counts and render the book (SCANVI_SMOKE=1: a short run)
	@rm -rf $(SITE) _build/.doctrees _build/jupyter_execute _build/notebooks # an incremental build hides warnings; outputs stay
	@SCANVI_SMOKE="$${SCANVI_SMOKE:-0}" $(BIN)/python scripts/check_settings.py
	@echo "Running the chapters that have changed and rendering all; the others come from _build/.jupyter_cache."
	@SCANVI_SMOKE="$${SCANVI_SMOKE:-0}" PYTHONUNBUFFERED=1 $(BIN)/jupyter-book build . -W -n --keep-going
	@$(BIN)/python scripts/check_book.py $(SITE)
	@echo && echo "Open $(abspath $(SITE))/index.html"

pdf: $(READY) ## write the book that `make book` has rendered as one PDF, with Chromium
	@$(BIN)/python scripts/pdf.py $(SITE)

chapter: $(READY) ## render one chapter, run first if something it depends on has changed (NAME=05_training)
	@test -f "book/$(NAME).md" || { echo "Say which: make chapter NAME=…, one of" $(CHAPTERS); exit 2; }
	@BOOK_CHAPTER="book/$(NAME)" SCANVI_SMOKE="$${SCANVI_SMOKE:-0}" PYTHONUNBUFFERED=1 $(BIN)/jupyter-book build . --quiet
	@echo "Open $(abspath $(SITE))/book/$(NAME).html"

test: $(READY) ## unit tests and every chapter in the smoke profile
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --nbmake --nbmake-timeout=600 --durations=10 -m "not slow and not browser" book tests scanvi_tutorial

slow: $(READY) ## the tests that take longer
	@$(BIN)/pytest -n $(WORKERS) --durations=10 -m slow tests

browser: $(READY) ## look at the built book in Chromium: every page, wide and narrow, light and dark
	@BOOK_SITE=$(SITE) $(BIN)/pytest -n $(WORKERS) --dist loadgroup --durations=5 tests/browser

links: $(READY) ## ask every page that the book links to whether it is still there
	@SCANVI_SMOKE="$${SCANVI_SMOKE:-1}" $(BIN)/jupyter-book build . --builder linkcheck

lint: $(READY) ## ruff, codespell, directions of imports, chapters and their notebooks, files of services
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/codespell
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/check_chapters.py
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/check-jsonschema --builtin-schema vendor.readthedocs .readthedocs.yaml

lab: $(READY) ## open the chapters in JupyterLab: a chapter and its paired notebook are saved together, without outputs
	@$(BIN)/jupyter lab --config=scripts/lab_config.py $(ARGS)

pairs: $(READY) ## write both files of each chapter as Jupytext writes them; the .md file is the source
	@$(BIN)/jupytext --quiet --to ipynb --update $(PAIRED)
	@$(BIN)/jupytext --quiet --to md:myst $(PAIRED:.md=.ipynb)

address: $(READY) ## say where the book lives, to its buttons and to Colab (REPOSITORY=owner/name)
	@case "$(REPOSITORY)" in */*) ;; *) echo 'Say which: make address REPOSITORY=owner/name'; exit 2;; esac
	@sed -i.old 's|^    book_repository: "[^"]*"|    book_repository: "$(REPOSITORY)"|' _config.yml
	@sed -i.old 's|^    repository = "[^"]*"  # written|    repository = "$(REPOSITORY)"  # written|' book/*.md
	@rm -f _config.yml.old book/*.md.old
	@$(MAKE) --no-print-directory pairs

pins: ## write requirements.txt anew from the newest releases that agree
	@$(found) $(PYTHON) scripts/pins.py

peers: $(READY) $(PEERS) ## scvi-tools, Pyro's tutorial and ours on the same draws (ARGS="--dataset facs-t")
	@$(BIN)/python benchmarks/peers.py $(ARGS)

grid: $(READY) ## every method on every draw, for chapter 8 (some hours; ARGS="--dataset facs-t")
	@$(BIN)/python benchmarks/grid.py --jobs $(WORKERS) $(ARGS)

guarantee: $(READY) ## how often sets hold the truth and strangers are noticed, for chapter 13 (some hours)
	@$(BIN)/python benchmarks/guarantee.py --jobs $(WORKERS) $(ARGS)

bench: $(READY) $(PEERS) ## seconds and memory at 20,000 cells × 21,932 genes, beside the others (an hour; ARGS="--parts whole")
	@OMP_NUM_THREADS=$(WORKERS) $(BIN)/python benchmarks/speed.py $(ARGS)

figure: $(READY) ## the figure of the four T-cell classes of the paper, for chapter 6 (two minutes)
	@$(BIN)/python benchmarks/figure6.py

scale: $(READY) ## two processes, cells on disk and many types, for chapter 14 (half an hour; ARGS="--parts memory")
	@$(BIN)/python benchmarks/scale.py $(ARGS)

clean: ## remove all that was built; .venv stays
	rm -rf _build .pytest_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path "./.venv/*" -prune -exec rm -rf {} +

found = test -n "$(PYTHON)" || { echo "No Python >= 3.11 was found. Install one (python.org, or your system's package python3.11), or name one: make PYTHON=/path/to/python"; exit 1; };

$(READY): requirements.txt
	@$(found) $(PYTHON) scripts/environment.py
	@touch $@

$(PEERS): benchmarks/peers-requirements.txt
	@$(found) $(PYTHON) scripts/environment.py _build/peers benchmarks/peers-requirements.txt
	@touch $@
