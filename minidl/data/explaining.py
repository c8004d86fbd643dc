"""Errors of data sets, samplers, loaders and transforms in minidl's words, as layers have them.

What a class or function raises with a `raise` statement of its own stays as it is, with its name in front; an accident with an argument becomes an
error that names the argument. What the user's own code raises (a data set, a transform, a collate_fn) passes unchanged. Nothing is looked at before
something failed.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import minidl as md

F = TypeVar("F", bound=Callable[..., Any])
_METHODS = ("__init__", "__call__", "__getitem__")


def _name(self: Any) -> str:
    """The name of the class of minidl's that an object (or a class itself) is, or derives from."""
    return next(c.__name__ for c in (self if isinstance(self, type) else type(self)).__mro__ if c.__module__.startswith("minidl."))


def _method(f: Callable[..., Any]) -> Callable[..., Any]:
    made = f.__name__ == "__init__"

    @functools.wraps(f)
    def method(self: Any, /, *args: Any, **params: Any) -> Any:
        try:
            return f(self, *args, **params)
        except Exception as error:
            wrong = md.explained(_name(self), f.__get__(self), error, args, params, made)
            if wrong is error:
                raise
            if isinstance(error, IndexError) and f.__name__ == "__getitem__":  # by which loops over items know where they end
                if hasattr(args[0], "__index__") and -len(self) <= args[0] < len(self):
                    raise IndexError(f"{_name(self)}: item {args[0]!r}: {error}") from error
                raise IndexError(f"{_name(self)}: no item has the number {args[0]!r}; there are {len(self)}") from None
            raise wrong from wrong.__cause__

    return method


def explains(f: F) -> F:
    """A function with such errors."""

    @functools.wraps(f)
    def function(*args: Any, **params: Any) -> Any:
        try:
            return f(*args, **params)
        except Exception as error:
            wrong = md.explained(f.__name__, f, error, args, params)
            if wrong is error:
                raise
            raise wrong from wrong.__cause__

    return function  # type: ignore[return-value]


def explain(space: dict[str, Any], names: Sequence[str]) -> None:
    """Give the classes of these names in a module's namespace such errors: their public methods, and the special ones."""
    for found in (space[name] for name in names):
        if not isinstance(found, type):
            continue
        for method, f in list(vars(found).items()):
            plain = f.__func__ if isinstance(f, classmethod) else f
            if isinstance(plain, types.FunctionType) and (method in _METHODS or not method.startswith("_")):
                setattr(found, method, _method(plain) if plain is f else classmethod(_method(plain)))


def iterable(name: str, argument: str, value: Any) -> Any:
    """value, if it can be iterated over, since a generator would say so at its first step only. Raises TypeError."""
    if not hasattr(value, "__iter__") and not hasattr(value, "__getitem__"):
        raise TypeError(f"{name}: {argument} must be an iterable, not {value!r}")
    return value
