"""What the documents say is true: their Python blocks run, and the examples in docstrings give what they show.

A block fenced as `python` runs as a program of its own, blocks of one file after another; a block fenced as `text` right after one is what it
prints. The other fences (shell lines, sketches) are not run.
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
DOCUMENTS = [p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if BLOCK.search(p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_blocks_of_the_document_run(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text[: found.start()].count("\n") + 1
        code = "\n" * line + found[1]  # so that a traceback names the document's own line
        script = tmp_path / path.name
        script.write_text(code, encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "MINIDL_BACKEND": "numpy"}
        done = subprocess.run([sys.executable, "-W", "error", script], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{path.name}, block at line {line}:\n{done.stderr}"
        if found[2] is not None:
            assert done.stdout.strip() == found[2].strip(), f"{path.name}, block at line {line}"


def modules() -> list[str]:
    """Every module whose docstrings hold an example; backends under the name by which they are imported."""
    found = []
    for path in sorted([*(ROOT / "minidl").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]):
        if ">>> " not in path.read_text(encoding="utf-8") or path.is_relative_to(ROOT / "minidl" / "backends"):
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts if parts[0] == "minidl" else ("minidl", *parts)
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.attempted and not result.failed
