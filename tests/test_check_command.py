"""`python -m minidl check`, and the page of kinks beside what PyTorch and JAX give."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from minidl.__main__ import main
from minidl.testing import KINKS, command

ROOT = Path(__file__).resolve().parent.parent


def test_it_counts_what_is_right(capsys):
    assert main(["check", "tanh", "abs", "--backend", "numpy", "--quick"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["backend", "version", "primitives", "right", "kinks", "right", "seconds"]
    assert line.split()[:6] == ["numpy", np.__version__, "3", "3", "2", "2"]  # tanh, tanh_dx, abs; abs(0), abs(0j)


def test_it_names_what_is_wrong(capsys, monkeypatch):
    """Of faults as conformance and law report them; that they find faults is in test_match and in conventions/test_conventions.py."""
    monkeypatch.setattr(command, "conformance", lambda *_: {"atan2 float64": ["AssertionError: far off"] * 30})
    monkeypatch.setattr(command, "law", lambda *_: {"atan2(0, 0)": ["tape: value is 1.0, wanted 0.0"]})
    assert main(["check", "atan2", "--backend", "numpy", "--quick"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[2:6] == ["1", "0", "3", "2"]
    assert out[3] == "numpy: atan2 float64: AssertionError: far off" and out[-1] == "numpy: and 11 more" and len(out) == 24


@pytest.mark.parametrize(("arguments", "text"), [(["--backend", "tpu"], "there are numpy, numba"), (["nosuch"], "begins with nosuch")])
def test_it_says_what_there_is(arguments, text, capsys):
    assert main(["check", *arguments]) == 2
    assert text in capsys.readouterr().out


def load():
    spec = importlib.util.spec_from_file_location("kinks_page", ROOT / "docs" / "kinks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_kinks_is_what_the_libraries_give(request):
    """Every case on PyTorch; on JAX, which compiles each, one in sixteen, and all nightly."""
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    page = load()
    text = page.PAGE.read_text(encoding="utf-8").splitlines()
    torch, jax = page.in_torch(), page.in_jax()
    for i, kink in enumerate(KINKS):
        whole = i % 16 == 0 or request.config.getoption("--nightly")
        want = page.line(kink, page.by_torch(kink, torch), page.by_jax(kink, jax) if whole else None)
        found = [t for t in text if t.startswith(want if whole else want.removesuffix("— |"))]
        assert found, f"{want}\nis not in docs/kinks.md: run `python docs/kinks.py` and commit what it writes"
