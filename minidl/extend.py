"""md.extend: what a library on minidl stands on, beside the operations that everybody uses. md.linalg, md.fft, md.random and md.testing have no more.

    ns, table, bind                                   the primitives: as functions of Tensors, as data, and how one is applied
    define, Primitive, elementwise                    a primitive of your own, batch_elementwise and batch_leading its batching rules
    Body, jvp_graph, vjp_graph, halves, batched_graph functions as graphs, and the graphs derived from these, for a primitive that carries them;
                                                      reached says what in one has a derivative, settings what it depends on, with_modules
                                                      which arguments belong to the function, told what tells a param from any other
    operand, cast, cut, constant, create, from_numpy  Tensors from what a caller gives; store and storing put one into another, view
                                                      says of one whose elements it shows, sever that it shows none, twin makes one that shares
                                                      nothing; aval says its shape and dtype
    Equation, Literal, Var, subgraphs                 what a md.Graph is made of; dead_code takes out what nobody reads, rule brings a rewrite (a
                                                      function of a Rewriter and an Equation), lifetimes and memory say how long values live, and
                                                      how large they are together
    home, get_backend, using, Backend                 where they are
    axis_index, axes_tuple, size_tuple, pairs         what arguments mean, as scalar_type; argument_numbers and inexact say it of a transform's
    seen, deciding, expect, fits, describe, check_all what a function may look at, and the errors that it raises, whose texts have arguments as shown
    whole, fused                                      several operations that are one program where that pays
    stands_for, at_once, traced                       what a library's kernel computes in the place of several, whether they run at once, or in which
                                                      trace or vmap
    per_lane, persistent, streams                     random state under vmap, jit and checkpoint
    lanes_around, interpreting                        and in the loops of a mapped function
    autocasting, cast_by                              the dtypes in which operations compute
    recorded                                          where the time of a call goes
    Engine, handed, Auto, disk                        who may run a jitted program, how arrays get there, and where what was measured is kept
    WICHURA                                           coefficients of the normal quantile

Promises: these names stay. A function written with them runs eager, traced, batched and differentiated, on every backend, as minidl's own do.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import later, tape
from minidl.backends import disk, loaded, using
from minidl.backends import get as get_backend
from minidl.backends.base import Backend
from minidl.backends.numpy_special import WICHURA
from minidl.batching import lanes_around, per_lane, vmap
from minidl.bodies import Body, apply, aval, batched_graph, halves, jvp_graph, reached, settings, vjp_graph
from minidl.calls import Engine
from minidl.checkpointing import streams
from minidl.context import at_once, autocasting, cast_by, interpreting
from minidl.custom import custom_vjp
from minidl.errors import check_all
from minidl.generated import operation
from minidl.graph import Equation, Literal, Var, subgraphs, told
from minidl.handover import handed
from minidl.ops.common import cast, constant, create, deciding, default, eager_on_cpu, fits, operand, pairs, state, traced, values
from minidl.ops.manipulation import cut
from minidl.ops.methods import store, storing
from minidl.passes import dead_code
from minidl.passes.rewriting import Rewriter, rule
from minidl.primitives import table
from minidl.primitives.core import Primitive, batch_elementwise, batch_leading, elementwise
from minidl.shapes import axes_tuple, axis_index, shown, size_tuple
from minidl.tensors import Tensor, bind, describe, from_numpy, ns, scalar_type, sever, view
from minidl.tensors import home as below
from minidl.tracing import persistent
from minidl.transforms import argument_numbers, inexact, stands_for, twin, with_modules

if TYPE_CHECKING:
    from minidl.contest import Auto
    from minidl.lifetimes import lifetimes, memory
    from minidl.whole import fused, whole

__all__ = [
    "WICHURA", "Auto", "Backend", "Body", "Engine", "Equation", "Literal", "Primitive", "Rewriter", "Var", "argument_numbers", "at_once",
    "autocasting", "aval", "axes_tuple", "axis_index", "batch_elementwise", "batch_leading", "batched_graph", "bind", "cast", "cast_by", "check_all",
    "constant", "create", "cut", "dead_code", "deciding", "define", "describe", "disk", "elementwise", "expect", "fits", "from_numpy", "fused",
    "get_backend", "halves", "handed", "home", "inexact", "interpreting", "jvp_graph", "lanes_around", "lifetimes", "memory", "ns", "operand",
    "pairs", "per_lane", "persistent", "reached", "recorded", "rule", "scalar_type", "seen", "settings", "sever", "shown", "size_tuple",
    "stands_for", "store", "storing", "streams", "subgraphs", "table", "told", "traced", "twin", "using", "view", "vjp_graph", "whole",
    "with_modules",
]  # fmt: skip


def home(like: Tensor | None = None) -> Backend:
    """The backend that holds a Tensor's data, or without one that on which operations run here; traces and batches belong to one, too.

    >>> md.extend.home(md.ones(2)).name == md.ones(2).backend
    True
    """
    if like is not None:
        return below(like.xp)
    return default() if state.interpreter is None else below(state.interpreter)


def define(primitive: Primitive, kernels: str = "", derive: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A primitive of your own as a function of Tensors, on every backend: it has a derivative, a batching rule and a place in graphs like any other.
    Backends compute it by its decomposition, whose namespace xp has the functions of md.extend.table. What it has no rule for follows from that, too:
    the derivative of one that is not elementwise and gives no rule at all, as those of several results must; and what vmap does without `batch`, of
    which the rules, where there are any, remain the derivative.

    kernels: a package whose modules on_numpy, on_torch, … (by the names of backends; none is needed) have a function of the primitive's name that
    computes it there, in the library's own arrays; on_numba has lowerings, see minidl.backends.numba_lower. They are imported with their backend.
    What they do not compute is decomposed. A primitive with kernels and without rules has no derivative.

    derive: the derivative of a primitive with Graphs among its params, of several results, on Tensors: derive(operands, live, params) → (operands,
    params, vjp, jvp) is asked where some of the operands are differentiated, as `live` says of each. The primitive is applied to what it gives, such
    as graphs which return residuals too, whose results come after its own. vjp(operands, results, cotangents) has one cotangent for each operand,
    results being None where it is differentiated in turn and computes them itself; jvp(operands, tangents) has one tangent for each result. None
    is zero.

    Raises ValueError for a primitive without a decomposition, unless it has kernels and a batching rule, and for rules of one of several results
    without a batching rule.

    >>> softsign = md.extend.define(md.extend.elementwise(
    ...     "softsign", "x", lambda xp, g, x: g / xp.square(1 + xp.abs(x)),
    ...     decompose=lambda xp, x: x / (1 + xp.abs(x)), promote="float", only="float",
    ... ))
    >>> softsign(md.tensor(1.0)).item(), md.jit(md.grad(softsign))(md.tensor(1.0)).item()
    (0.5, 0.25)
    >>> del md.extend.table["softsign"]  # a name is defined once; so it is free again
    """
    if primitive.decompose is None and not (kernels and primitive.batch):
        what = "vmap can map it; give a batching rule" if kernels else "backend can compute it"
        raise ValueError(f"define: primitive {primitive.name} has no decomposition, so that no {what}")
    if primitive.multiple and primitive.differentiable and primitive.batch is None:
        raise ValueError(
            f"define: primitive {primitive.name} has several results, whose derivative is that of its decomposition; give no rules, or a batching"
            " rule, too"
        )
    if not kernels and derive is None and not primitive.elementwise and not any((*primitive.vjps, *primitive.jvps)):
        primitive.inline = True  # everybody but a backend sees the decomposition
    if primitive.batch is None:
        primitive.batch = _by_decomposition
    primitive.kernels = kernels
    primitive.apply = None if derive is None else functools.partial(apply, primitive, derive)
    for xp in loaded():
        for space in (xp, xp.quick, xp.bare):  # a name that was free again means another primitive now
            vars(space).pop(primitive.name, None)
        xp.complete()
        for space in (xp.quick, xp.bare):
            if not hasattr(space, primitive.name):
                setattr(space, primitive.name, getattr(xp, primitive.name))
    made = operation(primitive)
    setattr(ns, primitive.name, made)
    return made


def _by_decomposition(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: dict[str, Any]) -> Any:
    axes = tuple(0 if b else None for b in batched)
    value = vmap(lambda *lanes: primitive.decompose(ns, *lanes, **params), in_axes=axes)  # type: ignore[misc]
    if not any((*primitive.vjps, *primitive.jvps)):
        return value(*xs)
    live = [i for i, x in enumerate(xs) if x.dtype.inexact and primitive.vjp(i) is not None]

    def of_a_lane(g: Tensor, out: Tensor, *lanes: Tensor) -> Any:
        xp = state.interpreter
        payloads, (made,) = [xp.lift(x)[0] for x in lanes], [xp.lift(out)[0]]
        node = tape.record(primitive, xp, payloads, [[] if i in live else None for i in range(len(lanes))], [made], params)
        return tuple(node[1].pull_tensors(node, g, ns, lambda p, _: Tensor(p, xp, xp.dtype_of(p))))  # type: ignore[index]

    def back(kept: Any, g: Tensor) -> tuple[Any, ...]:  # a rule is the plain transpose, and so conjugation is undone around it
        plain = lambda t: ns.conj(t) if t.dtype.is_complex else t
        found = dict(zip(live, map(plain, vmap(of_a_lane, in_axes=(0, 0, *axes))(plain(g), *kept)), strict=True))
        return tuple(None if i not in found else found[i] if b else ns.sum(found[i], axis=(0,), keepdims=False) for i, b in enumerate(batched))

    def forward(*lanes: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        out = value(*lanes)
        return out, (out, *lanes)

    ruled = custom_vjp(value)
    ruled.defvjp(forward, back)
    return ruled(*xs)


def recorded(f: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[tuple[str, float, int]], float, list[tuple[int, str, str]], bool]:
    """Run `f(*args, **kwargs)` once, with a clock at every operation, as md.profile does.

    Returns (name, seconds, bytes alive when it ended) of each operation; the seconds of the whole call; (bytes, operation, type) of the largest
    arrays at the worst moment; whether f was made by md.jit. Such a function is run as its graph, equation by equation, the seconds are those of the
    compiled program, and its state does not advance.

    >>> [name for name, seconds, alive in md.extend.recorded(lambda x: (x * x).sum(), md.ones(2))[0]]
    ['mul', 'sum']
    """
    from minidl import recording

    return recording.recorded(f, args, kwargs)


def seen(*xs: Tensor) -> list[np.ndarray] | None:
    """The values of Tensors where looking is allowed and cheap: eager, on a CPU. None elsewhere. They may share memory, so write to none.

    >>> md.extend.seen(md.ones(2))[0].tolist()
    [1.0, 1.0]
    >>> md.jit(lambda x: x * (md.extend.seen(x) is None))(md.ones(2)).tolist()
    [1.0, 1.0]
    """
    return [values(x, "a look at the values") for x in xs] if all(map(eager_on_cpu, xs)) else None


def expect(bad: Callable[[], Tensor], kind: type[Exception], text: str) -> None:
    """Where values cannot be looked at: raise kind(text) at the next synchronisation if `bad()` holds anywhere. Only `md.out_of_bounds` of
    "raise-later" asks for that; with another policy nothing is computed.

    >>> def root(x):
    ...     md.extend.expect(lambda: x < 0.0, ValueError, "root: a negative number")
    ...     return md.sqrt(x)
    >>> with md.out_of_bounds("raise-later"):
    ...     y = md.jit(root)(md.tensor(-1.0))
    >>> try:
    ...     y.item()
    ... except ValueError as error:
    ...     print(error)
    root: a negative number
    """
    if later.policy() == "raise-later":
        later.expect(bad(), kind, text)


def __getattr__(name: str) -> Any:
    """What a room above the core has, and stands here for whoever writes another one."""
    room = {"Auto": "contest", "fused": "whole", "lifetimes": "lifetimes", "memory": "lifetimes", "whole": "whole"}.get(name)
    if room is None:
        raise AttributeError(f"module 'minidl.extend' has no attribute {name!r}")
    return getattr(importlib.import_module(f"minidl.{room}"), name)
