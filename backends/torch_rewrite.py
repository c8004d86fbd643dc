"""PyTorch: rewrites of a graph before it is emitted, and the primitives that live in emitted programs only.

Promises: the same values and gradients to the last bit, nan and ties included (of a maximum that is zero, the sign may be the other one); what a
rewrite leaves without a user is gone. The updates of optimizers, log_softmax_at and products with a bias round otherwise.

- relu after max pooling instead of before it: the maximum of a window and its first place are the same, and where the maximum is not positive no
  gradient passes either way; so relu and its derivative see a quarter of the elements.
- max pooling over windows that neither overlap nor leave rows that are too short for a vector is the maximum of strided slices, and its places, which
  nobody but the derivative sees, a mask for each place along an axis (`pool_masks`, `spread`); the library's kernel takes one element at a time.
- log_softmax at one place of each row, where softmax of the same rows is computed besides, is the element less the maximum plus the logarithm of the
  largest probability: no second pass of exponentials. Its derivative changes one element of each row in place (hot.py).
- A product of several rows with a matrix, or a convolution, and the sum with a bias are one call, which adds up from the bias on.
- where(x > 0, g, 0) becomes one vectorised kernel (`keep_positive`): torch.where branches on every element. So does the choice of what lies between
  two numbers (`keep_inside`), as in the derivative of clip.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from minidl.backends import hot
from minidl.backends.torch_kernels import keep_inside, keep_positive
from minidl.backends.torch_updates import adam_step, numbers, sgd_step, updates
from minidl.backends.torch_windows import MANY, WORDS, cuts, max_pool, pool_scatter, sliced_maxima, slices_well
from minidl.graph import Equation, Graph, Literal, Var
from minidl.passes.basic import dead_code
from minidl.passes.rewriting import common
from minidl.primitives.core import table

Tensor = torch.Tensor


class KeepInside:
    """keep_inside(g, x; lo, hi): g where lo < x < hi, else 0."""

    name = "keep_inside"
    multiple = False


class KeepPositive:
    """keep_positive(g, x): g where x > 0, else 0."""

    name = "keep_positive"
    multiple = False


class PoolMasks:
    """pool_masks(x; window): the maxima, and what `spread` takes."""

    name = "pool_masks"
    multiple = True


class Spread:
    """spread(g, places; x_shape, window, ...): pool_scatter where pool_masks found the places."""

    name = "spread"
    multiple = False


def pool_masks(x: Tensor, *, window: tuple[int, ...]) -> tuple[Tensor, Any]:
    """For each axis of the windows one mask for each place along it, int8, with every bit set where the first maximum is. With a nan, which compares
    with nothing, the general kernel decides."""
    best, chosen = sliced_maxima(x, window)
    if chosen is not None:
        return best, [[m.neg_() for m in masks] for masks in chosen]
    none = (0,) * len(window)
    return max_pool(x, window=window, stride=window, padding=tuple(zip(none, none, strict=True)), dilation=(1,) * len(window))


def spread(g: Tensor, places: Any, *, x_shape: tuple[int, ...], window: tuple[int, ...], **more: Any) -> Tensor:
    """g at the chosen places, 0 elsewhere: by bits, so that neither 0 * inf nor a branch arises; one axis after the other, the first one first."""
    if isinstance(places, Tensor):
        return pool_scatter(g, places, x_shape=x_shape, window=window, **more)
    n, bits = len(window), g.view(WORDS[g.dtype.itemsize])
    for axis in range(-n, 0):
        shape = (*bits.shape[: bits.ndim + axis], x_shape[axis], *bits.shape[bits.ndim + axis + 1 :])
        out = (torch.zeros if x_shape[axis] % window[axis] else torch.empty)(shape, dtype=bits.dtype, device=bits.device)
        for cut, mask in zip(cuts(shape, window, axis), places[axis], strict=True):
            torch.bitwise_and(bits, mask, out=out[cut])
        bits = out
    return bits.view(g.dtype)


#: What libraries rewrite besides, see md.extend.define.
REWRITES: list[Callable[[Graph], Graph]] = []
#: The functions of the primitives that live in emitted programs.
EMITTED = {
    "adam_step": adam_step, "numbers": numbers, "sgd_step": sgd_step, "keep_positive": keep_positive,
    "keep_inside": keep_inside, "pool_masks": pool_masks, "spread": spread,
}  # fmt: skip


class Uses:
    """Who makes and who reads each variable."""

    def __init__(self, graph: Graph):
        self.made = {v: e for e in graph.equations for v in e.outputs}
        self.users: dict[Any, list[Equation]] = {}
        for e in graph.equations:
            for a in e.inputs:
                self.users.setdefault(a, []).append(e)
        self.kept = set(graph.outputs)

    def maker(self, a: Any, name: str) -> Equation | None:
        """The equation of that primitive that makes a."""
        e = self.made.get(a)
        return e if e is not None and e.primitive.name == name else None

    def positive(self, e: Equation) -> Any:
        """x, for an equation where(x > 0, g, 0) of one shape."""
        if e.primitive.name != "where" or not (isinstance(e.inputs[2], Literal) and repr(e.inputs[2].value) == "0.0"):
            return None
        test = self.maker(e.inputs[0], "gt")
        if test is None or not (isinstance(test.inputs[1], Literal) and test.inputs[1].value == 0):
            return None
        x, g, out = test.inputs[0], e.inputs[1], e.outputs[0]
        return x if isinstance(x, Var) and isinstance(g, Var) and x.shape == g.shape == out.shape and x.dtype is g.dtype else None


    def inside(self, e: Equation) -> tuple[Any, dict[str, float]] | None:
        """x and the bounds, for an equation where(lo < x < hi, g, 0) of one shape."""
        both = self.maker(e.inputs[0], "logical_and") if e.primitive.name == "where" else None
        if both is None or not (isinstance(e.inputs[2], Literal) and repr(e.inputs[2].value) == "0.0"):
            return None
        low, high, g = self.maker(both.inputs[0], "gt"), self.maker(both.inputs[1], "lt"), e.inputs[1]
        if low is None or high is None or low.inputs[0] is not high.inputs[0] or not isinstance(low.inputs[0], Var) or not isinstance(g, Var):
            return None
        x, ends = low.inputs[0], {k: getattr(test.inputs[1], "value", math.inf) for k, test in (("lo", low), ("hi", high))}
        fits = x.shape == g.shape == e.outputs[0].shape and x.dtype is g.dtype and x.dtype.name in ("float32", "float64")
        return (x, ends) if fits and all(map(math.isfinite, ends.values())) else None

    def cut_by(self, scatter: Equation, x: Any) -> bool:
        """Whether this is a pool_scatter of what was 0 already where x is not positive."""
        cut = self.maker(scatter.inputs[0], "where")
        return scatter.primitive.name == "pool_scatter" and cut is not None and self.positive(cut) is x


def _new(name: str, inputs: tuple, params: dict, like: Any, where: str | None) -> Equation:
    return Equation(table[name], inputs, params, (Var(like.shape, like.dtype),), where)


def relu_after_pooling(graph: Graph) -> Graph:
    """See the module."""
    uses, equations = Uses(graph), list(graph.equations)
    for pool in graph.equations:
        relu = uses.maker(pool.inputs[0], "relu") if pool.primitive.name == "max_pool" else None
        if relu is None or relu.outputs[0] in uses.kept or not relu.outputs[0].dtype.is_float:
            continue
        cut = [e for test in uses.users[relu.outputs[0]] if test.primitive.name == "gt" for e in uses.users.get(test.outputs[0], [])]
        scatters = [uses.maker(e.inputs[1], "pool_scatter") for e in cut]
        others = [e for e in uses.users[relu.outputs[0]] if e is not pool and e.primitive.name != "gt"]
        tests = [e for e in uses.users[relu.outputs[0]] if e.primitive.name == "gt"]
        fits = all(
            s is not None and s.inputs[1] is pool.outputs[1] and uses.positive(e) is relu.outputs[0] and len(uses.users[s.outputs[0]]) == 1
            and s.outputs[0] not in uses.kept
            for e, s in zip(cut, scatters, strict=True)
        )  # fmt: skip
        # where a whole window is below 0 the places differ, which nobody else may see: but for a scatter to which no gradient comes from there
        scatters += [s for s in uses.users.get(pool.outputs[1], []) if uses.cut_by(s, pool.outputs[0])]
        seen = pool.outputs[1] in uses.kept or any(all(u is not s for s in scatters) for u in uses.users.get(pool.outputs[1], []))
        if others or not fits or seen or any(t.outputs[0] in uses.kept for t in tests):
            continue
        best = Var(pool.outputs[0].shape, pool.outputs[0].dtype)
        at = equations.index(pool)
        equations[at : at + 1] = [
            Equation(pool.primitive, relu.inputs, pool.params, (best, pool.outputs[1]), pool.where),
            Equation(relu.primitive, (best,), {}, (pool.outputs[0],), relu.where),
        ]
        for e, scatter in zip(cut, scatters, strict=False):
            assert scatter is not None
            g, (zero,) = scatter.inputs[0], e.inputs[2:]
            test = _new("gt", (pool.outputs[0], Literal(0.0, g.dtype)), {}, Var(g.shape, e.inputs[0].dtype), e.where)
            passed = _new("where", (test.outputs[0], g, zero), {}, g, e.where)
            equations[equations.index(scatter)] = test
            at = equations.index(e)
            equations[at : at + 1] = [passed, Equation(scatter.primitive, (passed.outputs[0], scatter.inputs[1]), scatter.params, e.outputs, e.where)]
    return dead_code(Graph(graph.inputs, equations, graph.outputs, graph.name))


def pools_as_slices(graph: Graph) -> Graph:
    """See the module."""
    uses, new = Uses(graph), {}
    for e in graph.equations:
        if e.primitive.name != "max_pool" or not e.outputs[0].dtype.is_float:
            continue
        window, places, shape = e.params["window"], e.outputs[1], e.outputs[0].shape
        readers = uses.users.get(places, [])
        ours = all(r.primitive.name == "pool_scatter" and r.params["window"] == window and r.params["stride"] == window for r in readers)
        well = slices_well(shape, window, e.params["stride"], e.params["padding"], e.params["dilation"])
        if well and ours and places not in uses.kept and all(r.inputs[0] is not places for r in readers):
            new[e] = Equation(PoolMasks, e.inputs, {"window": window}, e.outputs, e.where)
            new.update((r, Equation(Spread, r.inputs, r.params, r.outputs, r.where)) for r in readers)
    return Graph(graph.inputs, [new.get(e, e) for e in graph.equations], graph.outputs, graph.name)


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
        between = uses.inside(e) if math.prod(e.outputs[0].shape) >= MANY else None
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

    def add(e: Equation, name: str, *inputs: Any, **params: Any) -> Any:
        shape, dtype = table[name].infer(*inputs, **params)
        out = Var(tuple(shape), dtype)
        take(Equation(table[name], inputs, params, (out,), e.where))
        return new.get(out, out)

    for e in graph.equations:
        if e not in found:
            take(e)
            continue
        take(found[e])
        (x, i), axis, zero = e.inputs, e.params["axis"], Literal(0.0, e.outputs[0].dtype)
        place = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
        high, top = (add(e, "max", new.get(v, v), axis=(axis,), keepdims=False) for v in (x, found[e].outputs[0]))
        inside = add(e, "logical_and", add(e, "ge", i, Literal(0, i.dtype)), add(e, "lt", i, Literal(x.shape[axis], i.dtype)))
        mine = add(e, "reshape", add(e, "take_along", x, add(e, "reshape", i, shape=place), axis=axis), shape=i.shape)
        d = add(e, "where", add(e, "eq", mine, high), zero, add(e, "sub", mine, high))  # never inf - inf
        take(Equation(table["where"], (inside, add(e, "add", d, add(e, "log", top)), zero), {}, e.outputs, e.where))
    return Graph(graph.inputs, equations, [new.get(a, a) for a in graph.outputs], graph.name)


def rewritten(graph: Graph, cpu: bool) -> Graph:
    """All rewrites in their order. On CUDA looking for nan would stop the queue, and torch.where costs no more than another kernel."""
    graph = relu_after_pooling(graph)
    if not cpu:
        return graph
    graph = functools.reduce(lambda graph, rewrite: rewrite(graph), REWRITES, with_bias(graph))
    return updates(pools_as_slices(keep_positives(hot.put(log_softmax_of(graph)))))
