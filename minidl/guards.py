"""What a traced function may depend on besides its arguments: a walk over the names it uses, as guard expressions and as places of tensors.

The walk starts from a function's closure, globals and defaults and from Modules and optimizers among its arguments, and goes through Modules,
optimizers, the user's other objects, classes and modules (those attributes that the code names, also where they are not there yet), containers, and
the functions and methods that they call. Every number, flag, string and Tensor found gives a guard term, and so does the identity of everything else.

Promises: the inside of what the walk does not understand is left out (of dicts with thousands of entries, of what is found by a name that is computed
but in attributes of the user's objects; of NumPy arrays beyond BYTES, which is said in a JitWarning); a Tensor that the trace read but the walk did
not reach makes the program unusable for a second call (it is traced again), never stale.
"""

from __future__ import annotations

import array
import copy
import functools
import gc
import operator
import sys
import types
import weakref
from _thread import _local, allocate_lock  # threading.local
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np

from minidl.mentions import mentions
from minidl.tensors import Tensor, living

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LIMIT = 20_000
#: The size of the largest NumPy array whose contents are guarded.
BYTES = 2**20
_OPERATORS = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or".split()
#: Methods that syntax calls, so that no code names them. Comparisons and texts are not among them but heard: those of a dataclass read all that it
#: holds, and a counter beside what the traced code reads would be a reason to trace again.
_CALLED = frozenset(
    f"__{name}__"
    for name in (
        *_OPERATORS, *(f"r{n}" for n in _OPERATORS), *(f"i{n}" for n in _OPERATORS),
        *"call getitem len iter next reversed contains bool int float complex index neg pos abs invert round getattr missing enter exit get".split(),
    )
)  # fmt: skip
_ears = allocate_lock()  # who listens
_HERE = __name__.partition(".")[0]


class JitWarning(UserWarning):
    """What md.jit has to say of what it cannot see, of a function that it traces again and again, or with check=True each time."""


def stateful(x: Any) -> bool:
    """Whether x is a Module or an optimizer: an object with identity whose tensors are lifted where they are."""
    return hasattr(type(x), "__minidl_state__")


def walkable(x: Any) -> bool:
    """Whether x is an object of a class of the user's, whose attributes are guarded where the traced code names them."""
    if not hasattr(x, "__dict__"):
        return hasattr(type(x), "__slots__") and _users(type(x))
    return not isinstance(x, type) and not _library(type(x)) and type(x).__module__ != "builtins"


def same(a: Any, b: Any) -> bool:
    """Whether two values are one to a program: equal, also in type and in the sign of zero; nan is itself."""
    if a.__class__ is not b.__class__:
        return False
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(repr(a) == repr(b) if isinstance(a, (float, complex)) else a == b)


def current(x: ContextVar) -> Any:
    """What a context variable holds, or LookupError."""
    try:
        return x.get()
    except LookupError:
        return LookupError


def based(x: Any) -> Tensor | None:
    """The nearest tensor that lives of those that one is a view of."""
    of = x.of
    while of is not None:
        if (base := living(of)) is not None:
            return base
        of = of[1]
    return None


def steps(x: Any) -> tuple[Any, ...]:
    """How one shows the elements of its `based`."""
    found, of = [], x.of
    while of is not None:
        found.append(of[2:4])
        of = of[1] if living(of) is None else None
    return tuple(found)


@contextmanager
def unheard() -> Iterator[None]:
    """Without a profiler of the user's that is written in Python: the list to which it appends a line at each call could be what is walked."""
    profile = sys.getprofile()
    written = isinstance(profile, (types.FunctionType, types.MethodType))
    if written:
        sys.setprofile(None)
    try:
        yield
    finally:
        if written:
            sys.setprofile(profile)


class Walk:
    """Everything reachable: `terms` (guard expressions over `env`), `tensors` (id → where it is read), `boxes` (containers that may be written)."""

    def __init__(self, env: dict[str, Any]) -> None:
        self.env = env
        self.terms: list[tuple[str, int | None, Any]] = []  # expression, and the container and key that it pins, if any
        self.tensors: dict[int, list[tuple[Tensor, str, Any, Any]]] = {}  # tensor, expression, container, key: once for each place
        self.boxes: dict[int, Any] = {}  # id → dict or list
        self.weak: list[Any] = []  # Modules and optimizers among the arguments, which the guards do not keep alive
        self.owned: set[int] = set()  # the boxes that belong to Modules and optimizers: what is stored there comes back from a program
        self._inside, self._ordered = False, True
        self.unwatched: list[str] = []  # what is too large to look at
        self.whole = True  # whether everything was looked at
        self._seen: set[int] = set()
        self._looked: set[Any] = set()
        self._named = set(_CALLED)  # attributes that the code seen so far mentions
        self._open: set[Any] = set()  # objects, and names of classes, of which attributes are read by computed names
        self.given: set[int] = set()  # objects that functions have in their hands: arguments, closures, globals
        self._asked: set[str] = set()  # those of them that may be absent where they are read
        self._objects: list[Any] = []  # whose classes and attributes are looked at once all names are known
        self.absent: list[tuple[Any, set[str], str]] = []  # attributes of objects and classes, names that are not among them, and their text
        self.fixed: list[tuple[Any, Any, Any, Any]] = []  # object, name, how to look at it, what it was: what no dict tells

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
            self.given.add(id(x))
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
            if (base := based(x)) is not None:  # a write to the view reaches it
                self.value(base, f"based({text})", box, key)
            if hasattr(x, "__dict__") and id(x) not in self._seen:  # a Parameter, on which the user may have noted something
                self._seen.add(id(x))
                self._objects.append(x)
        elif isinstance(x, _PLAIN) or (type(x) is tuple and not _interesting(x)):
            self.terms.append((self.equal(x, text), where, key))
        elif type(x) is types.MethodType:
            self._method(x, text, self.value)
        else:
            self.terms.append((f"{text} is {self.bind(x, 'M' if stateful(x) else 'B')}", where, key))
            self._enter(x)

    def _enter(self, x: Any) -> None:
        if stateful(x):
            before, self._inside, self._ordered = (self._inside, self._ordered), True, hasattr(x, "forward")  # an optimizer's dicts are read by key
            self.box(vars(x), False)
            self._inside, self._ordered = before
            self._named.update(x.__minidl_state__)
            self._objects.append(x)
        elif isinstance(x, (list, tuple, deque)) or (isinstance(x, dict) and _small(x)):
            self.box(x)
            if walkable(x):  # of a class of the user's, which has attributes besides
                self._objects.append(x)
        elif isinstance(x, (types.FunctionType, types.MethodType, functools.partial)):
            self.function(x)
        elif hasattr(x, "__wrapped__"):  # jit, custom_vjp, custom_jvp
            for f in vars(x).values():
                if callable(f):
                    self.function(f)
        elif isinstance(x, (np.ndarray, memoryview)):
            if x.nbytes <= BYTES:
                held = _bits(x)
                whole = x.c_contiguous if isinstance(x, memoryview) else x.flags.c_contiguous  # then a bytearray looks at its memory, as it lies
                self.terms.append((f"{self.bind(held, 'V')} == {self.bind(x, 'B')}{'' if whole else '.tobytes()'}", id(x), None))
                self.fixed.append((x, None, _bits, held))
            elif not isinstance(x, np.ndarray) or any(isinstance(a, np.ndarray) and a.flags.writeable for a in (x, x.base)):
                self.unwatched.append(f"{type(x).__name__} {x.dtype if isinstance(x, np.ndarray) else x.format}{list(x.shape or ())}")
        elif isinstance(x, (set, bytearray, array.array)):
            was: Any = copy.copy(x)
            self.terms.append((f"{self.bind(x, 'B')} == {self.bind(was, 'V')}", id(x), None))
            self.fixed.append((x, None, copy.copy, was))
            self._elements(x if isinstance(x, set) else ())
        elif isinstance(x, frozenset):
            self._elements(x)
        elif isinstance(x, weakref.ref):
            self.terms.append((f"{self.bind(x, 'B')}() is {'None' if (there := x()) is None else 'not None'}", id(x), None))
            self.value(there, f"{self.bind(x, 'B')}()") if isinstance(there, Tensor) else self._enter(there)
        elif isinstance(x, ContextVar):
            self.value(found := current(x), f"current({self.bind(x, 'B')})", x, "value")
            self.fixed.append((x, "value", current, found))
        elif isinstance(x, types.MappingProxyType):
            self._enter(gc.get_referents(x)[0])
        elif isinstance(x, (operator.attrgetter, operator.methodcaller)):
            self._named.update(part for name in x.__reduce__()[1] if isinstance(name, str) for part in name.split("."))
        elif walkable(x) or (isinstance(x, type) and _users(x)):
            self._objects.append(x)

    def _elements(self, xs: Any) -> None:
        """Look into what a set or the keys of a dict are; what they are is guarded already."""
        for v in xs:
            if not isinstance(v, (*_PLAIN, Tensor)) and (type(v) is not tuple or _interesting(v)):
                self._enter(v)

    def box(self, x: Any, ordered: bool = True) -> None:
        """Guard the contents of a container; ordered: and the order of a dict, which a loop over its values sees."""
        if id(x) in self._seen:
            return
        self._seen.add(id(x))
        name = self.bind(x, "B")
        if not isinstance(x, tuple):
            self.boxes[id(x)] = x
            if self._inside:
                self.owned.add(id(x))
            ordered = ordered and self._ordered and isinstance(x, dict) and len(x) > 1
            self.terms.append((f"[*{name}] == {self.bind(list(x), 'V')}" if ordered else f"len({name}) == {len(x)}", id(x), None))
        if isinstance(x, dict):
            self._elements(x)
        for k, v in x.items() if isinstance(x, dict) else enumerate(x):
            if isinstance(k, str) and k == "_transient" and not ordered:  # which buffers a checkpoint leaves out
                continue
            at = repr(k) if isinstance(k, (str, int)) else self.bind(k, "K")
            if isinstance(x, dict) and type(x).__getitem__ is not dict.__getitem__:  # past what it makes of a value: here are those of items()
                self.env["item"] = dict.__getitem__
                self.value(v, f"item({name}, {at})", x, k)
            else:
                self.value(v, f"{name}[{at}]", x, k, isinstance(x, tuple))

    @unheard()
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
                kind = x if isinstance(x, type) else type(x)
                own: dict[str, Any] = {} if stateful(x) or kind is x else getattr(x, "__dict__", {})
                slots = hasattr(kind, "__slots__")
                names = self._named & own.keys() if isinstance(x, Tensor) else self._named | {"__init__", "__new__"} if kind is x else self._named
                of_class = self._open and any((c.__module__, c.__qualname__) in self._open for c in kind.__mro__)
                if of_class or id(x) in self._open or ("given" in self._open and id(x) in self.given):
                    self._open |= set(map(id, own.values() if of_class else ()))
                    members = (m for c in kind.__mro__ if _users(c) for m in vars(c).items())
                    names = names.union(own, (n for n, v in members if n[:2] != "__" and (_slot(v) or not hasattr(v, "__get__"))))
                    if own is getattr(x, "__dict__", None) and (id(own), None) not in self._looked:
                        self._looked.add((id(own), None))
                        self.terms.append((f"{self._own(x, own)}.keys() == {self.bind(set(own), 'V')}", id(own), None))
                for name in sorted(names):
                    place = (id(x) if name in own or slots else kind, name)
                    if place in self._looked:
                        continue
                    self._looked.add(place)
                    if name in own:
                        self.boxes[id(own)] = own
                        self.value(own[name], f"{self._own(x, own)}[{name!r}]", own, name)
                        continue
                    for holder in kind.__mro__:  # all of them, for super()
                        if name in vars(holder) and not _library(holder):
                            self._attribute(x, holder, name)
        for x in self._objects:
            if not stateful(x) and hasattr(x, "__dict__") and not isinstance(x, (type, types.FunctionType, Tensor)):
                kind, own = type(x), vars(x)
                free = hasattr(kind, "__getattr__")
                names = {n for n in self._named - own.keys() if free or n in self._asked or (n[:2] != "__" and hasattr(kind, n))}
                self.boxes[id(own)] = own
                self.absent.append((own, names, self._own(x, own)))
        if noted := [vars(x) for x in self._objects if isinstance(x, Tensor)] if self._asked else []:
            self.terms.append((f"sum(map(len, {self.bind(noted, 'B')})) == {sum(map(len, noted))}", None, None))
        for c in {c for x in self._objects for c in (x if isinstance(x, type) else type(x)).__mro__ if _users(c)}:
            absent = (n for n in self._named if n[:2] != "__" and n not in vars(c))
            hidden = {n for n in absent if n in self._asked or any(hasattr(b, n) for b in c.__bases__)}
            if hidden:  # what a class lacks it may get, and what it inherits may get another one in front of it
                self.absent.append((there := vars(c), hidden, self.bind(there, "B")))

    def _own(self, x: Any, own: dict[str, Any]) -> str:
        """The text of an object's attributes, of which a threading.local has others in each thread."""
        return f"vars({self.bind(x, 'B')})" if isinstance(x, _local) else self.bind(own, "B")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear which methods run that no code names: what Python calls for comparisons and texts, what is called by a computed name. They are looked
        into, too; all of them where a profiler of the user's or another thread listens."""
        latent: dict[int, tuple[Any, type, str]] = {}
        for x, kind in [(o, c) for o in self._objects if not isinstance(o, type) for c in type(o).__mro__ if _users(c)]:
            for name in vars(kind).keys() - self._named - {"__init__", "__new__", "__post_init__"}:
                f = getattr(raw := vars(kind)[name], "fget", raw)
                if isinstance(f, types.FunctionType) and (name[:2] == "__" or self._open):
                    latent[id(f.__code__)] = x, kind, name
        heard, free = set(latent), bool(latent) and _ears.acquire(False)
        profile: Any = None
        if free and sys.getprofile() is None:
            from _lsprof import Profiler  # what cProfile makes public

            profile = Profiler(subcalls=False, builtins=False)
            with suppress(ValueError):  # a profiler of the user's is at work, from Python 3.12 on
                profile.enable()
        try:
            yield
        finally:
            if profile is not None:
                _end()
                profile.disable()
                codes = {id(entry.code) for entry in profile.getstats()}
                heard = codes if id(_end.__code__) in codes else heard
            if free:
                _ears.release()
        if found := latent.keys() & heard:
            for key in found:
                self._attribute(*latent[key])
            self._settle()
            self.tensors = {k: places for k, places in self.tensors.items() if hasattr(places[0][0].xp, "asarray")}  # no symbols that were stored

    def _attribute(self, x: Any, holder: type, name: str) -> None:
        raw = vars(holder)[name]
        slot = _slot(raw)
        place = ("its", id(x) if slot else holder, name)
        if place in self._looked:
            return
        self._looked.add(place)
        v = getattr(raw, "fget", None) or getattr(raw, "__func__", raw)  # a property; a static or class method
        plain = isinstance(v, types.FunctionType) or hasattr(v, "__wrapped__")
        if slot and hasattr(x, name):
            holder, raw = x, getattr(x, name)
        elif not plain and (isinstance(v, type) or hasattr(type(v), "__get__")):
            if _users(v) or _users(type(v)):  # a class inside a class; a descriptor
                self._objects.append(v)
            return
        if plain:
            self._enter(v)
        if getattr(holder, name, None) is raw and (not plain or _users(holder)):
            self.fixed.append((holder, name, lambda x: getattr(x, name, None), raw))
            text = f"{self.bind(holder, 'T')}.{name}"
            self.terms.append((f"{text} is {self.bind(raw, 'B')}", id(holder), name)) if plain else self.value(raw, text, holder, name)

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
        self._objects += [f] * bool(vars(f) and not own)
        for cell in f.__closure__ or ():
            try:
                self.value(cell.cell_contents, f"{self.bind(cell, 'C')}.cell_contents", fixed=own)
                self.given.add(id(cell.cell_contents))
            except ValueError:  # an empty cell
                continue
        for i, v in enumerate(f.__defaults__ or ()):
            self.value(v, f"{self.bind(f, 'F')}.__defaults__[{i}]")
        for k, v in (f.__kwdefaults__ or {}).items():
            self.value(v, f"{self.bind(f, 'F')}.__kwdefaults__[{k!r}]")
        if own:
            return
        space = self.bind(f.__globals__, "G")
        read, mentioned, asked, within, computed = mentions(f.__code__)
        kind = f.__qualname__.rpartition(".")[0]  # the class, or the function around this one
        code, count = f.__code__, f.__code__.co_argcount + f.__code__.co_kwonlyargcount
        for name in computed:  # of a global, of what a closure or an argument is, of self and what that holds
            local = name.removeprefix(".")
            if name[0] != ".":
                self._open.add(id(f.__globals__.get(name)))
            elif local in code.co_freevars:
                self._open.update(map(id, gc.get_referents((f.__closure__ or ())[code.co_freevars.index(local)])))
            elif local in code.co_varnames[:count]:
                self._open.add((f.__module__, kind) if kind[-1:] not in ("", ">") and local == code.co_varnames[0] else "given")
        self._named |= mentioned
        self._asked |= asked
        for n in sorted(read):
            v = f.__globals__.get(n)
            if n in f.__globals__ and (not isinstance(v, (types.ModuleType, type)) or (_users(v) and isinstance(v, type))):
                self.value(v, f"{space}[{n!r}]", None)
                self.given.add(id(v))
        for n, *path in sorted(within):
            v = f.__globals__.get(n)
            for name in path:
                if not isinstance(v, types.ModuleType) or not _users(v) or name not in vars(v):
                    break
                own, v = vars(v), vars(v)[name]
                if not isinstance(v, (types.ModuleType, type)):
                    self.boxes[id(own)] = own
                    self.value(v, f"{self.bind(own, 'B')}[{name!r}]", own, name)


def _end() -> None:
    """What a profile has heard that nothing turned off."""


def _slot(x: Any) -> bool:
    return isinstance(x, types.MemberDescriptorType)


def _bits(x: Any) -> bytearray:
    return bytearray(x.tobytes())


def _library(kind: type) -> bool:
    """Whether a class is minidl's own, which reads nothing that a user could change."""
    return f"{kind.__module__}.".startswith(f"{_HERE}.")


def _users(x: Any) -> bool:
    """Whether x is a class or a module that neither Python, nor minidl, nor an installed package defines."""
    name = x.__module__ if isinstance(x, type) else x.__name__ if isinstance(x, types.ModuleType) else _HERE
    root = str(name).partition(".")[0]
    if root == _HERE or root in sys.stdlib_module_names:
        return False
    return "site-packages" not in str(getattr(sys.modules.get(name), "__file__", None))


def _interesting(x: tuple) -> bool:
    return not all(isinstance(v, _PLAIN) or (type(v) is tuple and not _interesting(v)) for v in x)


def _small(x: dict) -> bool:
    return len(x) < 4096
