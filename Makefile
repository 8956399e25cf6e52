# One word per habit. Needs Python 3.11 or newer and make; the rest is installed into .venv.
PYTHON ?= python3
OUT ?= data/demo
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: venv demo serve test check test-e2e bench bench-gpu bench-extra audit format clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "expected Python 3.11 or newer, got $$($(PYTHON) --version). Give PYTHON=/path/to/it." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dask,dev]'
	@touch $(INSTALLED)

# Simulated radiographs to a finished report; the settings make it small enough for two cores.
demo: venv
	$(BIN)/pneumonia simulate $(OUT)/raw --images 800 --seed 0
	$(BIN)/pneumonia run --raw $(OUT)/raw --workspace $(OUT)/workspace \
	  --set shards.image_size=128 --set split.val_fraction=0.2 --set split.test_fraction=0.2 \
	  --set training.weights=none --set training.epochs=6

# Server, pools, deployments, workers (one a GPU) and reports, until Ctrl-C; a variable given here
# (PORT, REPORTS_PORT, WORKSPACE, GPU_WORKERS, SERVE_HOST) is in the environment there. POSTGRES and
# passwords by `export`: every user can read a command line.
serve: venv
	@$(BIN)/python -m flows.serve

test: check
	$(BIN)/pytest -m "not e2e" --numprocesses 2 --dist loadfile

# Servers, workers and the whole demo: a few minutes more than `make test`.
test-e2e: venv
	$(BIN)/pytest -m e2e

# Every benchmark beside its peers; wants an idle machine, 10 GB of disk and 40 minutes.
bench: bench-extra
	$(BIN)/pneumonia bench conversion
	$(BIN)/pneumonia bench conversion --side 224
	$(BIN)/pneumonia bench shards
	$(BIN)/pneumonia bench verify
	$(BIN)/pneumonia bench evaluation
	$(BIN)/pneumonia bench cam
	$(BIN)/pneumonia bench feeding
	$(BIN)/pneumonia bench training
	$(BIN)/pneumonia bench pipeline
	$(BIN)/pneumonia bench cached

# What a GPU is for, and the whole run at the challenge's size; wants 10 GB of disk.
bench-gpu: bench-extra
	$(BIN)/pneumonia bench feeding
	$(BIN)/pneumonia bench training
	$(BIN)/pneumonia bench pipeline --images 26684

bench-extra: venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dask,dev,bench]'

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Known faults in the pinned packages; asks the package index, and fails where it has no answer.
audit:
	$(PYTHON) -m venv .audit
	.audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	.audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .audit build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
