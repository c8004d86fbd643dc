"""Functions of many operations that a kernel of their backend's library computes, forwards and backwards, where they run eagerly.

Promises: traces, vmap, other derivatives than a first one backwards, strong zeros, empty arrays and whatever a kernel declines see the operations of
the function, whose values the kernel's are but for rounding.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from inspect import CO_VARARGS, unwrap
from typing import Any, TypeVar

import minidl as md
from minidl import Tensor

F = TypeVar("F", bound=Callable[..., Any])
_REFUSED = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)  # what libraries raise for arguments that do not fit


@functools.cache
def _kernel(name: str, xp: Any) -> Callable[..., Any] | None:
    module = f"{__package__}.on_{xp.name}"
    return getattr(importlib.import_module(module), name) if importlib.util.find_spec(module) else None


def by_kernel(name: str) -> Callable[[F], F]:
    """Makes of f(*data, /, *static), of Tensors or None, one node of the tape on backends with a module on_torch, …, which has a kernel of this name:
    kernel(tracked, *arrays, *static) gives None where it does not compute f, or (results, others, back). The results are an array or a tuple of them,
    as f returns Tensors; `others`, which follow them, have no derivative, and back is that of md.extend.stands_for. Of arguments that the library
    refuses, f says what is wrong in the caller's terms.
    """
    return lambda f: _by_kernel(name, f)


def _by_kernel(name: str, f: F) -> F:
    code = unwrap(f).__code__
    count = None if code.co_flags & CO_VARARGS else code.co_posonlyargcount

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        if not md.extend.at_once():
            return f(*args)
        data, static = args[:count], () if count is None else args[count:]
        xp = next((x.xp for x in data if isinstance(x, Tensor)), None)
        kernel = None if xp is None else _kernel(name, xp)
        if kernel is None:
            return f(*args)
        arrays: list[Any] = []
        tracked = False
        for x in data:
            if x is None:
                arrays.append(None)
            elif isinstance(x, Tensor) and x.xp is xp and 0 not in (a := x.payload).shape:  # some kernels divide by the number of elements
                arrays.append(a)
                tracked = tracked or x.node is not None
            else:
                return f(*args)
        try:
            found = kernel(tracked, *arrays, *static)
        except _REFUSED:
            found = None
        if found is None:
            return f(*args)
        results, others, back = found
        function = lambda *data: f(*data, *static)
        function.__name__ = name
        one = not isinstance(results, tuple)
        out = md.extend.stands_for(function, data, (results,) if one else results, back)
        if one and not others:
            return out[0]
        return *out, *[None if v is None else Tensor(v, xp, xp.dtype_of(v)) for v in others]  # type: ignore[union-attr]

    return call  # type: ignore[return-value]
