"""A graph as a Python file that needs NumPy alone: the program in readable text, and below it the definitions of just those kernels that it calls,
taken from the source of the NumPy backend.

Promises: nothing is written a second time; what the file computes is what the numpy backend computes, equation by equation; a kernel that is a
function of NumPy stands as that function, arithmetic as operators. bfloat16 is refused, since NumPy alone does not have it.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import itertools
import keyword
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minidl.backends import get
from minidl.backends.numpy_backend import KERNELS
from minidl.backends.numpy_complex import COMPLEX
from minidl.dtypes import DType
from minidl.emit import emit
from minidl.graph import Equation, Graph, Literal, letters

_PACKAGE = "minidl.backends."
_ENTRY = _PACKAGE + "numpy_kernels"  # where kernels have their names
_OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^",
}  # fmt: skip
_DTYPES = '''
class DType(NamedTuple):
    """An element type, as the kernels ask for it."""

    numpy: np.dtype
    kind: str
    bits: int

    @property
    def is_integer(self):
        return self.kind in ("int", "uint")

    @property
    def is_complex(self):
        return self.kind == "complex"


class dtypes:
    bool_ = DType(np.dtype(bool), "bool", 8)
'''


class _Module:
    """One source file of the NumPy backend: what it defines at its top, and what it imports."""

    def __init__(self, name: str):
        self.source = inspect.getsource(importlib.import_module(name))
        self.defined: dict[str, ast.stmt] = {}
        self.kernels: dict[str, ast.expr] = {}  # name=expression in the tables of kernels
        self.imported: dict[str, tuple[str, str]] = {}  # name -> (module, name there, or "" for the module itself)
        for node in ast.parse(self.source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.defined[node.name] = node
            elif isinstance(node, ast.Assign):
                targets = getattr(node.targets[0], "elts", node.targets[:1])  # of several in a row each
                self.defined.update((t.id, node) for t in targets if isinstance(t, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self.defined[node.target.id] = node
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith(".update"):
                self.kernels.update({k.arg: k.value for k in node.value.keywords if k.arg})
            elif isinstance(node, ast.Import):
                self.imported.update({a.asname or a.name: (a.name, "") for a in node.names})
            elif isinstance(node, ast.ImportFrom):
                self.imported.update({a.asname or a.name: (str(node.module), a.name) for a in node.names})


_module = functools.cache(_Module)


def _names(node: ast.AST) -> Iterator[ast.AST]:
    """The names and attributes that a definition reads, annotations and registering decorators left out."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        value = _decorators(node) if field == "decorator_list" else value  # type: ignore[arg-type]
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _names(child)
    if isinstance(node, (ast.Name, ast.Attribute)):
        yield node


class _Bare(ast.NodeTransformer):
    """Definitions as they stand in one file: `numpy_windows.conv` is conv, and no decorator registers anything."""

    def __init__(self, module: _Module):
        self.module = module

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and _sibling(self.module, node.value.id):
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = _decorators(node)
        return self.generic_visit(node)


def _decorators(node: ast.stmt) -> list[ast.expr]:
    """Those that do more than register a kernel."""
    return [d for d in getattr(node, "decorator_list", []) if not (isinstance(d, ast.Name) and d.id in ("silent", "noisy"))]


def _sibling(module: _Module, name: str) -> str | None:
    """The file of this backend that a name stands for, if it stands for a whole one."""
    source, there = module.imported.get(name, ("", ""))
    return _PACKAGE + there if source == _PACKAGE.rstrip(".") else None


class Definitions:
    """The definitions that a file needs, in an order in which they can stand."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], str] = {}
        self.imports: set[str] = {"import numpy as np"}
        self.spelled: dict[str, str] = {}
        self.types = False

    def kernel(self, name: str) -> str:
        """How the kernel of a primitive is called in the file."""
        if name not in self.spelled:
            module = _module(_ENTRY)
            found = module.kernels.get(name)
            own = name + "_" if keyword.iskeyword(name) or hasattr(builtins, name) else name
            if getattr(np, KERNELS[name].__name__, None) is KERNELS[name]:
                own = f"np.{KERNELS[name].__name__}"
            elif found is None and name not in module.defined and own not in module.defined:  # of another file, or a library's beside its primitive
                own = name
                self._define(KERNELS[name].__module__, own)
            elif found is None:
                own = own if own in module.defined else name
                self._define(_ENTRY, own)
            elif isinstance(found, ast.Attribute):  # another file's function, by its own name
                own = found.attr
                self._need(_ENTRY, found)
            elif isinstance(found, ast.Name):
                own = found.id
                self._need(_ENTRY, found)
            else:
                self._need(_ENTRY, found)
                self.texts[_ENTRY, own] = f"{own} = {ast.unparse(_Bare(module).visit(found))}"
            self.spelled[name] = own
        return self.spelled[name]

    def _define(self, home: str, name: str) -> None:
        """Add a definition of a file, and before it what it needs when it is made."""
        module = _module(home)
        node = module.defined[name]
        if any(where == home and module.defined.get(n) is node for where, n in self.texts):
            return
        self.texts[home, name] = ""  # which ends a circle of functions that call each other
        early = _decorators(node) if isinstance(node, ast.FunctionDef) else [node]
        for part in early:
            self._need(home, part)
        del self.texts[home, name]
        segment = ast.get_source_segment(module.source, node) or ""
        plain = ast.parse(segment).body[0]
        bare = _Bare(module).visit(ast.parse(segment).body[0])
        if ast.dump(bare) != ast.dump(plain):  # otherwise as it is written, with its comments
            segment = ast.unparse(bare)
        self.texts[home, name] = "".join(f"@{ast.unparse(d)}\n" for d in _decorators(node)) + segment
        self._need(home, node)

    def _need(self, home: str, node: ast.AST) -> None:
        module = _module(home)
        for n in _names(node):
            if isinstance(n, ast.Attribute):
                if isinstance(n.value, ast.Name) and (other := _sibling(module, n.value.id)):
                    self._define(other, n.attr)
                continue
            assert isinstance(n, ast.Name)
            if n.id in module.defined:
                self._define(home, n.id)
            elif n.id in module.imported and not _sibling(module, n.id):
                source, there = module.imported[n.id]
                if source.startswith(_PACKAGE):
                    self._define(source, there)
                elif source.partition(".")[0] == "minidl":
                    self.types = True
                elif there:
                    self.imports.add(f"from {source} import {there}" + (f" as {n.id}" if n.id != there else ""))
                else:
                    self.imports.add(f"import {source}" + (f" as {n.id}" if n.id != source else ""))

    def text(self) -> str:
        """The definitions."""
        return "\n\n\n".join(t for t in self.texts.values() if t)


def _numpy(dtype: DType) -> str:
    return "np.bool_" if dtype.kind == "bool" else f"np.{dtype.name}"


def _dtype(dtype: DType) -> str:
    return f'DType(np.dtype("{dtype.name}"), "{dtype.kind}", {dtype.bits})'


def _literal(atom: Literal, env: dict[str, Any]) -> str:
    value = repr(atom.value).replace("inf", "np.inf").replace("nan", "np.nan")
    return f"{_numpy(atom.dtype)}({value})"


class _Speller:
    """One line of the file for each equation."""

    def __init__(self, found: Definitions):
        self.found = found
        self.bodies: list[str] = []

    def __call__(self, equation: Equation, inputs: list[str], outputs: list[str], env: dict[str, Any]) -> str:
        name, params = equation.primitive.name, equation.params
        left = ", ".join(outputs) + ("," if equation.primitive.multiple and len(outputs) == 1 else "")
        return f"{left} = {self._right(name, equation, inputs, params)}"

    def _right(self, name: str, equation: Equation, inputs: list[str], params: dict[str, Any]) -> str:
        own = getattr(self, f"_{name}", None)
        text = own(equation, inputs, **params) if own else None
        if text is not None:
            return text
        if name in _OPERATORS and len(inputs) == 2:
            return f"{inputs[0]} {_OPERATORS[name]} {inputs[1]}"
        if name in COMPLEX and equation.inputs[0].dtype.is_complex:
            self.found._define(_PACKAGE + "numpy_complex", COMPLEX[name].__name__)
            return f"{COMPLEX[name].__name__}({inputs[0]})"
        if name not in KERNELS:
            raise NotImplementedError(f"to_python: NumPy has no text for {name}")
        return f"{self.found.kernel(name)}({', '.join([*inputs, *(f'{k}={self._param(v)}' for k, v in params.items())])})"

    def _param(self, value: Any) -> str:
        if isinstance(value, DType):
            self.found.types = True
            return _dtype(value)
        return repr(value) if value == value and value not in (float("inf"), float("-inf")) else f"float('{value}')"

    def _neg(self, equation: Equation, inputs: list[str]) -> str:
        return f"-{inputs[0]}"

    def _reshape(self, equation: Equation, inputs: list[str], shape: Any) -> str:
        return f"{inputs[0]}.reshape({shape})"

    def _permute(self, equation: Equation, inputs: list[str], axes: Any) -> str:
        return f"{inputs[0]}.transpose({axes})"

    def _full(self, equation: Equation, inputs: list[str], shape: Any, value: Any, dtype: DType) -> str:
        return f"np.full({shape}, {self._param(value)}, {_numpy(dtype)})"

    def _iota(self, equation: Equation, inputs: list[str], size: int, dtype: DType) -> str:
        return f"np.arange({size}).astype({_numpy(dtype)})"

    def _cast(self, equation: Equation, inputs: list[str], dtype: DType) -> str | None:
        source = equation.inputs[0].dtype
        if dtype.kind == "bool":
            return f"{inputs[0]} != 0"
        exact = (not source.is_complex and not dtype.is_integer) or source.kind in ("int", "uint", "bool") or dtype.is_complex
        return f"{inputs[0]}.astype({_numpy(dtype)})" if exact else None

    def _dot_general(self, equation: Equation, inputs: list[str], contract: Any, batch: Any) -> str | None:
        x, y = equation.inputs
        if x.ndim != 2 or y.ndim != 2 or len(contract[0]) != 1 or batch[0] or x.dtype.bits == 16:
            return None
        (xc,), (yc,) = contract
        return f"np.matmul({inputs[0]}{'' if xc else '.T'}, {inputs[1]}{'.T' if yc else ''})"

    # control flow: the nested programs are functions above this one
    def _body(self, graph: Graph) -> str:
        name = f"{graph.name.rstrip('_')}_{len(self.bodies)}"
        self.bodies.append("")  # whose number is taken while nested programs inside it are written
        place = len(self.bodies) - 1
        self.bodies[place] = _function(graph, self, name)
        return name

    def _loop(self, kind: str, inputs: list[str], params: dict[str, Any]) -> str:
        texts = []
        for k, v in params.items():
            if isinstance(v, Graph):
                texts.append(f"{k}={self._body(v)}")
            elif isinstance(v, tuple) and v and isinstance(v[0], Graph):
                texts.append(f"{k}=({', '.join(self._body(g) for g in v)},)")
            else:
                texts.append(f"{k}={v!r}")
        self.found._define("minidl.control.on_numpy", kind)
        return f"{kind}({', '.join([*inputs, *texts])})"

    def _scan(self, equation: Equation, inputs: list[str], **params: Any) -> str:
        stacks = ", ".join(f"np.empty({v.shape}, {_numpy(v.dtype)})" for v in equation.outputs[params["n_carry"] :])
        return f"{self._loop('scanned', inputs, params)[:-1]}, stacks=[{stacks}])"

    def _while_loop(self, equation: Equation, inputs: list[str], **params: Any) -> str:
        return self._loop("repeated", inputs, params)

    def _cond(self, equation: Equation, inputs: list[str], **params: Any) -> str:
        return self._loop("chosen", inputs, params)


class _Named(Graph):
    """A graph whose inputs have names of their own."""

    __slots__ = ("given",)
    given: tuple[str, ...]

    def names(self) -> dict[Any, str]:
        """The given names, then letters."""
        own = dict(zip(self.inputs, self.given, strict=False))
        taken, out = {"n", *self.given}, dict(own)
        fresh = (n for i in itertools.count() if (n := letters(i)) not in taken and not n.endswith("_"))  # those may be kernels
        for v in self.variables():
            if v not in out:
                out[v] = next(fresh)
        return out


def _function(graph: Graph, speller: _Speller, name: str, inputs: Sequence[str] = ()) -> str:
    graph = graph.expand(KERNELS)
    for v in (*graph.variables(), *(a for e in graph.equations for a in e.inputs)):
        if v.dtype.name == "bfloat16":
            raise TypeError("to_python: the program computes in bfloat16, which NumPy alone does not have; cast to float32 first")
    named = _Named(graph.inputs, graph.equations, graph.outputs, name)
    named.given = tuple(inputs)
    return emit(named, speller, _literal)[0].rstrip("\n")


def python_source(graph: Graph, name: str | None = None, inputs: Sequence[str] = (), larger: Sequence[Graph] = ()) -> str:
    """The text of a module whose function `name` (default: the graph's) computes the graph on NumPy arrays and returns a tuple of arrays.

    inputs: names for the first inputs. larger: the function traced for one and for two examples more along the first axis of the first input;
    the text then holds for any number n of examples. Raises TypeError for a graph that computes in bfloat16, ValueError where `larger` differs in
    more than sizes that are linear in n.
    """
    get("numpy")  # whose making adds the kernels of libraries, and which may not be in use here
    found = Definitions()
    speller = _Speller(found)
    if larger:
        try:
            graph = graph.expand(KERNELS, larger)
        except ValueError as error:
            raise ValueError(f"to_python: the function depends on the number of examples in more than sizes: {error}") from None
    main = _function(graph, speller, name or graph.name, inputs)
    if larger:
        head, _, rest = main.partition("\n")
        inner = ""
        if any(re.search(r"\bn\b", body) for body in speller.bodies):  # nested programs that ask for n stand where it is
            inner, speller.bodies = "".join(textwrap.indent(b.rstrip("\n"), "    ") + "\n\n" for b in speller.bodies), []
        main = f"{head}\n    n = {inputs[0] if inputs else graph.names()[graph.inputs[0]]}.shape[0]\n{inner}{rest}"
    imports = sorted(found.imports | ({"from typing import NamedTuple"} if found.types else set()))
    parts = ["from __future__ import annotations\n\n" + "\n".join(imports)]
    parts += [_DTYPES.strip()] * found.types + [found.text(), *speller.bodies, '@np.errstate(all="ignore")\n' + main]
    return "\n\n\n".join(filter(None, parts)) + "\n"
