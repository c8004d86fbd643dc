"""What the documents say is true: their Python blocks run, and the examples in docstrings give what they show.

A block fenced as `python` runs as a program of its own; `python file=NAME` is a module that the later blocks of the document can import; a
block fenced as `text` right after one is what it prints. The other fences (shell lines, sketches) are not run. Entry points that a document
shows (`ini`) are installed for its blocks.
"""

from __future__ import annotations

import builtins
import configparser
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import minidl as md

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python(?: file=(\S+))?\n(.*?)^```\n(?:\s*^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
ENTRY_POINTS = re.compile(r"^```ini\n(\[options\.entry_points\]\n.*?)^```\n", re.DOTALL | re.MULTILINE)
#: Of the rooms that are loaded when first used, those whose examples run in this process with those of the core.
TOGETHER = ("random", "linalg", "fft")
DOCUMENTS = [p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if BLOCK.search(p.read_text(encoding="utf-8"))]


def install(text: str, folder: Path) -> None:
    """Make the entry points of a document known, as pip would."""
    for found in ENTRY_POINTS.finditer(text):
        config = configparser.ConfigParser()
        config.read_string(found[1])
        info = folder / "documented-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: documented\nVersion: 1.0\n")
        groups = config["options.entry_points"].items()
        (info / "entry_points.txt").write_text("".join(f"[{group}]{lines}\n" for group, lines in groups))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_blocks_of_the_document_run(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    install(text, tmp_path)
    paths = [str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MINIDL_BACKEND": "numpy"}
    for found in BLOCK.finditer(text):
        name, code, printed = found.groups()
        line = text[: found.start(2)].count("\n")
        script = tmp_path / (name or path.name)
        script.write_text("\n" * line + code, encoding="utf-8")  # a traceback names the document's own line
        done = subprocess.run([sys.executable, "-W", "error", script], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{path.name}, block at line {line}:\n{done.stderr}"
        if printed is not None:
            assert done.stdout.strip() == printed.strip(), f"{path.name}, block at line {line}"


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/README.md"])
def test_what_a_page_names_is_there(page):
    """Files, what is in them (`module.name`), and names of md. In blocks of a program these are run; here they stand in the text."""
    text = re.sub(r"^```.*?^```\n", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    folders = [(ROOT / page).parent, *(ROOT / f for f in ("minidl", "backends", "benchmarks/results", "minidl/nn", "tests/conventions"))]
    sources = {p.stem: p.read_text(encoding="utf-8") for f in ("minidl", "backends") for p in (ROOT / f).glob("*.py")}
    missing = []
    for code in sorted(set(re.findall(r"`([^`\n]+)`", text))):
        for word in re.findall(r"[\w./-]+\.(?:py|md|csv|json|svg|sh|cfg|txt)(?![\w.])", code):
            if word != "minidl_checked.py" and not any((f / word).exists() for f in folders) and not list((ROOT / "minidl").rglob(word)):
                missing.append(word)
        module, _, name = code.partition("(")[0].partition(".")
        if module in sources and name.isidentifier() and name != "py" and not re.search(rf"\b{name}\b", sources[module]):
            missing.append(code)
        if found := re.match(r"md((?:\.[A-Za-z]\w*)+)", code):
            value: object = md
            for part in found[1][1:].split("."):
                value = getattr(value, part, None)
            if value is None:
                missing.append(code)
    assert not missing, f"{page} names what is not there"


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


def examples(module: types.ModuleType) -> list[doctest.DocTest]:
    """The examples of a module, those of functions that a table made among them. They start after `import minidl as md`."""
    names = {k: v for k, v in vars(module).items() if not hasattr(builtins, k)} | {"md": md}
    found = {test.name: test for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__, globs=names)}
    for name, value in vars(module).items():
        if inspect.isfunction(value) and inspect.unwrap(value).__module__ == module.__name__ and ">>> " in (value.__doc__ or ""):
            full = f"{module.__name__}.{name}"
            if full not in found:
                found[full] = doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", names.copy(), full, inspect.getsourcefile(module), 0)
    return [test for test in found.values() if test.examples]


@pytest.fixture
def backend(request):
    """The backend of a pair, chosen as the default while the test runs."""
    pytest.importorskip(request.param)
    with md.use_backend(request.param):
        yield request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every module on every backend; but for what a backend says of itself, which does not depend on the one that is chosen, and what runs apart."""
    if "module" not in metafunc.fixturenames:
        return
    pairs = [
        (backend, name)
        for backend in ("numpy", "numba", "torch", "jax")
        for name in modules()
        if backend == "numpy" or not name.startswith("minidl.backends")
        if backend != "jax" or not apart(name)
    ]
    metafunc.parametrize(("backend", "module"), pairs, indirect=["backend"])


def apart(module: str) -> bool:
    """Whether a module stands above the core: on jax its examples have a process of their own."""
    room = module.split(".")[1]
    return room in md._SATELLITES and room not in TOGETHER


def run(module: str) -> None:
    """The examples of one module on the default backend."""
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in examples(importlib.import_module(module)):
        runner.run(test)
    result = runner.summarize()
    assert result.attempted and not result.failed, module


def test_examples_in_docstrings(module, backend):
    """On every backend they print the same."""
    run(module)


def test_examples_above_the_core_on_jax():
    """In a process where XLA compiles with little effort, which it would do one operation after the other for minutes."""
    pytest.importorskip("jax")
    code = "import sys, minidl, test_docs\nminidl.set_backend('jax')\nfor name in sys.argv[1:]: test_docs.run(name)"
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
    paths = [str(ROOT / "tests"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    done = subprocess.run([sys.executable, "-c", code, *filter(apart, modules())], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
