"""The demonstration and the examples run, and the numbers they promise hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl as md
from minidl import demo
from minidl.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = [name for name, state in md.backends().items() if state is True]
QUICK = [name for name in INSTALLED if name != "numba"]  # whose eager mode is numpy's, and whose jit compiles for seconds


def test_the_command_trains_and_prints_a_table(capsys):
    assert main(["demo", "--backend", "numpy", "--epochs", "2", "--steps", "3"]) == 0
    out, err = capsys.readouterr()
    rows = {line.split("  ")[0]: line.split()[-2:] for line in out.splitlines()}
    assert rows["loss, epoch 2"][0] == rows["loss, epoch 2"][1] and "numpy eager" in out and "numpy jit" in out
    assert float(rows["gradient vs NumPy float64"][0]) < 1e-4 and "numpy jit" in err  # the progress bar
    for name in INSTALLED:
        assert name in out


def test_a_missing_backend_is_named_with_the_way_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr(md, "backends", lambda: {"numpy": True, "jax": "jax not installed: pip install 'minidl[jax]'"})
    assert demo.run("jax") == 1
    assert "pip install 'minidl[jax]'" in capsys.readouterr().out
    assert demo.run("all", "eager", epochs=1, steps=1) == 0
    assert "Not here: the jax backend" in capsys.readouterr().out


@pytest.fixture(scope="module")
def double():
    return demo.train("numpy", "eager", 2, "float64", steps=8), demo.reference()


@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("backend", QUICK)
def test_backends_and_modes_agree(backend, mode, double):
    want, exact = double
    got = demo.train(backend, mode, 2, "float64", steps=8)
    np.testing.assert_allclose(got.losses, want.losses, rtol=1e-9)
    assert got.difference(exact) < 1e-12 and got.accuracy == want.accuracy
    single = demo.train(backend, mode, 1, "float32", steps=8)
    np.testing.assert_allclose(single.losses, want.losses[:1], rtol=1e-5)
    assert single.difference(exact) < 1e-4


@pytest.mark.slow
def test_the_network_reads_digits():
    assert demo.train("numpy", "jit", demo.EPOCHS, "float32").accuracy >= 0.97


@pytest.mark.parametrize("path", sorted(p for p in (ROOT / "examples").glob("*.py") if p.stem != "options"), ids=lambda p: p.stem)
def test_examples_run(path, tmp_path):
    """On their small setting; .ci/run does the same on the other backends."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-W", "error", path, "--small"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\bnan\b", done.stdout) and done.stdout.strip()


@pytest.mark.parametrize("name", ["cnn_digits", "lora_distill"])
def test_examples_keep_what_they_promise(name, tmp_path):
    """On the full setting, which ends with an error otherwise; the quick ones of those whose result is near the promise."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / "examples" / f"{name}.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
