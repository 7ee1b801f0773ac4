# Everything runs in .venv, made on first use. PYTHON chooses the interpreter it is made from (3.11 or newer).
PYTHON ?= python3
BIN    := .venv/bin
DEMO   := build/demo
# Test processes: as many as there are cores, at most eight; each keeps to one thread, and takes the next file in the order
# of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
SPREAD ?= -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test lint bench gallery gpu clean
help:
	@echo "make demo    the whole road on gated linear attention: check, explain, compile, test, train"
	@echo "make test    lint, types and the whole suite, on the CPU"
	@echo "make lint    ruff and mypy only"
	@echo "make bench   time the generated code against what one would write by hand"
	@echo "make gallery train every causal layer of the library on two small tasks"
	@echo "make gpu     the tests that need a CUDA device, and the times of generated kernels on it"
	@echo "make clean   remove what was built, .venv too"

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seqdsl needs Python 3.11 or newer, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e ".[test]"
	@touch $@

.venv/benched: .venv/installed
	$(BIN)/python -m pip install -e ".[bench]"
	@touch $@

demo: .venv/installed
	@echo; echo "== 1. What is this recurrence, and what is proved of it?  seqc check gla"
	@$(BIN)/seqc check gla
	@echo; echo "== 2. How does the parallel form follow from the equations?  seqc explain gla"
	@$(BIN)/seqc explain gla
	@echo; echo "== 3. PyTorch code, checked before it is written.  seqc compile gla -o $(DEMO)"
	@$(BIN)/seqc compile gla -o $(DEMO)
	@echo; echo "== 4. Do all forms agree on inputs made to break them?  seqc test gla"
	@$(BIN)/seqc test gla
	@echo; echo "== 5. Does it learn?  examples/train_text.py"
	@$(BIN)/python examples/train_text.py
	@echo; echo "The generated files are in $(CURDIR)/$(DEMO):"; ls -l $(DEMO)

test: lint
	$(PYTEST) $(SPREAD)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/benched
	$(BIN)/python -m tests.bench.compare

gallery: .venv/installed
	$(BIN)/python -m pip install -e ".[examples]"
	$(BIN)/python examples/gallery.py

# On a machine that can install nothing, with what its PYTHON has. Rows of the benchmark that would begin after GPU_SECONDS are
# left out, and GPU_MIXERS names those that are timed: all of them take longer than many a machine is lent for.
GPU_SECONDS ?= 7200
GPU_MIXERS  ?=
GPU_NEEDS   := torch, triton, pytest, hypothesis, lark, networkx, sympy, numpy
gpu:
	$(PYTHON) -c 'import $(GPU_NEEDS)' || $(MAKE) .venv/installed
	export PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1; \
	python=$$($(PYTHON) -c 'import $(GPU_NEEDS)' 2>/dev/null && echo $(PYTHON) || echo $(BIN)/python); \
	spread=$$($$python -c 'import xdist' 2>/dev/null && echo -n auto --maxprocesses 12 --dist load); \
	$$python -m pytest -W default -p no:cacheprovider $$spread -m gpu tests/backends/torch_module/test_gpu.py \
		tests/backends/triton_kernel/test_gpu.py tests/backends/triton_kernel/test_gpu_library.py; \
	tested=$$?; $$python -m tests.bench.gpu $(GPU_MIXERS) --seconds $(GPU_SECONDS) && exit $$tested

clean:
	rm -rf .venv build dist out seqdsl.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
