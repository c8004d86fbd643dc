"""Functions of many operations that a kernel of their backend's library computes, forwards and backwards, where they run eagerly, and in programs
that jit makes for that backend.

In a program such a call is one equation, `by_kernel`, and its derivative backwards is another, `by_kernel_dx`. Both carry as their `body` the graph
of what the kernel computes, and are decomposed into it wherever there is no such kernel: by other engines and modes of jit, in derivatives of higher
order and forwards, in mapped functions. A kernel that programs call says by shapes and dtypes alone whether it computes a function: `fits`.

Promises: vmap, other derivatives than a first one backwards, strong zeros, empty arrays and whatever a kernel declines see the operations of the
function, whose values the kernel's are but for rounding; so do the bodies of loops and branches, and md.trace.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from inspect import CO_VARARGS, unwrap
from itertools import compress
from typing import Any, TypeVar

import minidl as md
from minidl import Tensor
from minidl.extend import Body, Literal, Primitive, aval, define, jvp_graph, settings, vjp_graph

F = TypeVar("F", bound=Callable[..., Any])
_REFUSED = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)  # what libraries raise for arguments that do not fit
_FIXED = (int, float, str, type(None), functools.partial)  # and bool: arguments that are the same in each call of a program


@functools.cache
def _kernel(name: str, xp: Any) -> Callable[..., Any] | None:
    module = f"{__package__}.on_{xp.name}"
    return getattr(importlib.import_module(module), name) if importlib.util.find_spec(module) else None


def by_kernel(name: str) -> Callable[[F], F]:
    """Makes of f(*data, /, *static), of Tensors or None, one node of the tape on backends with a module on_torch, …, which has a kernel of this name:
    kernel(tracked, *arrays, *static) gives None where it does not compute f, or (results, others, back). The results are an array or a tuple of them,
    as f returns Tensors; `others`, which follow them, have no derivative, and back is that of md.extend.stands_for. Of arguments that the library
    refuses, f says what is wrong in the caller's terms.

    kernel.fits(tracked, *arrays, *static), if there is one, says whether it computes f by all but the values of the arrays; then programs call it,
    too, with results that are new memory, no two of them the same.
    """
    return lambda f: _by_kernel(name, f)


def _by_kernel(name: str, f: F) -> F:
    code = unwrap(f).__code__
    count = None if code.co_flags & CO_VARARGS else code.co_posonlyargcount

    @functools.wraps(f)
    def call(*args: Any) -> Any:
        if not md.extend.at_once():
            found = _in_a_program(name, f, args[:count], () if count is None else args[count:])
            return f(*args) if found is None else found[0]
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
        one = not isinstance(results, tuple)
        if tracked:
            function = lambda *data: f(*data, *static)
            function.__name__ = name
            out = md.extend.stands_for(function, data, (results,) if one else results, back)
        else:
            out = [Tensor(v, xp, xp.dtype_of(v)) for v in ((results,) if one else results)]  # type: ignore[union-attr]
        if one and not others:
            return out[0]
        return *out, *[None if v is None else Tensor(v, xp, xp.dtype_of(v)) for v in others]  # type: ignore[union-attr]

    return call  # type: ignore[return-value]


# ---- in programs ------------------------------------------------------------------------------------------------------------------------------
def _fixed(value: Any) -> bool:
    return all(map(_fixed, value)) if isinstance(value, tuple) else isinstance(value, _FIXED)


def _in_a_program(name: str, f: Callable[..., Any], data: Sequence[Any], static: tuple[Any, ...]) -> tuple[Any] | None:
    """What f returns, as results of an equation; None where operations are recorded."""
    level = md.extend.traced()
    where, given = getattr(level, "kernels", None), [x for x in data if x is not None]
    if where is None or md.extend.cast_by() is not None or not _fixed(static):
        return None
    if not given or not all(isinstance(x, Tensor) and 0 not in x.shape for x in given):
        return None
    xp = next((x.xp for x in given if x.xp is not level), level.home if level.captured else None)
    kernel = _kernel(name, xp) if xp is not None and where in ("auto", xp.name) else None
    if xp is None or not hasattr(kernel, "fits"):
        return None
    like = [None if x is None else xp.broadcast_to(xp.scalar(0, x.dtype), shape=tuple(x.shape)) for x in data]
    if not kernel.fits(md.is_grad_enabled() and any(x.requires_grad for x in given), *like, *static):  # type: ignore[union-attr]
        return None

    def run(*xs: Tensor) -> Any:
        left = iter(xs)
        return f(*(None if x is None else next(left) for x in data), *static)

    body = Body(run, [aval(x) for x in given])
    if body.written:
        return None
    there = tuple(x is not None for x in data)
    return (md.tree.unflatten(body.structure, _by_kernel_op(*given, *body.read, body=body.graph, kernel=name, static=static, there=there)),)


def _decomposed(xp: Any, *operands: Any, body: md.Graph, **how: Any) -> tuple[Any, ...]:
    if xp is md.extend.ns:
        return body(*operands)
    number = getattr(xp, "scalar", None)
    literal: Callable[[Literal], Any] = lambda c: c if number is None else number(c.value, c.dtype)
    return tuple(body.run(lambda p, xs, params: getattr(xp, p.name)(*xs, **params), operands, literal))


def _derive(primitive: Callable[..., Any] | None, operands: Sequence[Tensor], live: Sequence[bool], params: dict[str, Any]) -> tuple[Any, ...]:
    """The derivatives of the body; backwards as one equation, if there is a primitive for that, unless it is differentiated in turn."""
    body = params["body"]

    def vjp(ins: list[Tensor], outs: list[Tensor] | None, cts: list[Any]) -> list[Any]:
        used = tuple(c is not None for c in cts)
        back, given = vjp_graph(body, live, used), [*ins, *compress(cts, used)]
        if primitive is None or outs is None or settings()[0]:  # strong zeros
            found = back(*given)
        else:
            found = primitive(*given, **(params | {"body": back}), wanted=tuple(live), used=used)
        left = iter(found)
        return [next(left) if w else None for w in live]

    def jvp(ins: list[Tensor], tangents: list[Any]) -> list[Any]:
        inexact = [v.dtype.inexact for v in body.outputs]
        found = jvp_graph(body, [t is not None for t in tangents], inexact)(*ins, *(t for t in tangents if t is not None))
        left = iter(found[len(inexact) :])
        return [next(left) if i else None for i in inexact]

    return operands, params, vjp, jvp


def _infer(*operands: Any, body: md.Graph, **how: Any) -> Any:
    return tuple((v.shape, v.dtype) for v in body.outputs)


_how: dict[str, Any] = {"infer": _infer, "decompose": _decomposed, "multiple": True, "promote": "none"}
#: kernel, static, there: its name, the arguments behind the arrays, and which of these are not None. Operands behind them are what the body reads.
_dx_op = define(
    Primitive("by_kernel_dx", "*operands", "body kernel static there wanted used", **_how), __package__, functools.partial(_derive, None)
)
_by_kernel_op = define(Primitive("by_kernel", "*operands", "body kernel static there", **_how), __package__, functools.partial(_derive, _dx_op))
