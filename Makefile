# Everything happens inside this folder: the environment, its caches and what the targets write.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
HERE := $(CURDIR)
export PIP_CACHE_DIR := $(HERE)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export XDG_CACHE_HOME := $(HERE)/.cache
export XDG_CONFIG_HOME := $(HERE)/.cache/config
export XDG_DATA_HOME := $(HERE)/.cache/data
export MPLCONFIGDIR := $(HERE)/.cache/matplotlib
export IPYTHONDIR := $(HERE)/.cache/ipython
export JUPYTER_CONFIG_DIR := $(HERE)/.cache/jupyter
export JUPYTER_RUNTIME_DIR := $(HERE)/.cache/jupyter/runtime
export TORCHINDUCTOR_CACHE_DIR := $(HERE)/.cache/inductor
export HF_HOME := $(HERE)/.cache/hub
export HF_HUB_OFFLINE := 1
STEPS ?=

.PHONY: demo test slow shapes lint docs bench claims clean

demo: $(VENV)/.demo  ## train, search and draw: the quickstart
	$(PY) examples/quickstart.py $(if $(STEPS),--steps $(STEPS))

test: $(VENV)/.develop  ## the default suite, then once more with every shape annotation checked
	$(PY) -m pytest
	$(MAKE) shapes

shapes: $(VENV)/.develop
	$(PY) -m pytest -m "not compile and not wording and not slow and not examples" \
	    --jaxtyping-packages=embedkit,beartype.beartype

slow: $(VENV)/.develop  ## what takes minutes: wheel, examples, claims at reduced size
	$(PY) -m pytest -m slow

lint: $(VENV)/.develop
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

docs: $(VENV)/.develop
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.develop  ## rivals beside us; wants an idle machine
	$(PY) benchmarks/info_nce.py
	$(PY) benchmarks/matryoshka.py
	$(PY) benchmarks/memory.py
	$(PY) benchmarks/triplets.py
	$(PY) benchmarks/classifiers.py
	$(PY) benchmarks/late_interaction.py
	$(PY) benchmarks/quantized.py
	$(PY) benchmarks/latent_attention.py
	$(PY) benchmarks/propagation.py
	$(PY) benchmarks/orbits.py
	$(PY) benchmarks/hyperbolic.py
	$(PY) benchmarks/mobius_linear.py
	$(PY) benchmarks/large_batch.py
	$(PY) benchmarks/gather_schemes.py

claims: $(VENV)/.develop  ## every paper's claim, measured again; writes docs/claims.md
	$(PY) -m pip install -q --no-deps recbole==1.2.1  # its wheel carries MovieLens-100K
	$(PY) benchmarks/claims/run.py

clean:
	rm -rf $(VENV) .cache docs/_build examples/out

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PY) -m pip install -q -c constraints.txt -e ".[demo]"
	touch $@

$(VENV)/.develop: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PY) -m pip install -q -c constraints.txt -e ".[demo,test,docs,dev]"
	touch $@ $(VENV)/.demo
