"""Imports point one way, and what stands above can be deleted without harm to what lies below.

The order is LAYERS; a module imports from its own layer or a lower one when it is loaded. An import inside a function is not part of the order
(it is how a lower room names a higher one that it does not need in order to work), except where a rule below says "never".
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SATELLITES = (
    "nn", "optim", "data", "saving", "deploy", "quantize", "interpret", "privacy", "distributions", "train", "amp", "random", "linalg", "fft",
    "testing", "profiling", "draw", "demo", "idioms", "inspection", "explanation", "lifetimes", "strong", "einstein", "jacobians", "arrays", "auto",
    "contest", "stopwatch", "columns", "rematerialize", "precision", "control", "rewrites", "modes", "whole", "cuda", "func", "special", "utils",
    "waiting", "__main__",
)  # fmt: skip
#: Where the core is public besides `import minidl as md`: a satellite may take the names of its `__all__`.
EXTENSION = "extend"

#: Bottom first. A package stands for all its modules; every module of minidl has its place here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("dtypes", "shapes", "tree", "context", "settings", "mentions"),
    ("primitives",),
    ("errors",),
    ("graph", "emit", "inline", "passes", "fusion", "lowering"),
    ("backends",),
    ("kinds", "tape", "tensors", "generated", "later", "handover"),
    ("autograd", "ops"),
    ("tracing", "batching", "guards", "replay"),
    ("transforms", "bodies", "program", "calls", "jitting", "custom", "custom_rules", "checkpointing", "recording"),
    ("extend",),
    ("__init__",),
    SATELLITES,
)
#: A backend knows nothing of tensors, differentiation, tracing or batching.
BACKENDS = ("numpy", "numba", "torch", "jax")
BACKENDS_MAY_IMPORT = {"dtypes", "shapes", "primitives", "graph", "emit", "passes", "fusion", "lowering", "backends"}


def sources() -> dict[str, Path]:
    """Each module of minidl by its dotted name below `minidl`, for example `ops.shape` or `backends.base`."""
    found = {}
    for path in [*(ROOT / "minidl").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        if path.is_relative_to(ROOT / "minidl" / "backends"):
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[1:] if parts[0] == "minidl" else parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def imports(tree: ast.AST, everywhere: bool) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """(module, names, line) of each import; everywhere: those inside functions too. Imports for type checkers do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, (), node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield node.module or "", tuple(a.name for a in node.names), node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(node, everywhere)


def of_minidl(module: str, everywhere: bool) -> Iterator[tuple[str, int]]:
    """(dotted name below minidl, line) of what a module imports from minidl; `__init__` stands for the public names."""
    for name, names, line in imports(ast.parse(SOURCES[module].read_text(encoding="utf-8")), everywhere):
        if name == "minidl":
            yield from ((n if n in SOURCES or n in TOP else "__init__", line) for n in names or ("__init__",))
        elif name.startswith("minidl."):
            yield name.removeprefix("minidl."), line


TOP = {m.partition(".")[0] for m in SOURCES}
LAYER = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def test_every_module_has_a_layer():
    assert TOP <= LAYER.keys(), f"give these a place in LAYERS: {sorted(TOP - LAYER.keys())}"


def test_the_architecture_names_every_room():
    rooms = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## 2. ")[2].partition("## 3. ")[0]
    missing = [name for name in sorted(TOP) if not re.search(rf"\b{name}\b", rooms)]
    assert not missing, f"section 2 of ARCHITECTURE.md does not name {missing}"
    files = {p.name for folder in ("minidl", "tests") for p in (ROOT / folder).rglob("*.py")}
    gone = set(re.findall(r"\b\w+\.py\b", rooms)) - files
    assert not gone, f"section 2 of ARCHITECTURE.md names {sorted(gone)}, which are not there"


@pytest.mark.parametrize("module", SOURCES)
def test_imports_point_down(module):
    own = LAYER[module.partition(".")[0]]
    for target, line in of_minidl(module, everywhere=False):
        assert LAYER[target.partition(".")[0]] <= own, f"{SOURCES[module]}:{line} imports {target} from a higher layer"


@pytest.mark.parametrize("module", [m for m in SOURCES if m.startswith("backends")])
def test_a_backend_knows_nothing_above_the_graph(module):
    for target, line in of_minidl(module, everywhere=True):
        assert target.partition(".")[0] in BACKENDS_MAY_IMPORT, f"{SOURCES[module]}:{line} imports {target}"


@pytest.mark.parametrize("module", [m for m in SOURCES if m.partition(".")[0] in SATELLITES and m.rpartition(".")[2].startswith("on_")])
def test_what_a_satellite_has_for_one_backend_is_a_file_of_its_own(module):
    """Kernels, or the text of a program: it may import what that backend may, and its like."""
    home, _, name = module.rpartition(".")
    for target, line in of_minidl(module, everywhere=True):
        assert target.partition(".")[0] in BACKENDS_MAY_IMPORT or target.startswith(f"{home}.on_"), f"{SOURCES[module]}:{line} imports {target}"
    users = [m for m in SOURCES if not m.startswith(f"{home}.on_") for target, _ in of_minidl(m, everywhere=True) if target == module]
    assert name.split("_")[1] in BACKENDS and not users


@pytest.mark.parametrize("module", [m for m in SOURCES if m.partition(".")[0] in SATELLITES and not m.rpartition(".")[2].startswith("on_")])
def test_satellites_use_public_names_only(module):
    import minidl as md

    tree = ast.parse(SOURCES[module].read_text(encoding="utf-8"))
    aliases = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or a.name for a in node.names if a.name == "minidl"}
    for name, names, line in imports(tree, everywhere=True):
        where = f"{SOURCES[module]}:{line}"
        if name == "minidl":
            private = [n for n in names if n not in SATELLITES and (n.startswith("_") or not hasattr(md, n))]
            assert not private, f"{where} imports {private}, which minidl does not offer"
        elif name.startswith("minidl."):
            public = name == "minidl." + EXTENSION and set(names) <= set(md.extend.__all__)
            assert public or name.split(".")[1] in SATELLITES, f"{where} imports {name}; a satellite says `import minidl as md`"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            assert not node.attr.startswith("_"), f"{SOURCES[module]}:{node.lineno} uses {ast.unparse(node)}"


@pytest.mark.parametrize("module", [m for m in SOURCES if m.partition(".")[0] not in SATELLITES])
def test_the_core_never_imports_a_satellite(module):
    """Nor does it name one, but for the `__getattr__` that makes `md.nn` work without an import of its own."""
    for target, line in of_minidl(module, everywhere=True):
        assert target.partition(".")[0] not in SATELLITES, f"{SOURCES[module]}:{line} imports {target}"


PROGRAM = """
import sys
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f)]  # which would find in the repository what is deleted here
import minidl as md
x = md.tensor([1.0, 2.0], requires_grad=True)
(md.sin(x) * x).sum().backward()
f = lambda v: (v * v * v).sum()
assert md.jit(md.grad(f))(md.tensor([1.0, 2.0])).tolist() == [3.0, 12.0]
assert md.vmap(md.grad(f))(md.tensor([[1.0], [2.0]])).tolist() == [[3.0], [12.0]]
assert md.extend.ns.square(md.tensor(3.0)).item() == 9.0
assert md.grad(md.checkpoint(lambda v: md.sin(md.sin(v)).sum()))(x).shape == (2,)
assert len(md.trace(lambda v: ((v + 1.0) * (v + 1.0)).T.T)(x.detach().reshape(1, 2)).equations) == 4  # equals are merged without any rules
for name, there in md.backends().items():
    if there is True:  # which all compile what they know by name, whoever brings it
        y = md.extend.from_numpy(x.detach().numpy(), md.extend.get_backend(name))
        assert round(md.jit(md.grad(lambda v: (md.relu(v) @ md.exp(v)).sum()))(y).sum().item(), 2) == 27.6
"""


def test_the_core_works_without_the_satellites(tmp_path):
    shutil.copytree(ROOT / "minidl", tmp_path / "minidl", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "backends", tmp_path / "backends", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SATELLITES:
        room = tmp_path / "minidl" / name
        shutil.rmtree(room) if room.is_dir() else room.with_suffix(".py").unlink()
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "MINIDL_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
