# Every target uses .venv, which is made when it is missing and renewed when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
WORKERS ?= 2

.PHONY: help book own pages test lint notebooks clean

help:
	@echo "make book       run the notebooks whose inputs changed and build the book"
	@echo "make pages      look at the pages of the built book in headless Chromium"
	@echo "make own        run every chapter in the paper profile, on tiny models and data of its own"
	@echo "make test       style check, tests, the examples in docstrings, and the checked cells of the notebooks"
	@echo "make lint       style check and spelling"
	@echo "make notebooks  run the committed notebooks in place (ONLY=04 for one)"
	@echo "make clean      remove what was built (.venv stays)"
	@echo "PYTHON=...      the Python that .venv is made with, 3.11 or newer (default python3)"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "uwm-book needs Python 3.11 or newer, and $(PYTHON) is not: name one, as in make PYTHON=python3.12." >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[book,dev]'
	@touch $@

# One thread as in `make test`: results are kept by their content and thread count, so each serves the other.
book: export OMP_NUM_THREADS ?= 1
book: $(INSTALLED)
	$(BIN)/python book/build_book.py

pages: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) -m site tests/test_pages.py

own: export OMP_NUM_THREADS ?= 1
own: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) -m own tests/test_paper_profile.py

# Two workers of one thread each use two cores better than one worker of two threads.
test: export OMP_NUM_THREADS ?= 1
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --doctest-modules tests uwmlib
	TQDM_DISABLE=1 MPLBACKEND=agg $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --nbval-lax notebooks \
	  --nbval-current-env --nbval-cell-timeout 600

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/codespell

notebooks: $(INSTALLED)
	$(BIN)/python book/refresh_notebooks.py $(ONLY)

clean:
	rm -rf _build _runs dist .pytest_cache .ruff_cache
