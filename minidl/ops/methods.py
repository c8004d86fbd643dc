"""What a Tensor can do: operators, array functions as methods, in-place updates. How its values leave it is in minidl.ops.exchange.

Promises: `x op= v` changes this Tensor alone; `x[i] = v` and the methods whose names end in _ change the one that it is a view of, too
(minidl.ops.views); nothing changes another one; PyTorch's `dim` and `keepdim` work where `axis` and `keepdims` do.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from minidl import dtypes, ops
from minidl.context import at_once, satellite
from minidl.errors import spelled
from minidl.ops.common import busy, cast, fresh, ns, operand, state
from minidl.ops.exchange import Method, attach, to
from minidl.ops.indexing import fitting, getitem, set_at
from minidl.ops.linear import matmul
from minidl.ops.views import parts, settle
from minidl.primitives.core import parameters
from minidl.tape import RELEASED
from minidl.tensors import Tensor, sever, view

# ---- operators ------------------------------------------------------------------------------------------------------------------------
_BINARY = {
    "add": ns.add, "sub": ns.sub, "mul": ns.mul, "truediv": ns.div, "floordiv": ns.floor_divide, "mod": ns.remainder, "pow": ops.pow,
    "matmul": matmul, "and": ns.bitwise_and, "or": ns.bitwise_or, "xor": ns.bitwise_xor, "lshift": ns.shift_left, "rshift": ns.shift_right,
}  # fmt: skip
_COMMUTES = ("add", "mul", "and", "or", "xor")


def _reflected(f: Method) -> Method:
    def reflected(self: Tensor, other: Any, /) -> Tensor:
        kind = other.__class__
        if (kind is float or kind is int) and self.dtype.inexact and (not busy[0] or at_once()):
            number = self.xp.scalars.get((other, kind, self.dtype))  # known from an earlier time, and so on the straight line
            if number is not None:
                return f(Tensor(number, self.xp, self.dtype), self)
        return f(other, self)

    return reflected


def store(self: Tensor, value: Tensor) -> Tensor:
    """The value in this tensor, narrowed within a kind as PyTorch does: f32 += f64 stays f32. The result of an operation stays one.

    Raises TypeError for i64 += f32 and bool += i64.

    >>> x = md.zeros(1)
    >>> md.extend.store(x, md.ones(1, dtype=md.float64)).dtype
    minidl.float32
    """
    if value.dtype is not self.dtype and (value.dtype.kind == self.dtype.kind or not (value.dtype.inexact or self.dtype is dtypes.bool_)):
        value = cast(value, self.dtype)
    node = self.node
    if node is not None and value.node is None and state.grad and self.leaf is None and node[1] is not RELEASED:
        if value.dtype is self.dtype and value.shape == self.shape:  # what it was has derivative 0 rather than none, as in PyTorch
            value = ns.where(False, self, value)
    return self.assign(value)


def storing(f: Method) -> Method:
    """The form of a function that stores its result in its first argument.

    >>> x = md.ones(2)
    >>> md.extend.storing(md.add)(x, 1.0) is x, x.tolist()
    (True, [2.0, 2.0])
    """

    @functools.wraps(f)
    def update(self: Tensor, *args: Any, **params: Any) -> Tensor:
        if self.of is not None:
            settle(self)
        return store(self, f(self, *args, **params))

    return update


def _updating(f: Method, operator: bool = True) -> Method:
    """`x op= y`, or the method for it. A piece of another tensor is a value to operators, as in every library without views: `total = x[0];
    total += x[1]` leaves x alone."""

    def update(self: Tensor, other: Any, /) -> Tensor:
        if self.of is not None:
            if operator and self.of[2] is not None:
                sever(self)
            else:
                settle(self)
        return store(self, f(self, other))

    return update


for _name, _f in _BINARY.items():
    setattr(Tensor, f"__{_name}__", _f)
    setattr(Tensor, f"__r{_name}__", _f if _name in _COMMUTES else _reflected(_f))
    setattr(Tensor, f"__i{_name}__", _updating(_f))
for _name, _f in {"lt": ns.lt, "le": ns.le, "gt": ns.gt, "ge": ns.ge, "neg": ns.neg, "abs": ns.abs, "invert": ns.bitwise_invert}.items():
    setattr(Tensor, f"__{_name}__", _f)

_OPERANDS = (Tensor, bool, int, float, complex, np.ndarray, np.generic)


def _equality(f: Method) -> Method:
    def compare(self: Tensor, other: Any) -> Any:
        """Elements compared; Python's own answer (False, True) for what is no number or array."""
        known = isinstance(other, _OPERANDS) or hasattr(type(other), "tensor")  # a number among the arguments of a jitted function
        return f(self, other) if known else NotImplemented

    return compare


Tensor.__eq__ = _equality(ns.eq)  # type: ignore[method-assign]
Tensor.__ne__ = _equality(ns.ne)  # type: ignore[method-assign]
Tensor.__hash__ = object.__hash__  # type: ignore[assignment,method-assign]
Tensor.__pos__ = ops.positive  # type: ignore[operator]
Tensor.__getitem__ = getitem  # type: ignore[attr-defined]


def idiom(space: dict[str, Any] | None, room: str, message: str, name: str) -> Any:
    """What PyTorch calls so in a room, kept in its namespace. Raises AttributeError, with what there is for it if that is known."""
    idioms = None if name.startswith("_") else satellite("idioms")
    names, ways = getattr(idioms, "NAMES", {}).get(room, {}), getattr(idioms, "ABSENT", {}).get(room, {})  # none while they are made
    if space is None or name not in names:
        raise AttributeError(f"{message}; {ways[name]}" if name in ways else message)
    space[name] = names[name]
    return names[name]


class Awaited:
    """A method that minidl.idioms brings, until one of them is asked for; what there is for a name of PyTorch that it does not bring.

    Every name has a place of its own because a class with __getattr__ is slow to read every attribute of, in Python 3.11 and 3.12.
    """

    awaits = True

    def __init__(self, name: str):
        self.name = name

    def __get__(self, x: Tensor | None, owner: type) -> Any:
        message = f"{owner.__name__!r} object has no attribute {self.name!r}"
        try:
            idiom(None, "Tensor", message, self.name)
        except AttributeError:
            if vars(Tensor)[self.name] is self:
                raise
        return getattr(owner if x is None else x, self.name)  # PyTorch's names are methods now


class _Written(Awaited):
    def __set__(self, x: Tensor, value: Any) -> None:
        self.__get__(None, type(x))
        setattr(x, self.name, value)


for _name in getattr(satellite("waiting"), "METHODS", ()):
    setattr(Tensor, _name, (_Written if _name == "data" else Awaited)(_name))


@attach("__divmod__")
def _divmod(self: Tensor, other: Any) -> tuple[Tensor, Tensor]:
    return ns.floor_divide(self, other), ns.remainder(self, other)


@attach("__setitem__")
def _setitem(self: Tensor, index: Any, value: Any) -> None:
    with parts:
        settle(self)
        store(self, set_at(self, index, value, "set"))


# ---- array functions as methods -------------------------------------------------------------------------------------------------------
def _method(f: Method) -> Method:
    return spelled(f) if "axis" in parameters(f) and f.__module__ != "minidl.ops" else f


_NO_METHODS = {
    "arange", "asarray", "broadcast_arrays", "broadcast_shapes", "concat", "empty", "from_dlpack", "full", "getitem", "ones", "set_at", "stack",
    "tensor", "where", "zeros",
}  # fmt: skip
for _name in ops.functions:  # type: ignore[has-type]
    if _name not in _NO_METHODS:
        setattr(Tensor, _name, _method(getattr(ops, _name)))


class Later:
    """An array function that a room beside the core has, as a method: found when it is first asked for."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, x: Tensor | None, owner: type) -> Any:
        setattr(Tensor, self.name, _method(getattr(importlib.import_module("minidl"), self.name)))
        return getattr(owner if x is None else x, self.name)


def _variadic(f: Method) -> Method:
    return lambda self, *sizes, **params: f(self, sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], (int, np.integer)) else sizes, **params)


for _name, _f in {  # type: ignore[assignment]
    "reshape": ops.reshape, "permute": ops.permute_dims, "permute_dims": ops.permute_dims, "tile": ops.tile, "broadcast_to": ops.broadcast_to
}.items():  # fmt: skip
    setattr(Tensor, _name, _variadic(_f))  # type: ignore[arg-type]
for _name, _f in {"clamp": ops.clip, "unsqueeze": ops.expand_dims, "clone": ops.positive}.items():
    setattr(Tensor, _name, _method(_f))  # type: ignore[arg-type]
Tensor.round = lambda self, *, decimals=0: ops.round(self * 10**decimals) / 10**decimals if decimals else ops.round(self)  # type: ignore[attr-defined]
Tensor.flip = lambda self, *axis, **params: ops.flip(self, *(axis if len(axis) < 2 else (axis,)), **params)  # type: ignore[attr-defined]


def _part(name: str, f: Method, doc: str) -> property:
    return property(lambda self: view(f(self), self, ("part", f"x.{name}") if self.dtype.is_complex else ("contiguous", None)), doc=doc)


Tensor.real = _part("real", ns.real, "The real part.")  # type: ignore[attr-defined]
Tensor.imag = _part("imag", ns.imag, "The imaginary part.")  # type: ignore[attr-defined]
Tensor.mT = property(ops.matrix_transpose, doc="The last two axes exchanged.")  # type: ignore[attr-defined]
Tensor.T = property(ops.transpose, doc="All axes reversed.")  # type: ignore[attr-defined]
Tensor.at = property(  # type: ignore[attr-defined]
    lambda self: satellite("arrays.updates").At(self), doc="Functional updates: x.at[index].set(v), .add, .multiply, .min, .max return a new tensor."
)
Tensor.dim = lambda self: self.ndim  # type: ignore[attr-defined]
Tensor.numel = lambda self: int(self.size)  # type: ignore[attr-defined]
Tensor.nbytes = property(lambda self: self.size * self.dtype.itemsize, doc="Bytes of the elements.")  # type: ignore[attr-defined]

# ---- in place -------------------------------------------------------------------------------------------------------------------------
for _name in ("mul", "pow", "clamp"):
    _f = {"mul": ns.mul, "clamp": ops.clip}.get(_name) or getattr(ops, _name)
    setattr(Tensor, _name + "_", storing(_f))


def _scaled(name: str, f: Method) -> Method:
    def scaled(self: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
        return f(self, other if alpha == 1 else other * alpha)

    scaled.__name__, scaled.__qualname__ = name, f"Tensor.{name}"
    return scaled


for _name, _f in {"add": ns.add, "sub": ns.sub}.items():
    setattr(Tensor, _name, _scaled(_name, _f))
    setattr(Tensor, _name + "_", _scaled(_name + "_", _updating(_f, operator=False)))


@attach("contiguous")
def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """The same values: PyTorch's tensor itself, or a copy where the order of axes was changed. memory_format is accepted and changes nothing."""
    return view(fresh(self), self, ("contiguous", None))


@attach("copy_")
def copy_(self: Tensor, other: Any, /) -> Tensor:
    """Take the values of another tensor, broadcast and cast to this one, in place. Data of another backend is moved. Raises TypeError for complex
    values of a real tensor."""
    other = operand(other, self)
    if other.xp is not self.xp and hasattr(other.xp, "asarray") and hasattr(self.xp, "asarray"):
        other = to(other, backend=self.xp.name, device=self.xp.device)
    return store(self, ops.broadcast_to(fitting("copy_", other, self), self.shape))


@attach("fill_")
def fill_(self: Tensor, value: Any, /) -> Tensor:
    """One value everywhere, in place."""
    fitting("fill_", operand(value, self), self)
    return store(self, ops.full_like(self, value))


@attach("zero_")
def zero_(self: Tensor) -> Tensor:
    """Zeros everywhere, in place."""
    return store(self, ops.zeros_like(self))
