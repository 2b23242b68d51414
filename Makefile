# The two commands are `make book` and `make test`. Both prepare the environment in .venv first; when nothing in
# requirements.txt or pyproject.toml has changed since, that step is skipped and no network is needed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.requirements

# Chapters run on the kernel of this environment, whatever other kernels the machine has.
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH PYTHONPATH PYTHONHOME

.PHONY: help env book test lab bench notebooks check clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make book       execute the chapters (quick profile) and build the HTML into _build/html"
	@echo "make test       lint, tests, and every chapter re-run against its stored outputs"
	@echo "make lab        open the chapters in JupyterLab, which is installed on demand"
	@echo "make bench      measure what the book says about speed, in at most ten minutes"
	@echo "make notebooks  refresh the stored outputs of the chapters from the committed records"
	@echo "                (book and notebooks: CHAPTER=keskar for one alone)"
	@echo "make clean      remove what was built; make distclean removes the environment too"

env: $(STAMP)

# The stamp holds the contents it was made from: a fresh checkout of the same files does not install again.
$(STAMP): requirements.txt pyproject.toml
	@if cat $^ | cmp -s - $@; then touch $@; else \
	  set -e; test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt; \
	  $(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	  mkdir -p $(VENV)/etc/ipython; \
	  echo 'c.IPKernelApp.log_level = "ERROR"' > $(VENV)/etc/ipython/ipython_kernel_config.py; \
	  cat $^ > $@; \
	fi

book: $(STAMP)
	$(BIN)/python tools/book.py execute $(CHAPTER)
	$(BIN)/python tools/book.py html
	$(BIN)/python tools/book.py check

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pytest -n 2 --dist worksteal
	$(BIN)/pytest -n 2 --dist loadfile --nbval --nbval-current-env -W default book

# JupyterLab is no part of the pinned environment, but leaves it as it is.
lab: $(STAMP)
	@test -x $(BIN)/jupyter-lab || \
	  $(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation -c requirements.txt -e '.[lab]'
	$(BIN)/jupyter trust book/*.ipynb
	$(BIN)/jupyter-lab book/keskar.ipynb

bench: $(STAMP)
	$(BIN)/python tools/benchmark.py

notebooks: $(STAMP)
	$(BIN)/python tools/book.py refresh $(CHAPTER)

check: $(STAMP)
	$(BIN)/python tools/book.py check

clean:
	rm -rf _build .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) *.egg-info
