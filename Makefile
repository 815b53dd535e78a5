# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
W ?= docstrings
BIN = .venv/bin
LABDIR ?= notebooks
WORKERS ?= 2

.PHONY: run serve annotate test lab check bench soak lock clean

run: .venv/installed  ## run the default workflow, or another: make run W=electronics
	@$(BIN)/pinmill run $(W)

test: .venv/tested  ## run the whole test suite, by default in two processes
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

serve: .venv/installed  ## serve the champion over HTTP: make serve W=electronics
	@$(BIN)/pinmill serve $(W) $(ARGS)

annotate: .venv/installed  ## open the screen to label texts as an app: make annotate W=electronics
	@$(BIN)/pinmill annotate $(W) $(ARGS)

lab: .venv/installed  ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab $(LABDIR)

check: .venv/tested  ## lint and formatting
	@$(BIN)/ruff check lib tests && $(BIN)/ruff format --check lib tests

bench: .venv/tested  ## measure speed and quality beside peers; prints ratios
	@for script in tests/benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

soak: .venv/tested  ## kill 100 runs at random moments, and try the board with many random sequences
	@$(BIN)/python tests/soak/kill_runs.py $(ARGS)
	@PINMILL_EXAMPLES=500 $(BIN)/python -m pytest --timeout=3600 tests/test_board_property.py

lock:  ## resolve requirements.lock and tests/requirements.lock anew (needs uv)
	@uv pip compile -q pyproject.toml --extra work --extra app --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate -o requirements.lock
	@uv pip compile -q pyproject.toml --extra test --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate -c requirements.lock -o tests/requirements.lock

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pinmill needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv || { echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing from requirements.lock (once) …"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/tested: .venv/installed tests/requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r tests/requirements.lock
	@touch $@

clean:  ## remove the environment; outputs stay
	rm -rf .venv
