"""A function of many operations as one compiled program, where a backend compiles each operation by itself.

A random draw is a dozen operations or more. Eager on jax the first one of each shape would be as many compilations, a twentieth of a second each,
and building a network would take longer than training it. So there it is traced and compiled once for each signature, and called from then on.

Promises: the values are those of the function under jit; traces, vmap and derivatives see the operations, as everywhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from minidl import tree
from minidl.backends import using
from minidl.context import state
from minidl.dtypes import DType
from minidl.tensors import Tensor
from minidl.tracing import subgraph

F = TypeVar("F", bound=Callable[..., Any])


@functools.lru_cache(maxsize=1024)
def _program(f: Callable[..., Any], xp: Any, avals: tuple[tuple[tuple[int, ...], DType], ...], static: tuple[Any, ...]) -> Callable[..., Any]:
    with using(xp):
        graph, constants, structure = subgraph(lambda *data: f(*data, *static), avals)
    run, fixed = xp.compile(graph), [c.payload for c in constants]

    def call(*natives: Any) -> Any:
        outs = run(*natives, *fixed)
        return tree.unflatten(structure, [Tensor(o, xp, v.dtype) for o, v in zip(outs, graph.outputs, strict=True)])

    return call


def whole(f: F) -> F:
    """f(*data, /, *static), of Tensors and of hashable arguments that a program is made for: one program where the backend wants that.

    >>> @md.extend.whole
    ... def power(x, /, n):
    ...     return x if n == 1 else x * power(x, n - 1)
    >>> power(md.tensor(2.0), 3).item()
    8.0
    """
    count = f.__code__.co_posonlyargcount

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        data = args[:count]
        xp = getattr(data[0], "xp", None)
        if not getattr(xp, "compiles_operations", False) or state.interpreter is not None or state.autocast is not None:
            return f(*args)
        if not all(isinstance(x, Tensor) and x.xp is xp and x.node is None for x in data):
            return f(*args)
        return _program(f, xp, tuple((x.shape, x.dtype) for x in data), args[count:])(*(x.payload for x in data))

    return call  # type: ignore[return-value]
