"""Rules for what moves elements, reduces or contracts them.

All of them move elements only, or hand the same elements to the same sum in the same layout: NumPy and torch order the axes of a reduction by their
strides, so the sum of a permuted array over permuted axes adds the same numbers in the same order, and a product is handed the same view.
"""

from __future__ import annotations

import math
from typing import Any

from minidl.extend import Equation, Literal, Rewriter, rule
from minidl.rewrites.arithmetic import SIGNIFICAND, Atom

#: Reductions over a tuple of axes with keepdims.
_REDUCTIONS = tuple("sum prod max min any all logsumexp".split())


@rule("reshape", "broadcast_to", "permute", "slice", "flip", "tril", "triu", "pad", "concat", "unslice")
def unmoved(b: Rewriter, e: Equation) -> Atom | None:
    """What leaves every element in its place."""
    (out,), p, name = e.outputs, e.params, e.primitive.name
    x = e.inputs[0]
    if x.shape != out.shape or (name == "permute" and p["axes"] != tuple(range(len(x.shape)))) or name in ("tril", "triu"):
        return None
    if name == "flip" and any(x.shape[a] > 1 for a in p["axes"]):
        return None
    return x if name != "concat" or len(e.inputs) == 1 else None


@rule("reshape", "broadcast_to", "permute", "slice", "flip")
def moved_constant(b: Rewriter, e: Equation) -> Atom | None:
    """A constant is the same constant in any shape."""
    value = b.constant(e.inputs[0])
    return None if value is None else b.make(e, "full", (), shape=e.outputs[0].shape, value=value, dtype=e.outputs[0].dtype)


@rule("reshape", "broadcast_to")
def reshape_chain(b: Rewriter, e: Equation) -> Atom | None:
    """reshape of reshape, broadcast of broadcast (or of leading axes of size one); a broadcast that repeats nothing is a reshape."""
    (x,), name, shape = e.inputs, e.primitive.name, e.params["shape"]
    if name == "broadcast_to" and math.prod(shape) == math.prod(x.shape) > 0:
        return b.make(e, "reshape", (x,), shape=shape)
    before = b.source(x, name, "reshape")
    if before is None:
        return None
    (origin,) = before.inputs
    if name == "broadcast_to" and before.primitive.name == "reshape":
        lead = len(x.shape) - len(origin.shape)
        if lead < 0 or x.shape[lead:] != origin.shape or math.prod(x.shape[:lead]) != 1:
            return None
    return b.make(e, name, (origin,), shape=shape)


@rule("permute")
def permute_chain(b: Rewriter, e: Equation) -> Atom | None:
    """permute of permute."""
    before = b.source(e.inputs[0], "permute")
    if before is None:
        return None
    inner = before.params["axes"]
    return b.make(e, "permute", before.inputs, axes=tuple(inner[a] for a in e.params["axes"]))


@rule("permute")
def outer_product_turned(b: Rewriter, e: Equation) -> Atom | None:
    """The transpose of an outer product is the outer product the other way round, and no copy of it is made: a gradient x ⊗ g for one example, whose
    sum runs over no axis, or over axes of size one. Longer sums are added up in another order."""
    before = b.source(e.inputs[0], "dot_general")
    if before is None or not b.alone(e.inputs[0]):
        return None
    (x, y), (contract, other), (left, right) = before.inputs, before.params["contract"], before.params["batch"]
    n, m, end = len(left), len(x.shape) - len(contract), len(e.params["axes"])
    if any(x.shape[a] != 1 for a in contract) or e.params["axes"] != (*range(n), *range(m, end), *range(n, m)):
        return None
    return b.make(e, "dot_general", (y, x), contract=(other, contract), batch=(right, left))


# ---- parts --------------------------------------------------------------------------------------------------------------------------------
@rule("slice")
def slice_chain(b: Rewriter, e: Equation) -> Atom | None:
    """slice of slice; of the inside of a pad; of one part of a concat; of the window that an unslice has filled."""
    before = b.source(e.inputs[0], "slice", "pad", "concat", "unslice")
    if before is None:
        return None
    start, stop, step = e.params["start"], e.params["stop"], e.params["step"]
    x, p = before.inputs[0], before.params
    if before.primitive.name == "unslice":
        return x if all(p[k] == e.params[k] for k in ("start", "stop", "step")) else None
    if before.primitive.name == "slice":
        sizes = e.outputs[0].shape
        one = tuple(a + s * i if n else 0 for a, s, i, n in zip(p["start"], p["step"], start, sizes, strict=True))
        last = tuple(a + s * t * (n - 1) + 1 if n else 0 for a, s, t, n in zip(one, p["step"], step, sizes, strict=True))
        return b.make(e, "slice", (x,), start=one, stop=last, step=tuple(s * t for s, t in zip(p["step"], step, strict=True)))
    if before.primitive.name == "pad":
        low = tuple(lo for lo, _ in p["widths"])
    else:
        at, low = 0, (0,) * len(start)
        for x in before.inputs:  # the part in which the slice begins
            if start[p["axis"]] < at + x.shape[p["axis"]]:
                low = tuple(at if i == p["axis"] else 0 for i in range(len(start)))
                break
            at += x.shape[p["axis"]]
    begin = tuple(a - lo for a, lo in zip(start, low, strict=True))
    end = tuple(z - lo for z, lo in zip(stop, low, strict=True))
    if any(a < 0 or z > n for a, z, n in zip(begin, end, x.shape, strict=True)):
        return None
    return b.make(e, "slice", (x,), start=begin, stop=end, step=step)


@rule("concat")
def concat_parts(b: Rewriter, e: Equation) -> Atom | None:
    """Without empty parts; with the parts of a part; adjacent slices of one array are one slice."""
    axis = e.params["axis"]
    parts: list[Atom] = []
    for a in e.inputs:
        inner = b.source(a, "concat")
        if inner is not None and inner.params["axis"] == axis and b.alone(a):
            parts += inner.inputs
        elif a.shape[axis]:
            parts.append(a)
    i = 0
    while i + 1 < len(parts):
        s, t = b.source(parts[i], "slice"), b.source(parts[i + 1], "slice")
        if s is not None and t is not None and s.inputs[0] is t.inputs[0] and (b.alone(parts[i]) or b.alone(parts[i + 1])):
            p, q = s.params, t.params
            rest = [k for k in range(len(p["start"])) if k != axis]
            if p["step"] == q["step"] and all(p["start"][k] == q["start"][k] and p["stop"][k] == q["stop"][k] for k in rest):
                if p["step"][axis] == 1 and p["stop"][axis] == q["start"][axis]:
                    stop = tuple(q["stop"][k] if k == axis else z for k, z in enumerate(p["stop"]))
                    parts[i : i + 2] = [b.make(e, "slice", s.inputs, start=p["start"], stop=stop, step=p["step"])]
                    continue
        i += 1
    if not parts or len(parts) == len(e.inputs):
        return None
    return b.make(e, "concat", tuple(parts), axis=axis)


@rule("add")
def windows_joined(b: Rewriter, e: Equation) -> Atom | None:
    """The sum of two neighbouring windows in arrays of zeros is one window, as the gradient of what was split into parts; of all of them, no array of
    zeros is left. The other's zeros stay as x + 0.0, which makes 0.0 of -0.0."""
    windows = [b.source(a, "unslice") for a in e.inputs]
    if None in windows or not all(map(b.alone, e.inputs)) or not (e.outputs[0].dtype.is_float or e.outputs[0].dtype.is_integer):
        return None
    if e.inputs[0].shape != e.inputs[1].shape:
        return None
    (p, x), (q, y) = sorted(((w.params, w.inputs[0]) for w in windows if w is not None), key=lambda w: w[0]["start"])
    apart = [i for i, ends in enumerate(zip(p["start"], q["start"], p["stop"], q["stop"], strict=True)) if ends[0] != ends[1] or ends[2] != ends[3]]
    if len(apart) != 1 or p["step"] != q["step"] or p["step"][apart[0]] != 1 or p["stop"][apart[0]] != q["start"][apart[0]]:
        return None
    joined = b.make(e, "concat", (_before_zero(b, x), _before_zero(b, y)), axis=apart[0])
    if joined.dtype.is_float:
        joined = b.make(e, "add", (joined, Literal(0.0, joined.dtype)))
    return b.make(e, "unslice", (joined,), shape=p["shape"], start=p["start"], stop=q["stop"], step=p["step"])


def _before_zero(b: Rewriter, a: Atom) -> Atom:
    """x for x + 0.0, which nobody else reads."""
    e = b.source(a, "add")
    if e is None or not b.alone(a) or not isinstance(e.inputs[1], Literal) or repr(e.inputs[1].value) != "0.0":
        return a
    return e.inputs[0]


# ---- reductions and products --------------------------------------------------------------------------------------------------------------
def _alone_is_itself(e: Equation) -> bool:
    """Reductions of one element that are that element, for each element: 1 * x is not x for all complex x, and a sum of floats makes 0.0 of -0.0."""
    name, dtype = e.primitive.name, e.inputs[0].dtype
    return name in ("any", "all", "max", "min") or (name in ("sum", "prod") and dtype.is_integer) or (name == "prod" and not dtype.is_complex)


@rule(*_REDUCTIONS)
def reduce_little(b: Rewriter, e: Equation) -> Atom | None:
    """Over no axis, or axes of size one."""
    (x,), axis = e.inputs, e.params["axis"]
    if all(x.shape[a] == 1 for a in axis) and x.dtype is e.outputs[0].dtype and _alone_is_itself(e):
        return b.make(e, "reshape", (x,), shape=e.outputs[0].shape)
    return None


@rule(*_REDUCTIONS)
def reduce_permuted(b: Rewriter, e: Equation) -> Atom | None:
    """The reduction of a permuted array is that of the array over the axes' old places, permuted where axes are left in another order."""
    before = b.source(e.inputs[0], "permute")
    if before is None or not (b.alone(e.inputs[0]) or len(e.outputs[0].shape) < 2):
        return None
    axes, keep = before.params["axes"], e.params["keepdims"]
    inner = b.make(e, e.primitive.name, before.inputs, axis=tuple(sorted(axes[a] for a in e.params["axis"])), keepdims=keep)
    rest = [old for a, old in enumerate(axes) if keep or a not in e.params["axis"]]
    return b.make(e, "permute", (inner,), axes=tuple(sorted(rest).index(old) for old in rest))


@rule("sum")
def sum_of_equals(b: Rewriter, e: Equation) -> Atom | None:
    """The sum of a constant, where every partial sum is a whole number that the dtype holds; and of integers that were broadcast."""
    (x,), (out,) = e.inputs, e.outputs
    n, value = math.prod(x.shape[a] for a in e.params["axis"]), b.constant(x)
    if value is not None and x.dtype.is_float and float(value).is_integer() and abs(value) * n <= 2 ** SIGNIFICAND[x.dtype.name]:
        return b.full(e, value * n + 0.0)
    before = b.source(x, "broadcast_to")
    if before is None or not x.dtype.is_integer or not n or not b.alone(x) or n >= 2 ** (x.dtype.bits - 1):
        return None
    (origin,) = before.inputs
    if origin.shape != _kept(x.shape, e.params["axis"]):
        return None
    return b.make(e, "mul", (b.make(e, "reshape", (origin,), shape=out.shape), Literal(n, x.dtype)))


def _kept(shape: tuple[int, ...], axis: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if i in axis else s for i, s in enumerate(shape))


@rule("reshape")
def reshape_reduced(b: Rewriter, e: Equation) -> Atom | None:
    """A reshape that only takes the reduced axes away, or gives them back, is the reduction's own keepdims."""
    x, shape = e.inputs[0], e.params["shape"]
    before = b.source(x, *_REDUCTIONS, "argmax", "argmin")
    if before is None or not b.alone(x):
        return None
    axis, origin = before.params["axis"], before.inputs[0].shape
    keep = not before.params["keepdims"]
    axes = axis if isinstance(axis, tuple) else (axis,)
    if shape != (_kept(origin, axes) if keep else tuple(n for i, n in enumerate(origin) if i not in axes)):
        return None
    return b.make(e, before.primitive.name, before.inputs, axis=axis, keepdims=keep)


@rule("dot_general")
def product_of_permuted(b: Rewriter, e: Equation) -> Atom | None:
    """A permuted operand is read as it was, its dimension numbers changed, where the free axes keep their order."""
    contract, batch = list(e.params["contract"]), list(e.params["batch"])
    inputs: list[Any] = list(e.inputs)
    for i, a in enumerate(e.inputs):
        before = b.source(a, "permute")
        if before is None:
            continue
        axes = before.params["axes"]
        free = [old for k, old in enumerate(axes) if k not in contract[i] and k not in batch[i]]
        if free == sorted(free):
            inputs[i] = before.inputs[0]
            contract[i] = tuple(axes[k] for k in contract[i])
            batch[i] = tuple(axes[k] for k in batch[i])
    if all(a is was for a, was in zip(inputs, e.inputs, strict=True)):
        return None
    return b.make(e, "dot_general", tuple(inputs), contract=tuple(contract), batch=tuple(batch))
