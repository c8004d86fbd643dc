"""A function of many operations as one compiled program, where a backend compiles each operation by itself or calls cost more than kernels.

A random draw is a dozen operations or more. Eager on jax the first one of each shape would be as many compilations, a twentieth of a second each,
and building a network would take longer than training it. So there it is traced and compiled once for each signature, and called from then on.

Elsewhere a small operation costs more in Python than in its kernel. A composition that is called again and again with small tensors of the same kind
is then jitted, forwards and backwards (`fused`).

Promises: the values are those of the function under jit, and never an argument itself, from the first call on; traces, vmap and derivatives see the
operations, as everywhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import CO_VARARGS
from typing import Any, TypeVar

import minidl as md
from minidl import DType, Graph, Tensor, tree
from minidl.extend import Body, at_once, settings, told, using

F = TypeVar("F", bound=Callable[..., Any])
_CALLS = 2  # of one kind before it is compiled: tensors whose shapes are new each time never are
_EXACT = frozenset((int, bool, str, type(None)))
_SMALL = 2**16  # bytes; for larger tensors kernels cost more than Python, and programs keep memory for them


@functools.lru_cache(maxsize=1024)
def _program(
    f: Callable[..., Any], xp: Any, avals: tuple[tuple[tuple[int, ...], DType], ...], static: tuple[Any, ...], told: tuple[Any, ...]
) -> Callable[..., Any]:
    with using(xp):
        body = Body(lambda *data: f(*data, *static), avals)
    if body.written:
        raise RuntimeError(f"{f.__name__}: it changes a tensor from outside, which a program of its arguments cannot")
    run, fixed = xp.compile(body.graph), [c.payload for c in body.read]

    def call(*natives: Any) -> Any:
        outs = run(*natives, *fixed)
        return tree.unflatten(body.structure, [Tensor(o, xp, v.dtype) for o, v in zip(outs, body.graph.outputs, strict=True)])

    return call


def whole(f: F) -> F:
    """f(*data, /, *static), of Tensors and of hashable arguments that a program is made for: one program where the backend wants that, and elsewhere
    as fused.

    >>> @md.extend.whole
    ... def power(x, /, n):
    ...     return x if n == 1 else x * power(x, n - 1)
    >>> power(md.tensor(2.0), 3).item()
    8.0
    """
    count, again = f.__code__.co_posonlyargcount, fused(f)

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        data = args[:count]
        xp = getattr(data[0], "xp", None)
        if not getattr(xp, "compiles_operations", False):
            return again(*args)
        if not at_once() or not all(isinstance(x, Tensor) and x.xp is xp and x.node is None for x in data):
            return f(*args)
        key = told(args[count:]), settings()
        return _program(f, xp, tuple((x.shape, x.dtype) for x in data), args[count:], key)(*(x.payload for x in data))

    return call  # type: ignore[return-value]


def fused(f: F) -> F:
    """f(*data, /, *static), of Tensors or None, and of hashable arguments that a program is made for (f(*tensors) has none), as one program and one
    node of the tape, where the backend compiles at once and the Tensors are small. f reads nothing but its arguments. A program looks at no indices:
    check those from data before the call. Raises TypeError for an argument that is not hashable.

    >>> @md.extend.fused
    ... def scaled(x, bias, /, by):
    ...     return x * by if bias is None else x * by + bias
    >>> [scaled(md.tensor(2.0), None, n).item() for n in (1, 2, 2, 2, 2)]
    [2.0, 4.0, 4.0, 4.0, 4.0]
    """
    count = None if f.__code__.co_flags & CO_VARARGS else f.__code__.co_posonlyargcount
    known: dict[Any, Any] = {}

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        data, static = (args, ()) if count is None else (args[:count], args[count:])
        if not at_once():
            return f(*args)
        xp = getattr(data[0], "xp", None) if data else None
        xp = next((x.xp for x in data if isinstance(x, Tensor)), None) if xp is None else xp
        if xp is None:
            return f(*args)
        key: list[Any] = [xp]
        for v in static:
            key += (v.__class__, v if v.__class__ in _EXACT else told(v))
        for x in data:
            if x is None:
                key.append(x)
            elif isinstance(x, Tensor) and x.xp is xp:
                key += (x.payload.shape, x.dtype, x.node is None)
            else:
                return f(*args)
        kind = tuple(key)
        try:
            found = known.get(kind, 0)
        except TypeError:
            raise TypeError(f"{f.__name__}: the arguments behind / are hashable, not {', '.join(type(v).__name__ for v in static)}") from None
        if found.__class__ is int:
            if len(known) > 512:
                known.clear()
            found = known[kind] = found + 1 if found < _CALLS else _made(f, data, static, xp)
        return _own(f(*args)) if found is None or found.__class__ is int else found(*data)

    return call  # type: ignore[return-value]


def _own(out: Any) -> Any:
    """What a program would return: no argument, and no view of one."""
    if out.__class__ is Tensor:
        return Tensor(out.payload, out.xp, out.dtype, out.node)
    return tree.map(lambda v: Tensor(v.payload, v.xp, v.dtype, v.node) if isinstance(v, Tensor) else v, out)


def _made(f: Callable[..., Any], data: tuple[Any, ...], static: tuple[Any, ...], xp: Any) -> Callable[..., Any] | None:
    if xp.expected(Graph((), (), ())) or any(x is not None and x.nbytes >= _SMALL for x in data):
        return None
    made = md.jit(lambda *given: f(*given, *static), backend=xp.name)  # never a contest of backends
    try:
        made.explain(*data)
    except Exception:  # whatever it was: the operations need none of it, or say it in the caller's terms
        return None
    large = any(v.nbytes >= _SMALL for e in made.programs[0].graph.walk() for v in e.outputs)
    return None if large else made  # type: ignore[no-any-return]
