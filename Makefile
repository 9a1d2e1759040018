# Short words for plain commands. Each makes .venv and builds what it needs; nothing is installed
# outside this folder.
PYTHON ?= python3
BIN := .venv/bin
WERROR ?= $(if $(CI),ON,OFF)
# For the CUDA backend, which is built where nvcc is: the oldest and the two that kernels are tuned for.
CUDA_ARCHITECTURES ?= 75-real;80-real;90a-real
# Processes that share the tests, file by file. One that dies ends the run (a replaced one would be
# waited for without end), and so does a test that hangs.
PROCESSES ?= 2
PYTEST = $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --max-worker-restart 0 \
         --timeout 900 --timeout-method thread
SOURCES := $(shell find csrc python cmake CMakeLists.txt pyproject.toml -type f \
             -not -name '*.so' -not -path '*/__pycache__/*')

.PHONY: help demo test test-full test-oldest lint audit sanitize bench gpu-check gpu-wheels tutorials docs \
        clean
help:
	@echo "make demo       train a network on real images (Fashion-MNIST if installed, else digits)"
	@echo "make test       lint, type-check and run every test that this machine can run"
	@echo "make test-full  the same with the exhaustive sweeps (hours)"
	@echo "make test-oldest  the tests that need no PyTorch on Python 3.10 with NumPy 1.23"
	@echo "make lint       formatting, types, generated stubs"
	@echo "make audit      known vulnerabilities of the dependencies (needs PyPI)"
	@echo "make sanitize   the core of the suite under ASan and UBSan, the pool under TSan"
	@echo "make bench      measure every kernel beside NumPy and PyTorch"
	@echo "make gpu-check  on a CUDA machine, offline: build, tests, sanitizers, benchmarks"
	@echo "make gpu-wheels WHEELS=folder PYTHON_TARGET=3.N  collect the wheels that such a machine may lack"
	@echo "make tutorials  run docs/tutorials/*.py and write the notebooks"
	@echo "make docs       build the pages into build/docs and check their links"
	@echo "make clean      remove what the above made"

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

# One wheel for everything, so that the tests test what users install.
dist/.built: $(SOURCES) | $(BIN)/python
	@echo "Building tilegrad (on two cores about four minutes, with nvcc fifteen) ..."
	@rm -rf dist && mkdir dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist \
	  --config-settings=cmake.define.TILEGRAD_WERROR=$(WERROR) \
	  --config-settings='cmake.define.TILEGRAD_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)' .
	@touch $@

.venv/.demo: dist/.built
	@$(BIN)/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	@$(BIN)/python -m pip install --quiet "$$(ls dist/*.whl)[demo]"
	@touch $@

.venv/.test: .venv/.demo
	@echo "Installing what the tests compare with (PyTorch and linters) ..."
	@$(BIN)/python -m pip install --quiet torch==2.13.0
	@$(BIN)/python -m pip install --quiet "$$(ls dist/*.whl)[test,lint]"
	@touch $@

demo: .venv/.demo
	$(BIN)/tilegrad train

test: lint .venv/.test
	$(PYTEST)
	$(MAKE) sanitize

test-full: lint .venv/.test
	$(PYTEST) --full
	$(BIN)/python tests/run_sanitized.py --sim

lint: .venv/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	git ls-files '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/python tests/check_stubs.py

# Of what a user installs, not of the tools of development. The database is PyPI's own: where PyPI is
# mirrored without it, nothing can be audited, and that is an error here.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/python tests/check_dependencies.py > build/audit/requirements.txt
	build/audit/bin/pip-audit --strict --requirement build/audit/requirements.txt

sanitize: .venv/.test
	$(BIN)/python tests/run_sanitized.py

# The oldest Python and NumPy that are supported; the tests that need no PyTorch.
OLDEST ?= python3.10
test-oldest:
	$(OLDEST) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet numpy==1.23.0 pytest hypothesis \
	  pyelftools safetensors matplotlib tqdm
	build/oldest/bin/python -m pip install --quiet --no-deps .
	build/oldest/bin/python -m pytest $$(build/oldest/bin/python tests/runnable.py)

bench: .venv/.test
	$(BIN)/tilegrad bench cpu

# On a CUDA machine, without a registry: build, test, watch and time the kernels; benchmarks/gpu_check.py
# says what else it takes. WHEELS names a folder of wheels for packages that are not installed.
WHEELS ?=
GPU_CHECK ?=
gpu-check:
	$(PYTHON) benchmarks/gpu_check.py $(if $(WHEELS),--wheels "$(WHEELS)") $(GPU_CHECK)

# PYTHON_TARGET: the Python of that machine, where it is not 3.12.
PYTHON_TARGET ?=
gpu-wheels:
	$(PYTHON) benchmarks/gpu_wheels.py "$(or $(WHEELS),build/wheels)" \
	  $(if $(PYTHON_TARGET),--python "$(PYTHON_TARGET)")

.venv/.docs: .venv/.test
	@$(BIN)/python -m pip install --quiet "$$(ls dist/*.whl)[docs]"
	@touch $@

tutorials: .venv/.docs
	$(BIN)/python docs/build_tutorials.py

# The pages name every public function, those of tilegrad.torch too; a warning is an error.
docs: .venv/.docs
	@rm -rf build/docs
	$(BIN)/python -m sphinx -E -q -W --keep-going -c docs -d build/doctrees . build/docs
	$(BIN)/python docs/check_html.py build/docs
	@echo "Open build/docs/index.html"

clean:
	rm -rf .venv build dist
