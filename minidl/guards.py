"""What a traced function may depend on besides its arguments: a walk over the names it uses, as guard expressions and as places of tensors.

The walk starts from a function's closure, globals and defaults and from Modules and optimizers among its arguments, and goes through Modules,
optimizers, containers and the functions and methods that they call. Every number, flag, string and Tensor found gives a guard term.

Promises: what the walk does not understand is left out; a Tensor that the trace read but the walk did not reach makes the program unusable for
a second call (it is traced again), never stale.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from minidl.tensor import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LIMIT = 20_000


def stateful(x: Any) -> bool:
    """Whether x is a Module or an optimizer: an object with identity whose tensors are lifted where they are."""
    return hasattr(type(x), "__minidl_state__")


class Walk:
    """Everything reachable: `terms` (guard expressions over `env`), `tensors` (id → how to read it), `boxes` (containers that may be written)."""

    def __init__(self) -> None:
        self.env: dict[str, Any] = {"Tensor": Tensor}
        self.terms: list[tuple[str, int | None, Any]] = []  # expression, and the container and key that it pins, if any
        self.tensors: dict[int, tuple[Tensor, str, Any, Any]] = {}  # tensor, expression, container, key
        self.boxes: dict[int, Any] = {}  # id → dict or list
        self.owned: set[int] = set()  # the boxes that belong to Modules and optimizers: what is stored there comes back from a program
        self._inside = False
        self._seen: set[int] = set()
        self._keep: list[Any] = []

    def bind(self, value: Any, prefix: str) -> str:
        """A name in env for a value."""
        name = f"{prefix}{id(value)}"
        self.env[name] = value
        return name

    def value(self, x: Any, text: str, box: Any = None, key: Any = None) -> None:
        """Guard one value that the expression `text` reads."""
        if len(self._seen) > _LIMIT:
            return
        if isinstance(x, _PLAIN):
            term = (
                f"{text} is {x!r}"
                if x is None or isinstance(x, bool)
                else f"{text} == {self.bind(x, 'V') if x != x or isinstance(x, complex) else repr(x)}"
            )
            self.terms.append((term, None if box is None else id(box), key))
        elif isinstance(x, Tensor):
            self.tensors.setdefault(id(x), (x, text, box, key))
        elif stateful(x):
            self.terms.append((f"{text} is {self.bind(x, 'M')}", None if box is None else id(box), key))
            before, self._inside = self._inside, True
            self.box(vars(x))
            self._inside = before
            self.function(type(x).__call__)
            for name in x.__minidl_state__:
                self.function(getattr(type(x), name, None))
        elif type(x) in (list, tuple):
            if type(x) is list or _interesting(x):
                self.terms.append((f"{text} is {self.bind(x, 'B')}", None if box is None else id(box), key))
                self.box(x)
        elif isinstance(x, dict) and _small(x):
            self.terms.append((f"{text} is {self.bind(x, 'B')}", None if box is None else id(box), key))
            self.box(x)
        elif isinstance(x, (types.FunctionType, types.MethodType, functools.partial)):
            self.terms.append((f"{text} is {self.bind(x, 'F')}", None if box is None else id(box), key))
            self.function(x)
        elif hasattr(x, "__minidl_jitted__"):
            self.function(x.__minidl_jitted__)

    def box(self, x: Any) -> None:
        """Guard the contents of a container."""
        if id(x) in self._seen:
            return
        self._seen.add(id(x))
        name = self.bind(x, "B")
        if not isinstance(x, tuple):
            self.boxes[id(x)] = x
            if self._inside:
                self.owned.add(id(x))
        self.terms.append((f"len({name}) == {len(x)}", id(x), None))
        for k, v in x.items() if isinstance(x, dict) else enumerate(x):
            if isinstance(k, (str, int)):
                self.value(v, f"{name}[{k!r}]", x, k)
            else:
                self.value(v, f"{name}[{self.bind(k, 'K')}]", x, k)
                if isinstance(k, Tensor):
                    self._keep.append(k)

    def function(self, f: Any, root: bool = False) -> None:
        """Guard what a function reads: closure, defaults, globals that its code names, and methods' objects."""
        while isinstance(f, functools.partial):
            for i, a in enumerate(f.args):
                self.value(a, f"{self.bind(f, 'F')}.args[{i}]")
            for k, a in f.keywords.items():
                self.value(a, f"{self.bind(f, 'F')}.keywords[{k!r}]")
            f = f.func
        if isinstance(f, types.MethodType):
            self.value(f.__self__, f"{self.bind(f, 'F')}.__self__")
            f = f.__func__
        if stateful(f):
            self.value(f, self.bind(f, "M"))
            return
        if hasattr(f, "__minidl_jitted__"):
            f = f.__minidl_jitted__
        f = getattr(f, "__wrapped__", f)
        if not isinstance(f, types.FunctionType) or id(f) in self._seen or (not root and _library(f)):
            return
        self._seen.add(id(f))
        for cell in f.__closure__ or ():
            try:
                self.value(cell.cell_contents, f"{self.bind(cell, 'C')}.cell_contents")
            except ValueError:  # an empty cell
                continue
        for i, v in enumerate(f.__defaults__ or ()):
            self.value(v, f"{self.bind(f, 'F')}.__defaults__[{i}]")
        space = self.bind(f.__globals__, "G")
        for n in sorted(_names(f.__code__)):
            if n in f.__globals__:
                v = f.__globals__[n]
                if not isinstance(v, (types.ModuleType, type)):
                    self.value(v, f"{space}[{n!r}]", None)


def _library(f: types.FunctionType) -> bool:
    """Whether a function is minidl's own, which reads nothing that a user could change."""
    return f"{f.__module__}.".startswith("minidl.")


def _interesting(x: tuple) -> bool:
    return any(isinstance(v, Tensor) or stateful(v) or type(v) in (list, dict) for v in x)


def _small(x: dict) -> bool:
    return len(x) < 4096


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> frozenset[str]:
    """The global and attribute names that a code object and those nested in it mention."""
    out = set(code.co_names)
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            out |= _names(c)
    return frozenset(out)
