"""The error contract: what goes wrong in an array function is said in minidl's words, alike on every backend, eager and traced.

Most errors are raised by the rules themselves (shapes, axes, dtypes). What is left is settled where a public function begins and ends: static
arguments are compared with the annotations of their parameters, and the first that does not fit is named; what a library raised, or an accident with
an argument that is nothing like an array, is translated. An exception that a `raise` statement of minidl made keeps its class and its words, with the
operation's name in front.
"""

from __future__ import annotations

import functools
import inspect
import opcode
import operator
import os
import re
import sys
import types
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any, TypeVar

from minidl.context import satellite
from minidl.dtypes import canonical
from minidl.primitives.core import parameters
from minidl.shapes import shown

F = TypeVar("F", bound=Callable[..., Any])
_LIBRARIES = ("numpy", "torch", "jax", "jaxlib", "numba", "llvmlite", "scipy", "ml_dtypes", "opt_einsum")
_HERE, _PYTHON = os.path.dirname(__file__) + os.sep, os.path.dirname(os.__file__) + os.sep
_RAISE = opcode.opmap["RAISE_VARARGS"]
_NAMED = r"[A-Za-z_][\w.]*(\(\))?: "


def _library(file: str) -> bool:
    """Whether this is a file of a library below. Where they were loaded from tells it: folders of users' have such names too."""
    if file.startswith(_HERE):
        return False
    if file.startswith(tuple(f"{name}/" for name in _LIBRARIES)) or file == _PYTHON + "_collections_abc.py":  # Cython's names are relative
        return True
    roots = (os.path.split(getattr(sys.modules.get(name), "__file__", None) or "") for name in _LIBRARIES)
    return any(base.startswith("__init__.") and file.startswith(root + os.sep) for root, base in roots)


def own(error: BaseException) -> bool:
    """Whether this exception was meant for the user: a `raise` statement of minidl or of somebody's own code made it, or it is a warning; not so
    what a library below raised, and accidents."""
    tb = error.__traceback__
    if tb is None:
        return False
    while tb.tb_next is not None:
        tb = tb.tb_next
    code = tb.tb_frame.f_code
    return isinstance(error, Warning) or (code.co_code[tb.tb_lasti] == _RAISE and not _library(code.co_filename))


def between(error: BaseException, f: types.CodeType | None = None) -> bool:
    """Whether nobody's code but minidl's, libraries' and f's ran between a caught exception and its origin."""
    tb = error.__traceback__
    while tb is not None:
        code = tb.tb_frame.f_code
        file = code.co_filename
        python = file.startswith(_PYTHON) and "-packages" not in file
        if not (code is f or file.startswith((_HERE, "<minidl", "<frozen")) or python or _library(file)):
            return False
        tb = tb.tb_next
    return True


def name_it(name: str, error: Exception) -> None:
    """Put the operation's name in front of an exception's text, unless it begins with a name."""
    if len(error.args) == 1 and not isinstance(error, KeyError) and not re.match(_NAMED, str(error)):
        error.args = (f"{name}: {error.args[0]}",)


def _integer(v: Any) -> bool:
    if hasattr(v, "payload"):
        return v.dtype.is_integer and not v.shape
    try:
        operator.index(v)
    except Exception:
        return _number(v, int)
    return True


def _number(v: Any, kind: type = object) -> bool:
    number = getattr(v, "number", None)  # of a number that may change from call to call of a jitted function
    if isinstance(number, type):
        return kind is object or number is int
    return isinstance(v, Number) and (kind is object or isinstance(v, kind))


def _integers(v: Any) -> bool:
    return isinstance(v, (tuple, list)) and all(map(_integer, v))


#: What annotations ask for: each alternative in words, its test, and classes that fit without a look at the value.
_KINDS: dict[str, tuple[Any, ...]] = {
    "int": ("an integer", _integer, int),
    "float": ("a real number", lambda v: _number(v) and not isinstance(v, complex), float, int),
    "complex": ("a number", _number, float, int, complex),
    "bool": ("True or False", lambda v: isinstance(v, bool) or type(v).__name__ == "bool", bool),
    "str": ("a string", lambda v: isinstance(v, str), str),
    "None": ("None", lambda v: v is None, type(None)),
    "Tensor": ("a Tensor", lambda v: hasattr(v, "payload") and hasattr(v, "dtype")),
    "Sequence[int]": ("a sequence of integers", _integers),
    "tuple[int, ...]": ("a tuple of integers", _integers),
    "list[int]": ("a list of integers", _integers),
    "Sequence[Any]": ("a sequence", lambda v: isinstance(v, (tuple, list))),
    "Sequence[Tensor]": ("a sequence of Tensors", lambda v: isinstance(v, (tuple, list))),
}
#: What those of layers ask for besides, by what stands in front of the bracket. Only where something went wrong are they asked.
_LOOSE: dict[str, tuple[Any, ...]] = {
    "Callable": ("a function", callable),
    "Iterable": ("an iterable", lambda v: hasattr(v, "__iter__") and not isinstance(v, str)),
    "Mapping": ("a mapping", lambda v: hasattr(v, "keys")),
    "Module": ("a Module", lambda v: hasattr(v, "forward")),
    "tuple": ("a tuple", lambda v: isinstance(v, (tuple, list))),
}
_ALIASES = {"Axis": "int | tuple[int, ...] | None", "Shape": "int | Sequence[int]", "Size": "int | Sequence[int]"}
_LOOSE_ALIASES = {**_ALIASES, "OutSize": "int | None | Sequence[Any]", "Mask": "Tensor | None", "Activation": "str | Callable"}


def _asked(parameter: inspect.Parameter, loose: bool = False) -> list[tuple[Any, ...]]:
    """The alternatives that a parameter's annotation names, where all of them are known; none where they are not. loose: of a layer."""
    asked, aliases = parameter.annotation, _LOOSE_ALIASES if loose else _ALIASES
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return []
    text = "dtype | None" if parameter.name == "dtype" else asked if isinstance(asked, str) else getattr(asked, "__name__", "")
    parts = (q for p in text.split(" | ") for q in aliases.get(p, p).split(" | "))
    kinds = [_KINDS.get(p) or (_LOOSE.get(p.partition("[")[0]) if loose else None) for p in (re.sub(r"\b(md|nn)\.", "", p) for p in parts)]
    return [kind for kind in kinds if kind is not None] if None not in kinds else []


def _fits(kinds: Sequence[tuple[Any, ...]], value: Any) -> bool:
    return not kinds or any(kind[1](value) for kind in kinds)


def _must_be(name: str, parameter: str, kinds: Sequence[tuple[Any, ...]], value: Any) -> str:
    return f"{name}: {parameter} must be {' or '.join(dict.fromkeys(kind[0] for kind in kinds))}, not {shown(value)}"


class Contract:
    """What a function declares of its arguments, looked up once."""

    def __init__(self, f: Callable[..., Any]):
        self.name = getattr(f, "room", "") + f.__name__
        self.signature, self.code = inspect.signature(f), getattr(f, "__code__", None)
        self.kinds = {n: kinds for n, q in self.signature.parameters.items() if (kinds := _asked(q))}
        self.quick = {n: {c for kind in kinds for c in kind[2:]} for n, kinds in self.kinds.items()}
        places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.placed = [(n, self.quick.get(n)) for n, q in self.signature.parameters.items() if q.kind in places]

    def look(self, name: str, value: Any) -> None:
        """Raise TypeError if the value is none of the things that the parameter takes."""
        kinds = self.kinds.get(name, ())
        if not _fits(kinds, value):
            raise TypeError(_must_be(self.name, name, kinds, value))
        if _KINDS["Tensor"] in kinds:
            self.quick[name].add(value.__class__)

    def told(self, error: Exception, args: Sequence[Any], params: dict[str, Any]) -> Exception:
        """The exception to raise where the function raised this one: itself, if it is minidl's own, or if code of the user's that
        the function called took part in it. Raise it `from` its __cause__."""
        name = self.name
        if not between(error, self.code):
            return error
        if own(error):
            name_it(name, error)
            return error
        try:
            given = self.signature.bind(*args, **params).arguments
        except TypeError as wrong:
            return TypeError(f"{name}: {wrong}; it is {name}{self.signature}")
        if isinstance(error, MemoryError):
            return MemoryError(f"{name}: there is no memory for the result of {_values(given)}")
        if isinstance(error, NotImplementedError):
            return NotImplementedError(f"{name}: {error}")
        return _accident(name, error, given)


def _dtype(value: Any) -> bool:
    try:
        return canonical(value) is not None
    except TypeError:
        return False


_KINDS["dtype"] = "a dtype such as md.float32 or its name", _dtype
_ORDINARY = (Number, str, type(None), slice, type(Ellipsis), type)


def _odd(value: Any) -> bool:
    """Whether an argument is nothing that any array function takes."""
    if isinstance(value, (tuple, list)):
        return any(map(_odd, value))
    if getattr(getattr(value, "dtype", None), "kind", "f") in ("O", "S", "U", "M", "m", "V"):
        return True
    return not (isinstance(value, _ORDINARY) or hasattr(value, "dtype") or hasattr(value, "short") or hasattr(value, "number"))


@functools.lru_cache(maxsize=4096)
def contract(f: Callable[..., Any]) -> Contract:
    """The contract of a function."""
    return Contract(f)


def refused(f: Callable[..., Any], error: Exception, *args: Any, **params: Any) -> Exception:
    """What a function that is called too often for `checked` raises where it failed: it catches everything, and its arguments are looked at then.

    What came from code of the user's that took part is raised as it is, with its cause.
    """
    if not between(error, f.__code__):
        raise error
    known = contract(f)
    try:
        for name, value in known.signature.bind(*args, **params).arguments.items():
            known.look(name, value)
    except TypeError as unfit:
        return unfit
    return known.told(error, args, params)


# ---- layers ---------------------------------------------------------------------------------------------------------------------------
_ACCIDENTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError, ValueError)


def _unfit(name: str, given: dict[str, Any], signature: inspect.Signature) -> str:
    """What is said of the first argument that is not what its parameter's annotation asks for, "" if all are."""
    for k, value in given.items():
        kinds = _asked(signature.parameters[k], loose=True)
        if not _fits(kinds, value):
            way_out = "; md.asarray makes one" if kinds[0] is _KINDS["Tensor"] and value is not None and not isinstance(value, str) else ""
            return _must_be(name, k, kinds, value) + way_out
    return ""


def explained(name: str, f: Callable[..., Any], error: Exception, args: Sequence[Any], params: dict[str, Any], made: bool = False) -> Exception:
    """The exception to raise where a method `f` (bound) of a layer called `name` raised `error`, for layers that look at arguments only then.

    The exception itself, if code of the user's took part or if it names the layer; a TypeError that names the argument that is not what its
    parameter's annotation asks for; else the exception itself if a `raise` statement of minidl's made it, and what `checked` says of an accident.
    made: f is a constructor, whose errors name the class. Raise it `from` its __cause__.

    >>> def forward(x: md.Tensor, factor: float = 1.0):
    ...     return x * factor
    >>> str(md.explained("Scale", forward, AttributeError(), [5], {}))
    'Scale: x must be a Tensor, not 5; md.asarray makes one'
    """
    text = str(error)
    meant = own(error)
    if not isinstance(error, _ACCIDENTS) or isinstance(error, Warning) or not between(error) or (meant and text.startswith(f"{name}: ")):
        return error
    signature = inspect.signature(f)
    try:
        given = signature.bind(*args, **params).arguments
    except TypeError as wrong:
        plain = [q.replace(annotation=inspect.Parameter.empty) for q in signature.parameters.values()]
        return _after(None, TypeError(f"{name}: {wrong}; it is {name}{inspect.Signature(plain)}"))
    if unfit := _unfit(name, given, signature):
        return _after(None, TypeError(unfit))
    if meant:
        if made and not re.match(r"[A-Z]\w*: ", text) and len(error.args) == 1 and not isinstance(error, KeyError):
            error.args = (f"{name}: {text}",)
        name_it(name, error)
        return error
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    if tb is not None and tb.tb_frame.f_code.co_name in ("__call__", "call"):  # a forward or a hook of the user's does not take what it gets
        return error
    return _accident(name, error, given)


def _values(given: dict[str, Any]) -> str:
    return ", ".join(f"{k}={shown(v)}" for k, v in given.items())


def _accident(name: str, error: Exception, given: dict[str, Any]) -> Exception:
    kind = TypeError if any(map(_odd, given.values())) else ValueError
    return _after(error, kind(f"{name}: cannot compute with {_values(given)}; see help() for what it takes"))


def _after(cause: Exception | None, error: Exception) -> Exception:
    error.__cause__ = cause  # what explains itself needs no cause, and what does not may be minidl's own fault
    return error


#: By PyTorch's words `dim` and `keepdim` these are other functions than by minidl's own for the same.
_OTHERS = frozenset(("max", "min", "sort", "squeeze", "median", "std", "var"))


def respelled(f: Callable[..., Any], args: Sequence[Any], params: dict[str, Any]) -> Callable[[], Any] | None:
    """The call that PyTorch's words for f's parameters mean, which minidl.idioms knows; None where they mean no other, and without that room."""
    words = satellite("idioms.words") if params else None
    return None if words is None else words.respelled(f, args, params)  # type: ignore[no-any-return]


def spelled(f: F) -> F:
    """f, which also takes dim for axis and keepdim for keepdims, at no cost that would show."""
    known = parameters(f)
    axis, other, own_words = "axes" if "axes" in known else "axis", f.__name__ in _OTHERS, frozenset(known)

    def call(*args, **params):  # type: ignore[no-untyped-def]
        if params:
            dim = params.get("dim", 0)  # PyTorch takes a number along it, and all axes where it names none
            meant = (dim.__class__ in (tuple, list) and not dim) or ("dim" in params and args and not getattr(args[0], "ndim", 1))
            if (other or meant or "out" in params) and not own_words.issuperset(params) and (again := respelled(call, args, params)) is not None:
                return again()
            if "dim" in params:
                if axis in params:
                    raise TypeError(f"{f.__name__}: dim and {axis} are two words for one argument; one is enough")
                params[axis] = params.pop("dim")
            if "keepdim" in params:
                params["keepdims"] = params.pop("keepdim")
        return f(*args, **params)

    functools.update_wrapper(call, f).parameters = known  # type: ignore[attr-defined]
    call.__module__ = "minidl.ops"  # where this one is found
    return call  # type: ignore[return-value]


def check_all(space: dict[str, Any], names: Sequence[str], room: str = "") -> None:
    """Give the functions of these names in a module's namespace the error contract. room: what messages put in front of their names.

    >>> def double(x: md.Tensor) -> md.Tensor:
    ...     return x * 2
    >>> space = {"double": double}
    >>> check_all(space, ["double"])
    >>> space["double"]("a")
    Traceback (most recent call last):
    TypeError: double: x must be a Tensor, not 'a'
    """
    for name in names:
        f = space[name]
        inside = hasattr(f, "parameters") or not isinstance(f, types.FunctionType) or "refused" in f.__code__.co_names
        if not inside and not f.__code__.co_filename.startswith("<minidl"):
            f.__dict__["room"] = room
            space[name] = checked(f)
            space[name].__module__ = space.get("__name__", f.__module__)  # where this one is found, also by pickle


def checked(f: F) -> F:
    """f with the error contract: the same signature, text and values.

    >>> md.tril(md.ones((2, 2)), k="abc")
    Traceback (most recent call last):
    TypeError: tril: k must be an integer, not 'abc'
    """

    respell = respelled
    placed: list[tuple[str, set | None]] | None = None
    quick: dict[str, set] = {}
    look: Any = None

    def begin() -> None:
        nonlocal placed, quick, look  # when first needed: importing minidl makes a hundred of these functions
        known = contract(f)
        quick, look = known.quick, known.look
        placed = known.placed[lead:]  # last: who finds it, in whichever thread, finds the others

    def fail(error: Exception, args: Sequence[Any], params: dict[str, Any]) -> None:
        translated = contract(f).told(error, args, params)
        if translated is not error:
            raise translated from translated.__cause__

    lead = int(f.__annotations__.get(f.__code__.co_varnames[0]) == "Any") if f.__code__.co_argcount else 0  # an array, which f itself looks at

    def call(*args, **params):  # type: ignore[no-untyped-def]
        try:  # as Contract.fit does, without another call
            if placed is None:
                begin()
            for name in params:
                if name in quick and params[name].__class__ not in quick[name]:
                    look(name, params[name])
            if len(args) > lead:
                for value, (name, fits) in zip(args[lead:], placed, strict=False):
                    if fits is not None and value.__class__ not in fits:
                        look(name, value)
            return f(*args, **params)
        except Exception as error:
            again = respell(made, args, params)
            if again is None:
                fail(error, args, params)
                raise
        return again()

    # With f's globals, so that doctest and pickle find it where f was defined.
    made = types.FunctionType(call.__code__, f.__globals__, f.__name__, None, call.__closure__)  # type: ignore[attr-defined]
    made.__dict__.update(f.__dict__, __wrapped__=f)  # as functools.update_wrapper does, in a third of its time
    made.__qualname__, made.__doc__, made.__annotations__ = f.__qualname__, f.__doc__, f.__annotations__
    made.parameters = parameters(f)  # type: ignore[attr-defined]
    return made  # type: ignore[return-value]
