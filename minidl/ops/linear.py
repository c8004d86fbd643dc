"""Products: matmul and its kin, tensordot, einsum; all lower to dot_general.

Matrix times matrix on one backend and dtype takes generated straight-line code; everything else finds its axes first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from minidl import shapes
from minidl.context import at_once
from minidl.emit import load
from minidl.errors import checked
from minidl.kinds import kind_of
from minidl.ops.common import Tensor, busy, describe, dtypes, ns, operand, permuted, reshaped, state, table, traced
from minidl.ops.manipulation import diagonal
from minidl.tape import count

__all__ = ["affine", "dot", "einsum", "matmul", "outer", "tensordot", "vecdot"]


def _matmul(x: Any, y: Any) -> Tensor:
    if not isinstance(x, Tensor):
        x = operand(x, y if isinstance(y, Tensor) else None)
    y = operand(y, x)
    n, m = x.ndim, y.ndim
    if not n or not m:
        raise ValueError(f"matmul: {describe(x)} @ {describe(y)}: 0-d arrays have no inner dimension; use *")
    inner = max(m - 2, 0)
    if x.shape[-1] != y.shape[inner]:
        raise ValueError(f"matmul: inner dimensions differ: {describe(x)} @ {describe(y)} ({x.shape[-1]} != {y.shape[inner]})")
    if m <= 2 or n == 1:
        return ns.dot_general(x, y, contract=((n - 1,), (inner,)), batch=((), ()))
    if n == 2:  # (rows, batch..., columns) comes out
        out = ns.dot_general(x, y, contract=((1,), (inner,)), batch=((), ()))
        return ns.permute(out, axes=(*range(1, m - 1), 0, m - 1))
    try:
        lead = shapes.broadcast(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: batch dimensions do not broadcast: {describe(x)} @ {describe(y)}") from None
    x, y = (v if v.shape[:-2] == lead else ns.broadcast_to(v, shape=(*lead, *v.shape[-2:])) for v in (x, y))
    k = len(lead)
    return ns.dot_general(x, y, contract=((k + 1,), (k,)), batch=(tuple(range(k)),) * 2)


_matmul.__name__ = "matmul"
_matmul = checked(_matmul)


def _generate_matmul() -> Any:
    """The product of two matrices, eager, on one backend and in one dtype; everything else goes to _matmul."""
    primitive = table["dot_general"]
    contract, batch = ((1,), (0,)), ((), ())
    env = {"Tensor": Tensor, "busy": busy, "state": state, "at_once": at_once, "count": count, "_matmul": _matmul, "C": contract, "B": batch}
    text = {"x": "a", "y": "b", "x_shape": "a.shape", "y_shape": "b.shape", "contract": "C", "batch": "B"}

    def node(live: tuple[int, ...]) -> str:
        kind = kind_of(primitive, live, False, 2)
        name = "K" + "".join(map(str, live))
        env[name] = kind
        return f"Tensor(out, xp, dt, [{', '.join(['next(count)', name, 'xp', *('nm'[i] for i in live), *(text[r] for r in kind.residuals)])}])"

    call = "xp.dot_general(a, b, contract=C, batch=B)"
    lines = [
        "def matmul(x, y, /):", "    try:", "        xp = x.xp; dt = x.dtype; a = x.payload; b = y.payload",
        "        if len(a.shape) == 2 == len(b.shape) and y.xp is xp and y.dtype is dt and (not busy[0] or at_once()):",
        "            if xp.needs_scope:", f"                with xp.scope(): out = {call}", f"            else: out = {call}",
        "            n = x.node; m = y.node",
        "            if n is None and m is None or busy[0] and not state.grad: return Tensor(out, xp, dt)",
        f"            if n is None: return {node((1,))}",
        f"            if m is None: return {node((0,))}", f"            return {node((0, 1))}",
        "    except Exception: pass", "    return _matmul(x, y)",
    ]  # fmt: skip
    return load("\n".join(lines) + "\n", env, "matmul")


matmul = _generate_matmul()
matmul.__module__ = __name__
matmul.__doc__ = """The matrix product x @ y, with NumPy's rules: 1-d arrays are a row on the left and a column on the right, leading axes broadcast.

Raises ValueError for 0-d arrays and for sizes that differ: `matmul: inner dimensions differ: f32[3,4] @ f32[5,6] (4 != 5)`.

>>> from minidl.ops import ones
>>> matmul(ones((2, 3)), ones((3, 4))).shape
(2, 4)
"""


def tensordot(x: Any, y: Any, /, *, axes: int | Sequence[Any] = 2) -> Tensor:
    """The sum of products over axes: the last `axes` of x with the first of y, or a pair of axis lists. Raises ValueError where sizes differ.

    >>> md.tensordot(md.ones((2, 3)), md.ones((3, 4)), axes=1).shape
    (2, 4)
    """
    x = operand(x)
    y = operand(y, x)
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ValueError(f"tensordot: {axes} axes of {describe(x)} and {describe(y)}")
        pair = (range(x.ndim - axes, x.ndim), range(axes))
    else:
        pair = tuple((a,) if isinstance(a, int) else tuple(a) for a in axes)  # type: ignore[assignment]
    left, right = (tuple(shapes.axis_index("tensordot", a, v.ndim) for a in p) for p, v in zip(pair, (x, y), strict=True))
    if len(left) != len(right) or any(x.shape[a] != y.shape[b] for a, b in zip(left, right, strict=True)):
        raise ValueError(f"tensordot: axes {left} of {describe(x)} and {right} of {describe(y)} differ in number or size")
    return ns.dot_general(x, y, contract=(left, right), batch=((), ()))


def affine(x: Any, w: Any, b: Any = None, /) -> Tensor:
    """x wᵀ + b for x [..., k], a matrix w [n, k] and b [n] or None: what a linear layer computes, in one operation.

    Raises ValueError for other shapes.

    >>> md.affine(md.tensor([1.0, 2.0]), md.tensor([[3.0, 4.0]]), md.tensor([0.5])).tolist()
    [11.5]
    """
    x = operand(x)
    w = operand(w, x)
    if w.ndim != 2 or not x.ndim or (b is not None and (b := operand(b, x)).shape != w.shape[:1]):
        given = "" if b is None else f" and bias {describe(b)}"
        raise ValueError(f"affine: {describe(x)} with weight {describe(w)}{given}; x [..., k], the weight [n, k] and the bias [n] are wanted")
    if b is not None:
        return ns.affine(x, w, b)
    if x.shape[-1] != w.shape[1] or traced():
        return matmul(x, ns.permute(w, axes=(1, 0)))
    return ns.dot_general(x, w, contract=((x.ndim - 1,), (1,)), batch=((), ()))


def dot(x: Any, y: Any, /) -> Tensor:
    """The product as in NumPy: inner for vectors, matrix product for matrices, the last axis of x with the last but one of y beyond.

    >>> md.dot(md.tensor([1.0, 2.0]), md.tensor([3.0, 4.0])).item()
    11.0
    """
    x = operand(x)
    y = operand(y, x)
    if not x.ndim or not y.ndim:
        return ns.mul(x, y)
    return matmul(x, y) if y.ndim <= 2 else tensordot(x, y, axes=((-1,), (-2,)))


def vecdot(x: Any, y: Any, /, *, axis: int = -1) -> Tensor:
    """The sum over one axis of conj(x) * y, the others broadcasting; of bools whether any product is true, as in matmul.

    Raises ValueError where the sizes of the axis differ.

    >>> md.vecdot(md.tensor([1.0, 2.0]), md.tensor([3.0, 4.0])).item()
    11.0
    """
    x = operand(x)
    y = operand(y, x)
    if not -min(x.ndim, y.ndim) <= axis < 0:
        axis = shapes.axis_index("vecdot", axis, min(x.ndim, y.ndim)) - min(x.ndim, y.ndim)
    if x.shape[axis] != y.shape[axis]:
        raise ValueError(f"vecdot: axis {axis} of {describe(x)} and {describe(y)} differs ({x.shape[axis]} != {y.shape[axis]})")
    out = ns.mul(ns.conj(x) if x.dtype.is_complex else x, y)
    return (ns.any if out.dtype is dtypes.bool_ else ns.sum)(out, axis=(out.ndim + axis,), keepdims=False)


def outer(x: Any, y: Any, /) -> Tensor:
    """x[i] * y[j] for two 1-d arrays. Raises ValueError for others.

    >>> md.outer(md.tensor([1, 2]), md.tensor([3, 4])).tolist()
    [[3, 4], [6, 8]]
    """
    x = operand(x)
    y = operand(y, x)
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"outer: two 1-d arrays wanted, {describe(x)} and {describe(y)} came")
    return ns.mul(ns.reshape(x, shape=(int(x.size), 1)), y)


# ---- einsum ---------------------------------------------------------------------------------------------------------------------------
def einsum(subscripts: str, /, *operands: Any) -> Tensor:
    """Sums of products by Einstein's notation: "ij,jk->ik"; repeated labels take diagonals, "..." stands for broadcasting axes.

    More than two arrays are contracted pairwise in the order that opt_einsum finds best. Source of the order: D. Smith and J. Gray,
    opt_einsum (JOSS 2018). Raises ValueError for labels that do not fit.

    >>> md.einsum("ij,jk->ki", md.ones((2, 3)), md.ones((3, 4))).shape
    (4, 2)
    """
    xs = [operand(x) for x in operands]
    terms, out = _parse(subscripts, tuple(x.shape for x in xs))
    pool: list[tuple[Tensor, str]] = list(zip(xs, terms, strict=True))
    for step in _path(terms, out, tuple(x.shape for x in xs)) if len(xs) > 2 else ():
        picked = [pool.pop(i) for i in sorted(step, reverse=True)][::-1]
        needed = set(out).union(*(labels for _, labels in pool)) if pool else set(out)
        while len(picked) > 1:
            a, b = picked.pop(0), picked.pop(0)
            keep = needed.union(*(labels for _, labels in picked)) if picked else needed
            picked.insert(0, _pair(a, b, keep))
        pool.append(picked[0])
    last = _pair(pool[0], pool[1], set(out)) if len(pool) == 2 else _single(*pool[0], set(out))
    x, labels = last
    sizes = dict(zip(labels, x.shape, strict=True))
    x = permuted(x, tuple(labels.index(c) for c in out if c in sizes))
    return reshaped(x, tuple(sizes.get(c, 1) for c in out))


@functools.lru_cache(maxsize=512)
def _parse(subscripts: str, sizes: tuple[tuple[int, ...], ...]) -> tuple[tuple[str, ...], str]:
    """One label per axis for each array and for the result."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(sizes):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} arrays, {len(sizes)} came")
    spare = [c for c in map(chr, range(0x3B1, 0x3B1 + 200)) if c not in text]
    widest = max((len(s) - len(t.replace("...", "")) for t, s in zip(terms, sizes, strict=True) if "..." in t), default=0)
    if widest < 0:
        raise ValueError(f"einsum: {subscripts!r} has more labels than an array has axes")
    hidden, full = "".join(spare[:widest]), []
    known: dict[str, int] = {}
    for t, shape in zip(terms, sizes, strict=True):
        if "..." in t:
            n = len(shape) - len(t.replace("...", ""))
            if n < 0:
                raise ValueError(f"einsum: {t!r} has more labels than {shape} has axes")
            t = t.replace("...", hidden[widest - n :], 1)
        if len(t) != len(shape) or (t and not t.isalpha()):
            raise ValueError(f"einsum: {t!r} does not label an array of shape {shape}")
        for c, n in zip(t, shape, strict=True):
            if known.setdefault(c, n) != n and 1 not in (known[c], n):
                raise ValueError(f"einsum: label {c!r} has sizes {known[c]} and {n}")
            known[c] = n if known[c] == 1 else known[c]
        full.append(t)
    if not arrow:
        joined = left.replace("...", "").replace(",", "")
        right = ("..." if widest else "") + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    out = right.replace("...", hidden, 1)
    if len(set(out)) != len(out) or any(c not in known for c in out):
        raise ValueError(f"einsum: the result {right!r} of {subscripts!r} repeats a label or names one that no array has")
    return tuple(full), out


@functools.lru_cache(maxsize=512)
def _path(terms: tuple[str, ...], out: str, sizes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    import opt_einsum

    path, _ = opt_einsum.contract_path(f"{','.join(terms)}->{out}", *sizes, shapes=True, optimize="auto")
    return tuple(path)


def _single(x: Tensor, labels: str, keep: set[str]) -> tuple[Tensor, str]:
    """Diagonals for repeated labels, sums for labels that nobody needs."""
    while (repeated := next((c for c in labels if labels.count(c) > 1), None)) is not None:
        a = labels.index(repeated)
        b = labels.index(repeated, a + 1)
        if x.shape[a] != x.shape[b]:  # one of them is 1 and broadcasts
            gone = a if x.shape[a] == 1 else b
            x = ns.reshape(x, shape=(*x.shape[:gone], *x.shape[gone + 1 :]))
            labels = labels[:gone] + labels[gone + 1 :]
            continue
        x = diagonal(x, axis1=a, axis2=b)
        labels = "".join(c for i, c in enumerate(labels) if i not in (a, b)) + repeated
    dead = tuple(i for i, c in enumerate(labels) if c not in keep)
    if dead:
        x = ns.sum(x, axis=dead, keepdims=False)
    return x, "".join(c for c in labels if c in keep)


def _pair(a: tuple[Tensor, str], b: tuple[Tensor, str], keep: set[str]) -> tuple[Tensor, str]:
    """The product of two arrays summed over what nobody needs; labels that only one of them has, or has with size 1, leave first."""
    (x, lx), (y, ly) = _single(*a, keep | set(b[1])), _single(*b, keep | set(a[1]))
    if any(n == 1 != m for n, m in _common(x, lx, y, ly)) or any(m == 1 != n for n, m in _common(x, lx, y, ly)):
        wide_x, wide_y = dict(zip(lx, x.shape, strict=True)), dict(zip(ly, y.shape, strict=True))
        x, lx = _without(x, lx, {c for c in lx if wide_x[c] == 1 != wide_y.get(c, 1)})
        y, ly = _without(y, ly, {c for c in ly if wide_y[c] == 1 != wide_x.get(c, 1)})
        x, lx = _single(x, lx, keep | set(ly))
        y, ly = _single(y, ly, keep | set(lx))
    shared = [c for c in lx if c in ly]
    inner = [c for c in shared if c not in keep]
    outer_ = [c for c in shared if c in keep]
    if not inner:  # nothing to sum: an elementwise product
        free = "".join(c for c in lx + ly if c not in outer_)
        order = "".join(outer_) + "".join(dict.fromkeys(free))
        return ns.mul(_aligned(x, lx, order), _aligned(y, ly, order)), order
    places = [tuple(labels.index(c) for c in group) for group in (inner, outer_) for labels in (lx, ly)]
    out = ns.dot_general(x, y, contract=(places[0], places[1]), batch=(places[2], places[3]))
    return out, "".join(outer_) + "".join(c for c in lx if c not in shared) + "".join(c for c in ly if c not in shared)


def _common(x: Tensor, lx: str, y: Tensor, ly: str) -> list[tuple[int, int]]:
    return [(x.shape[lx.index(c)], y.shape[ly.index(c)]) for c in lx if c in ly]


def _without(x: Tensor, labels: str, gone: set[str]) -> tuple[Tensor, str]:
    kept = [i for i, c in enumerate(labels) if c not in gone]
    return reshaped(x, tuple(x.shape[i] for i in kept)), "".join(labels[i] for i in kept)


def _aligned(x: Tensor, labels: str, order: str) -> Tensor:
    sizes = dict(zip(labels, x.shape, strict=True))
    return reshaped(permuted(x, tuple(labels.index(c) for c in order if c in sizes)), tuple(sizes.get(c, 1) for c in order))


