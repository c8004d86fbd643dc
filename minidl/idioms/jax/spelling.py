"""How a function of minidl gets JAX's words for its arguments, and a module of JAX its names: tables, not functions written again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def spelled(f: Callable[..., Any], words: str, name: str = "") -> Callable[..., Any]:
    """f, called with JAX's arguments. `words` are their names in JAX's order: those before a slash are handed over by position, the others by name,
    each with the name that f has for it if that is another (`decimals:n`), or with nothing behind the colon (`out:`) where f has no such argument:
    it may be None or False then, and TypeError names any other. What only says how to compute has a dash there (`method:-`).

    >>> spelled(lambda x, axis=None: (x, axis), "a / axis out:")(a=1, axis=2)
    (1, 2)
    """
    before, _, behind = words.rpartition("/")
    first = before.split()
    pairs = [word.partition(":") for word in behind.split()]
    names = {theirs: ours if colon else theirs for theirs, colon, ours in pairs}
    order = (*first, *names)
    title = name or getattr(f, "__name__", "function")

    def function(*args: Any, **kwargs: Any) -> Any:
        if len(args) > len(order):
            raise TypeError(f"{title}: {len(args)} positional arguments, where {', '.join(order)} are wanted")
        given = dict(zip(order, args, strict=False))
        if twice := given.keys() & kwargs.keys():
            raise TypeError(f"{title}: the argument {min(twice)!r} came twice")
        given |= kwargs
        lead = [given.pop(word) for word in first if word in given]
        ours = {}
        for word, value in given.items():
            own = names.get(word, word)
            if own == "-":
                continue
            if own:
                ours[own] = value
            elif value is not None and value is not False:
                raise TypeError(f"{title}: {word}={value!r} has no counterpart in minidl; leave it out")
        return f(*lead, **ours)

    functools.update_wrapper(function, f, updated=())
    function.__name__ = function.__qualname__ = title
    function.__doc__ = f"md.{getattr(f, '__name__', title)} with the arguments of JAX: {', '.join(order)}."
    return function


def room(module: str, own: dict[str, Any], homes: Any = (), names: str = "", ways: dict[str, str] | None = None) -> Callable[[str], Any]:
    """The __getattr__ of a module of JAX's. `own`: name -> what it is. `names` mean what they mean in the first of `homes` that has them, and are
    looked up when they are asked for. `ways`: what there is for a name that is not there, the end of the AttributeError.

    >>> import math
    >>> room("example", {}, (math,), "pi", {"tau": "2 * pi"})("pi") == math.pi
    True
    """
    known, missing = frozenset(names.split()), object()
    short = module.removeprefix("minidl.idioms.")

    def find(name: str) -> Any:
        if name in own:
            return own[name]
        found = next((getattr(home, name) for home in homes if hasattr(home, name)), missing) if name in known else missing
        if found is not missing:
            return found
        way = (ways or {}).get(name)
        raise AttributeError(f"module {short!r} of minidl.idioms has no attribute {name!r}{f'; {way}' if way else ''}")

    return find
