"""What a traced function may depend on besides its arguments: a walk over the names it uses, as guard expressions and as places of tensors.

The walk starts from a function's closure, globals and defaults and from Modules and optimizers among its arguments, and goes through Modules,
optimizers, other objects of the user's classes (those attributes that the code names), containers, and the functions and methods that they call.
Every number, flag, string and Tensor found gives a guard term, and so does the identity of everything else.

Promises: the inside of what the walk does not understand is left out; a Tensor that the trace read but the walk did not reach makes the program
unusable for a second call (it is traced again), never stale.
"""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any

from minidl.tensors import Tensor

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LIMIT = 20_000
_HERE = __name__.partition(".")[0]


def stateful(x: Any) -> bool:
    """Whether x is a Module or an optimizer: an object with identity whose tensors are lifted where they are."""
    return hasattr(type(x), "__minidl_state__")


def walkable(x: Any) -> bool:
    """Whether x is an object of a class of the user's, whose attributes are guarded where the traced code names them."""
    return hasattr(x, "__dict__") and not isinstance(x, type) and not _library(type(x)) and type(x).__module__ != "builtins"


def same(a: Any, b: Any) -> bool:
    """Whether two values are one to a program: equal, also in type and in the sign of zero; nan is itself."""
    if a.__class__ is not b.__class__:
        return False
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(repr(a) == repr(b) if isinstance(a, (float, complex)) else a == b)


class Walk:
    """Everything reachable: `terms` (guard expressions over `env`), `tensors` (id → where it is read), `boxes` (containers that may be written)."""

    def __init__(self) -> None:
        self.env: dict[str, Any] = {"Tensor": Tensor, "same": same}
        self.terms: list[tuple[str, int | None, Any]] = []  # expression, and the container and key that it pins, if any
        self.tensors: dict[int, list[tuple[Tensor, str, Any, Any]]] = {}  # tensor, expression, container, key: once for each place
        self.boxes: dict[int, Any] = {}  # id → dict or list
        self.weak: list[Any] = []  # Modules and optimizers among the arguments, which the guards do not keep alive
        self.owned: set[int] = set()  # the boxes that belong to Modules and optimizers: what is stored there comes back from a program
        self._inside = False
        self.whole = True  # whether everything was looked at
        self._seen: set[int] = set()
        self._looked: set[Any] = set()
        self._named = {"__call__"}  # attributes that the code seen so far mentions
        self._objects: list[Any] = []  # whose classes and attributes are looked at once all names are known

    def bind(self, value: Any, prefix: str) -> str:
        """A name in env for a value."""
        name = f"{prefix}{id(value)}"
        self.env[name] = value
        return name

    def equal(self, x: Any, text: str) -> str:
        """The guard that `text` has a plain value."""
        return f"{text} is {x!r}" if x is None or isinstance(x, bool) else f"({text} is {(v := self.bind(x, 'V'))} or same({text}, {v}))"

    def argument(self, x: Any, text: str) -> None:
        """Guard an argument with identity; a Module or an optimizer, or a method of one, without keeping it alive."""
        if stateful(x):
            self.terms.append((f"{text} is {self.bind(weakref.ref(x), 'Q')}()", None, None))
            self.weak.append(x)
            self._enter(x)
        elif type(x) is types.MethodType:
            self._method(x, text, self.argument)
        else:
            self.value(x, text)

    def _method(self, x: types.MethodType, text: str, guard: Any) -> None:
        """A method is a new object each time that somebody names it: what stays is its function and its object."""
        self.terms.append((f"{text}.__class__ is {self.bind(types.MethodType, 'T')}", None, None))
        self.value(x.__func__, f"{text}.__func__")
        guard(x.__self__, f"{text}.__self__")

    def value(self, x: Any, text: str, box: Any = None, key: Any = None, fixed: bool = False) -> None:
        """Guard one value that the expression `text` reads; fixed: in a place where nobody puts another one (a tuple, a closure of minidl's)."""
        if len(self._seen) > _LIMIT:
            self.whole = False
            return
        where = None if box is None else id(box)
        if fixed and not isinstance(x, Tensor):
            if not isinstance(x, _PLAIN):
                self._enter(x)
            return
        if isinstance(x, Tensor):
            self.tensors.setdefault(id(x), []).append((x, text, box, key))
        elif isinstance(x, _PLAIN) or (type(x) is tuple and not _interesting(x)):
            self.terms.append((self.equal(x, text), where, key))
        elif type(x) is types.MethodType:
            self._method(x, text, self.value)
        else:
            self.terms.append((f"{text} is {self.bind(x, 'M' if stateful(x) else 'B')}", where, key))
            self._enter(x)

    def _enter(self, x: Any) -> None:
        if stateful(x):
            before, self._inside = self._inside, True
            self.box(vars(x))
            self._inside = before
            self._named.update(x.__minidl_state__)
            self._objects.append(x)
        elif isinstance(x, (list, tuple)) or (isinstance(x, dict) and _small(x)):
            self.box(x)
            if walkable(x):  # of a class of the user's, which has attributes besides
                self._objects.append(x)
        elif isinstance(x, (types.FunctionType, types.MethodType, functools.partial)):
            self.function(x)
        elif hasattr(x, "__wrapped__"):  # jit, custom_vjp, custom_jvp
            for f in vars(x).values():
                if callable(f):
                    self.function(f)
        elif walkable(x):
            self._objects.append(x)

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
            text = f"{name}[{k!r}]" if isinstance(k, (str, int)) else f"{name}[{self.bind(k, 'K')}]"
            self.value(v, text, x, k, isinstance(x, tuple))

    def function(self, f: Any, root: bool = False) -> None:
        """Guard what a function reads: closure, defaults, globals that its code names, and methods' objects."""
        self._function(f, root)
        if root:
            self._settle()

    def _settle(self) -> None:
        """Look at the attributes that the code names of the objects found, until nothing new turns up."""
        size = -1
        while size != len(self._looked):
            size = len(self._looked)
            for x in list(self._objects):
                own = {} if stateful(x) else vars(x)
                for name in sorted(self._named):
                    place = (id(x) if name in own else type(x), name)
                    if place in self._looked:
                        continue
                    self._looked.add(place)
                    if name in own:
                        self.boxes[id(own)] = own
                        self.value(own[name], f"{self.bind(own, 'B')}[{name!r}]", own, name)
                        continue
                    holder = next((c for c in type(x).__mro__ if name in vars(c)), None)
                    if holder is not None and not _library(holder):
                        self._attribute(vars(holder)[name], f"{self.bind(holder, 'T')}.{name}")

    def _attribute(self, v: Any, text: str) -> None:
        v = getattr(v, "fget", getattr(v, "__func__", v))  # a property; a static or class method
        if isinstance(v, types.FunctionType) or hasattr(v, "__wrapped__"):
            self._enter(v)
        elif not isinstance(v, type) and not hasattr(type(v), "__get__"):
            self.value(v, text)

    def _function(self, f: Any, root: bool = False) -> None:
        while isinstance(f, functools.partial):
            for i, a in enumerate(f.args):
                self.value(a, f"{self.bind(f, 'F')}.args[{i}]", fixed=True)
            for k, a in f.keywords.items():
                self.value(a, f"{self.bind(f, 'F')}.keywords[{k!r}]")
            f = f.func
        if isinstance(f, types.MethodType):
            self.value(f.__self__, f"{self.bind(f, 'F')}.__self__")
            f = f.__func__
        if not isinstance(f, types.FunctionType):
            if not isinstance(f, type):
                self._enter(f)
            return
        own = f.__globals__.get("__name__", "").partition(".")[0] == _HERE
        library = own and not root
        if id(f) in self._seen or (library and (not hasattr(f, "__wrapped__") or hasattr(f, "parameters"))):
            return
        self._seen.add(id(f))
        for cell in f.__closure__ or ():
            try:
                self.value(cell.cell_contents, f"{self.bind(cell, 'C')}.cell_contents", fixed=own)
            except ValueError:  # an empty cell
                continue
        for i, v in enumerate(f.__defaults__ or ()):
            self.value(v, f"{self.bind(f, 'F')}.__defaults__[{i}]")
        for k, v in (f.__kwdefaults__ or {}).items():
            self.value(v, f"{self.bind(f, 'F')}.__kwdefaults__[{k!r}]")
        if own:
            return
        space = self.bind(f.__globals__, "G")
        read, mentioned = _names(f.__code__)
        self._named |= mentioned
        for n in sorted(read):
            v = f.__globals__.get(n)
            if n in f.__globals__ and not isinstance(v, (types.ModuleType, type)):
                self.value(v, f"{space}[{n!r}]", None)


def _library(kind: type) -> bool:
    """Whether a class is minidl's own, which reads nothing that a user could change."""
    return f"{kind.__module__}.".startswith(f"{_HERE}.")


def _interesting(x: tuple) -> bool:
    return not all(isinstance(v, _PLAIN) or (type(v) is tuple and not _interesting(v)) for v in x)


def _small(x: dict) -> bool:
    return len(x) < 4096


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The globals that a code object and those nested in it read, and all names that they mention (attributes, getattr's strings)."""
    import dis

    read = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    mentioned = {*code.co_names, *(c for c in code.co_consts if isinstance(c, str) and c.isidentifier())}
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            inner = _names(c)
            read |= inner[0]
            mentioned |= inner[1]
    return frozenset(read), frozenset(mentioned)
