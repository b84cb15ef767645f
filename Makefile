# make demo        environment, install, phonons of the example structures into demo/
# make test        environment, install, tests (no torch)
# make test-slow   those that take long, of which most is compilation
# make test-torch  the tests that compare with torch, in an environment of their own
# make test-fairchem  those of fairchem 2, which cannot share it, in another
# make lint types  style and type checks
# make benchmark   every benchmark that this machine allows, within 10 minutes

PYTHON ?= python3
CHGNET = chgnet==0.4.2
TORCH = torch==2.13.0
# Their metadata ask for an older numpy, or for CUDA: they run without what they ask for.
NEQUIX = nequix==0.4.5 equinox jraph wadler-lindig
EQUIFORMER = fairchem-core==1.10.0 e3nn==0.6.0 opt_einsum_fx==0.1.4 torch-geometric==2.8.1 psutil \
	xxhash
BIN = .venv/bin
TORCH_BIN = .venv-torch/bin
FAIRCHEM_BIN = .venv-fairchem/bin

.PHONY: demo test test-slow test-torch test-fairchem lint types benchmark clean

demo: .venv/installed
	$(BIN)/phojax phonons examples/structures/*.cif --temperature 300 800 --out demo

test: .venv/tested
	$(BIN)/python -m pytest -n auto -m "not torch and not slow"

test-slow: .venv/tested
	$(BIN)/python -m pytest -n auto -m "slow and not torch"

test-torch: .venv-torch/installed
	$(TORCH_BIN)/python -m pytest -n auto -m torch

test-fairchem: .venv-fairchem/installed
	$(FAIRCHEM_BIN)/python -m pytest -n auto tests/potentials/test_fairchem.py

lint: .venv/linted
	$(BIN)/ruff check .
	$(BIN)/ruff check --isolated --select F821 tests examples benchmarks
	$(BIN)/ruff format --check .

types: .venv/linted
	$(BIN)/pyright --pythonpath $(BIN)/python

benchmark: .venv-torch/installed
	$(TORCH_BIN)/python benchmarks/run_all.py

# chgnet is installed for the weights in it; its dependencies (torch among them) are not needed.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet --no-deps $(CHGNET)
	@touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@

.venv/linted: .venv/tested
	$(BIN)/python -m pip install --quiet --editable ".[lint]"
	@touch $@

# torch first and alone: other versions bring gigabytes of CUDA libraries.
.venv-torch/installed: pyproject.toml
	$(PYTHON) -m venv .venv-torch
	$(TORCH_BIN)/python -m pip install --quiet --upgrade pip
	$(TORCH_BIN)/python -m pip install --quiet $(TORCH)
	$(TORCH_BIN)/python -m pip install --quiet --editable ".[test]" pymatgen nvidia-ml-py3 $(TORCH)
	$(TORCH_BIN)/python -m pip install --quiet --no-deps $(CHGNET) $(NEQUIX) $(EQUIFORMER)
	@touch $@

.venv-fairchem/installed: pyproject.toml
	$(PYTHON) -m venv .venv-fairchem
	$(FAIRCHEM_BIN)/python -m pip install --quiet --upgrade pip
	$(FAIRCHEM_BIN)/python -m pip install --quiet $(TORCH)
	$(FAIRCHEM_BIN)/python -m pip install --quiet --editable ".[test,fairchem]" $(TORCH)
	@touch $@

clean:
	rm -rf .venv .venv-torch .venv-fairchem demo build
