# All targets use a virtual environment in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint bench bench-calls bench-programs numerics faults fuzz guard sanitize leaks kernels wheel clean

# Whole programs, unchanged: with NumPy, on nkblas for the first time, and later; the other examples
# compare layers and dtypes.
demo: $(VENV)/demo
	$(BIN)/python -m nkblas run --report examples/network.py
	$(BIN)/python -m bench.programs --runs 1 encoder_block kinematics covariance_pca

test: $(VENV)/test lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

C_FILES = $(filter-out %/nk_tables.h,$(wildcard nkblas/*/*.[ch] tests/tools/*.c tests/tools/*/*.[ch]))

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)
	$(BIN)/mypy
	$(BIN)/python -m nkblas.engine.stub --check

bench: $(VENV)/bench
	$(BIN)/python -m bench --threads 1 2 --json build/bench/bench.json --plot build/bench

# Calls that take longer than NumPy's; CALLS=--isa avx2 for AVX2 kernels on both sides.
bench-calls: $(VENV)/bench
	$(BIN)/python -m bench calls --losing $(CALLS)

# Whole programs, plain and under `nkblas run`; PROGRAMS=--isa avx2, or names of programs.
bench-programs: $(VENV)/bench $(VENV)/demo
	mkdir -p build/bench
	$(BIN)/python -m bench.programs --plot build/bench/programs.png --json build/bench/programs.json $(PROGRAMS)

# The results are in docs/numerics.md; --plot docs draws its figures.
numerics: $(VENV)/bench
	$(BIN)/python -m bench.numerics --json build/numerics/numerics.json --plot build/numerics

# The results are in docs/reliability.md.
faults: $(VENV)/test
	PYTHONPATH=tests/tools $(BIN)/python -m faults

fault-%: $(VENV)/test
	PYTHONPATH=tests/tools $(BIN)/python -m faults $*

# Random calls beside NumPy, and damaged files: FUZZ seconds for each suite.
FUZZ ?= 1200
fuzz: $(VENV)/test
	PYTHONPATH=tests/tools $(BIN)/python -m fuzz --seconds $(FUZZ)

# Memory: guard pages around operands, sanitizers, growth over long runs (docs/reliability.md).
guard: $(VENV)/test
	$(BIN)/python tests/tools/guard.py

sanitize: $(VENV)/test
	$(BIN)/python tests/tools/sanitize.py

leaks: $(VENV)/test
	$(BIN)/python tests/tools/leaks.py

# The kernels that a wheel brings, about 8,000; a checkout uses them, too, until its sources change.
kernels: $(VENV)/test
	$(BIN)/python -m release.kernels

# A wheel with kernels in dist/, tried in an environment without compiler, linker and MLIR.
wheel: kernels $(VENV)/release
	$(BIN)/python -m release.wheel

# One stamp file for each extra: it is installed again when its sources change.
$(VENV)/demo $(VENV)/test $(VENV)/bench $(VENV)/release: pyproject.toml setup.py $(wildcard nkblas/engine/*.[ch] nkblas/engine/*.py nkblas/numpy_ext/*.[ch] nkblas/base/*.py)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(@F)]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info nkblas/*.so nkblas/_engine.c nkblas/engine/nk_tables.h
	rm -f kernels_cache/*.so kernels_cache/kernels.json
