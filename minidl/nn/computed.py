"""Attributes of a Module that are computed at every reading: a weight that is another one under a mask, or rounded.

The Module's class is swapped for a subclass with a property of that name, as in torch.nn.utils.parametrize; so jit, isinstance and forward see
nothing new.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

from minidl.nn.module import Module

Function = Callable[[Module], Any]


def compute(module: Module, name: str, function: Function) -> None:
    """Make `module.name` what function(module) gives at every reading. The function is pickled with the module: make it of module level, or of a
    class with __call__. Assigning to the name calls function.assign(module, value), where there is one, and is an AttributeError otherwise.

    Raises ValueError where the module has a parameter, buffer or child of that name: rename it first.

    >>> import minidl as md
    >>> from minidl import nn
    >>> layer = nn.Linear(2, 2)
    >>> layer.sharp = nn.Parameter(md.tensor(3.0))
    >>> compute(layer, "twice", lambda m: m.sharp * 2.0)
    >>> layer.twice.item()
    6.0
    """
    if any(name in holder for holder in (module._parameters, module._buffers, module._modules)):
        raise ValueError(f"compute: {type(module).__name__} has {name!r} already; rename it first")
    base, functions = plain(module), {**computed(module), name: function}
    object.__setattr__(module, "__class__", _subclass(base, functions))


def restore(module: Module, name: str) -> None:
    """Drop a computed attribute. Raises AttributeError where there is none of that name."""
    functions = dict(computed(module))
    if name not in functions:
        raise AttributeError(f"restore: {type(module).__name__} computes no {name!r}")
    del functions[name]
    object.__setattr__(module, "__class__", _subclass(plain(module), functions) if functions else plain(module))


def computed(module: Module) -> dict[str, Function]:
    """The computed attributes of a module: {name: function}."""
    return getattr(type(module), "_computed", {})


def plain(module: Module) -> type[Module]:
    """The class that the module had."""
    return type(module).__mro__[1] if computed(module) else type(module)


def _subclass(base: type[Module], functions: dict[str, Function]) -> type[Module]:
    body: dict[str, Any] = {name: _property(name, function) for name, function in functions.items()}
    body |= {"_computed": functions, "__module__": base.__module__, "__qualname__": base.__qualname__, "__reduce_ex__": _reduce}
    body["__setattr__"] = _set
    return type(base.__name__, (base,), body)


def _property(name: str, function: Function) -> property:
    def read(self: Module) -> Any:
        try:
            return function(self)
        except AttributeError as error:  # Python would say, or a getattr with a default take it, that there is no such attribute
            raise RuntimeError(f"{type(self).__name__}: computing {name!r} failed: {error}") from error

    return property(read)


def _set(self: Module, name: str, value: Any) -> None:
    """Before Module's, which would keep a Parameter of that name that nothing reads."""
    function = computed(self).get(name)
    if function is None:
        plain(self).__setattr__(self, name, value)
    elif hasattr(function, "assign"):
        function.assign(self, value)
    else:
        by = getattr(function, "__name__", type(function).__name__)
        raise AttributeError(f"{type(self).__name__}: {name!r} is computed at every reading, by {by}; assign what it is computed from")


def _reduce(self: Module, protocol: int) -> Any:
    """For copy and pickle, which find a class by its name."""
    return _make, (plain(self), computed(self)), self.__dict__


def _make(base: type[Module], functions: dict[str, Function]) -> Module:
    return copyreg.__newobj__(_subclass(base, functions))  # type: ignore[attr-defined]
