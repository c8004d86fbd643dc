"""PyTorch: rewrites of a graph before it is emitted, some to what only emitted programs have (`EMITTED`).

Promises: the same values and gradients to the last bit, nan and ties included; what a rewrite leaves without a user is gone. log_softmax_at and
products with a bias round otherwise. On CUDA looking for nan would stop the queue, and torch.where costs no more than another kernel, so these are
for the CPU.

- log_softmax at one place of each row, where softmax of the same rows is computed besides, is the element less the maximum plus the logarithm of the
  largest probability: no second pass of exponentials. Its derivative changes one element of each row in place (on_numpy.py).
- A product of several rows with a matrix, or a convolution, and the sum with a bias are one call, which adds up from the bias on.
- where(x > 0, g, 0) becomes one vectorised kernel (`keep_positive`): torch.where branches on every element. So does the choice of what lies between
  two numbers (`keep_inside`), as in the derivative of clip.
"""

from __future__ import annotations

import math
from typing import Any

from minidl.backends.torch_kernels import keep_inside, keep_positive
from minidl.backends.torch_linear import MANY
from minidl.backends.torch_rewrite import EMITTED, Uses
from minidl.graph import Emitted, Equation, Graph, Literal, Var
from minidl.lowering import Recorder
from minidl.passes.basic import dead_code
from minidl.passes.rewriting import common
from minidl.primitives.core import table
from minidl.rewrites.on_numpy import rewrite as put

#: keep_inside(g, x; lo, hi): g where lo < x < hi, else 0.
KeepInside = Emitted("keep_inside")
#: keep_positive(g, x): g where x > 0, else 0.
KeepPositive = Emitted("keep_positive")
EMITTED.update(keep_positive=keep_positive, keep_inside=keep_inside)


def _inside(uses: Uses, e: Equation) -> tuple[Any, dict[str, float]] | None:
    """x and the bounds, for an equation where(lo < x < hi, g, 0) of one shape."""
    both = uses.maker(e.inputs[0], "logical_and") if e.primitive.name == "where" else None
    if both is None or not (isinstance(e.inputs[2], Literal) and repr(e.inputs[2].value) == "0.0"):
        return None
    low, high, g = uses.maker(both.inputs[0], "gt"), uses.maker(both.inputs[1], "lt"), e.inputs[1]
    if low is None or high is None or low.inputs[0] is not high.inputs[0] or not isinstance(low.inputs[0], Var) or not isinstance(g, Var):
        return None
    x, ends = low.inputs[0], {k: getattr(test.inputs[1], "value", math.inf) for k, test in (("lo", low), ("hi", high))}
    fits = x.shape == g.shape == e.outputs[0].shape and x.dtype is g.dtype and x.dtype.name in ("float32", "float64")
    return (x, ends) if fits and all(map(math.isfinite, ends.values())) else None


def with_bias(graph: Graph) -> Graph:
    """See the module. Products of two axes are left alone: they have planned memory."""
    uses, gone, new = Uses(graph), set(), {}
    for e in graph.equations:
        if e.primitive.name != "add" or e.outputs[0].dtype.name not in ("float32", "float64"):
            continue
        for product, b in (e.inputs, e.inputs[::-1]):
            conv, reshaped = uses.maker(product, "conv"), uses.maker(b, "reshape")
            if conv is not None and reshaped is not None and product not in uses.kept and len(uses.users[product]) == 1:
                (channels, *ones), (b, *_) = conv.inputs[1].shape, reshaped.inputs
                if b.shape == (channels,) and reshaped.params["shape"] == (channels, *(1 for _ in ones[1:])):
                    gone.add(conv)
                    new[e] = Equation(table["conv_affine"], (*conv.inputs, b), conv.params, e.outputs, e.where)
                    break
            dot = uses.maker(product, "dot_general")
            if dot is None or product in uses.kept or len(uses.users[product]) > 1 or not isinstance(b, Var):
                continue
            (x, w), n = dot.inputs, len(dot.inputs[0].shape)
            rows = {"contract": ((n - 1,), (1,)), "batch": ((), ())}
            if n > 2 and len(w.shape) == 2 and dot.params == rows and b.shape == w.shape[:1] and b is not product:
                gone.add(dot)
                new[e] = Equation(table["affine"], (x, w, b), {}, e.outputs, e.where)
                break
    return dead_code(Graph(graph.inputs, [new.get(e, e) for e in graph.equations if e not in gone], graph.outputs, graph.name)) if new else graph


def keep_positives(graph: Graph) -> Graph:
    """See the module."""
    uses = Uses(graph)
    equations = []
    for e in graph.equations:
        x = uses.positive(e) if math.prod(e.outputs[0].shape) >= MANY else None
        between = _inside(uses, e) if math.prod(e.outputs[0].shape) >= MANY else None
        if between is not None:
            e = Equation(KeepInside, (e.inputs[1], between[0]), between[1], e.outputs, e.where)
        equations.append(e if x is None else Equation(KeepPositive, (e.inputs[1], x), {}, e.outputs, e.where))
    return dead_code(Graph(graph.inputs, equations, graph.outputs, graph.name))


def log_softmax_of(graph: Graph) -> Graph:
    """See the module."""
    known = {(e.inputs[0], e.params["axis"]): e for e in graph.equations if e.primitive.name == "softmax" and e.outputs[0].dtype.bits > 16}
    found = {e: p for e in graph.equations if e.primitive.name == "log_softmax_at" and (p := known.get((e.inputs[0], e.params["axis"])))}
    if not any(math.prod(e.inputs[0].shape) >= MANY for e in found):
        return graph
    equations: list[Equation] = []
    seen: dict[Any, Equation] = {}
    new: dict[Any, Any] = {}

    def take(e: Equation) -> None:
        e = Equation(e.primitive, tuple(new.get(a, a) for a in e.inputs), e.params, e.outputs, e.where)
        if (left := common(e, seen, new)) is not None:
            equations.append(left)

    for e in graph.equations:
        if e not in found:
            take(e)
            continue
        take(found[e])
        (x, i), axis, xp = e.inputs, e.params["axis"], Recorder(e.where)
        place = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
        high, top = (xp.max(v, axis=(axis,), keepdims=False) for v in (x, found[e].outputs[0]))
        inside = xp.logical_and(xp.ge(i, 0), xp.lt(i, x.shape[axis]))
        mine = xp.reshape(xp.take_along(x, xp.reshape(i, shape=place), axis=axis), shape=i.shape)
        d = xp.where(xp.eq(mine, high), Literal(0.0, high.dtype), xp.sub(mine, high))  # never inf - inf
        xp.where(inside, xp.add(d, xp.log(top)), 0.0)
        *steps, last = xp.recorded
        for step in (*steps, Equation(last.primitive, last.inputs, last.params, e.outputs, e.where)):
            take(step)
    return Graph(graph.inputs, equations, [new.get(a, a) for a in graph.outputs], graph.name)


def rewrite(graph: Graph, place: str) -> Graph:
    """All of these, in their order."""
    return keep_positives(put(log_softmax_of(with_bias(graph)))) if place == "cpu" else graph
