"""The reference: its pages are those that the docstrings make now, and every public name has an example and says what it raises."""

from __future__ import annotations

import importlib.util
import inspect
import re
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load()


def test_the_pages_are_up_to_date():
    assert not (old := reference.stale()), f"{', '.join(old)}: run `python docs/reference.py` and commit what it writes"


@pytest.mark.parametrize("room", reference.rooms())
def test_every_public_name_has_a_docstring_and_an_example(room):
    names = list(reference.entries(reference.rooms()[room]))
    assert not [n for n, v in names if not inspect.getdoc(reference.owner(v))], "these have no docstring"
    without = [n for n, v in names if ">>> " not in inspect.getdoc(reference.owner(v))]
    assert not without, f"{room}: write an example for each of {', '.join(without)}"


@pytest.mark.parametrize("room", reference.rooms())
def test_what_raises_says_so(room):
    silent = []
    for name, value in reference.entries(reference.rooms()[room]):
        thing = reference.owner(value)
        try:
            source = inspect.getsource(inspect.unwrap(thing))
        except (OSError, TypeError):  # made from a table, as the elementwise functions are
            continue
        if re.search(r"^ +raise \w+(Error|Exception)", source, re.MULTILINE) and not re.search("Rais|Error|raise", inspect.getdoc(thing) or ""):
            silent.append(name)
    assert not silent, f"{room}: say what is raised, and when, by each of {', '.join(silent)}"


def test_a_page_says_what_its_sources_say():
    page = reference.pages()["minidl.md"]
    derivative = "*Derivative:* none; the result is constant in its arguments."
    for text in ("### `md.abs(", "- `abs(0)`: value 0, derivative 0", derivative, ">>> round(md.exp(md.tensor(1.0)).item(), 4)"):
        assert text in page, text
    assert "operand(" not in page and "object at 0x" not in page  # nothing that a reader cannot run, or that changes from run to run
