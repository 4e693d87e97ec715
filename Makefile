# `make demo` and `make test` set up everything they need on a machine with Python 3.11+ and venv.

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
SIMULATED ?= .venv-simulated
BIN := $(VENV)/bin

.PHONY: demo test test-peers test-js simulate-cuda lint bench clean

# Installs again when the package's metadata changes. The marker names what was installed.
$(VENV)/.examples: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[examples]'
	@touch $@

$(VENV)/.test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.examples

$(PEERS)/.installed: benchmarks/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement $< --editable '.[cpu]'
	@touch $@

demo: $(VENV)/.examples  ## train the digits classifier
	$(BIN)/python examples/mnist_mlp.py

test: $(VENV)/.test  ## everything but the peers' references
	$(BIN)/python -m pytest -n auto -q

test-peers: $(VENV)/.test $(PEERS)/.installed  ## make the stored references again, live
	ONNXTAPE_PEER_PYTHON=$(abspath $(PEERS))/bin/python ONNXTAPE_REQUIRE_PEERS=1 \
	  $(BIN)/python -m pytest -n auto -q -m peers

js/node_modules/.installed: js/package.json
	npm install --prefix js --ignore-scripts --no-package-lock --no-audit --no-fund --omit=peer
	@touch $@

test-js: $(VENV)/.test js/node_modules/.installed  ## train from artifacts in Node and in Chromium
	$(BIN)/python -m pytest -q -m js tests/js

$(SIMULATED)/.installed: pyproject.toml tests/cuda/stub/build.py tests/cuda/stub/runtime.c
	$(PYTHON) -m venv $(SIMULATED)
	$(SIMULATED)/bin/python -m pip install --quiet --editable '.[test]'
	$(SIMULATED)/bin/python -m pip uninstall --quiet --yes onnxruntime
	$(SIMULATED)/bin/python -m pip install --quiet onnxruntime-gpu
	$(SIMULATED)/bin/python -m pip install --quiet --no-deps --target $(SIMULATED)/headers \
	  nvidia-cuda-runtime nvidia-cuda-crt
	$(SIMULATED)/bin/python tests/cuda/stub/build.py $(SIMULATED)/cuda $(SIMULATED)/headers
	@touch $@

simulate-cuda: $(SIMULATED)/.installed  ## ONNX Runtime's CUDA provider, on CUDA that computes nothing
	ONNXTAPE_SIMULATED_CUDA=1 LD_LIBRARY_PATH=$(abspath $(SIMULATED))/cuda \
	  $(SIMULATED)/bin/python -m pytest -q -m simulated tests/cuda

lint: $(VENV)/.test  ## ruff, and mypy on the installed package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/typecheck.py

bench: $(VENV)/.test $(PEERS)/.installed  ## side by side with the peers, in one run
	$(BIN)/python -m benchmarks --peer-python $(PEERS)/bin/python

clean:
	rm -rf $(VENV) $(PEERS) $(SIMULATED) js/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
