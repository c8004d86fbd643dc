"""Products: dot_general, a bilinear primitive whose rules are itself, so that it is closed under every order, and the affine map."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

from minidl import shapes
from minidl.primitives.core import Primitive

Axes = tuple[tuple[int, ...], tuple[int, ...]]


def _free(ndim: int, *used: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a for a in range(ndim) if not any(a in u for u in used))


def _infer_dot(x: Any, y: Any, *, contract: Axes, batch: Axes) -> Any:
    for a, b in (*zip(*contract, strict=True), *zip(*batch, strict=True)):
        if x.shape[a] != y.shape[b]:
            raise ValueError(f"matmul: inner dimensions differ: {shapes.show(x)} @ {shapes.show(y)} ({x.shape[a]} != {y.shape[b]})")
    kept = [x.shape[a] for a in batch[0]]
    kept += [x.shape[a] for a in _free(len(x.shape), contract[0], batch[0])]
    kept += [y.shape[a] for a in _free(len(y.shape), contract[1], batch[1])]
    return tuple(kept), x.dtype


@functools.lru_cache(4096)
def _pulled(ndim: int, other_ndim: int, contract: Axes, batch: Axes, mine: int) -> tuple[Axes, Axes, tuple[int, ...] | None]:
    """The cotangent of operand `mine`: contract g with the other operand over its free axes, then put the axes in order (None: they are)."""
    c, b = contract[mine], batch[mine]
    oc, ob = contract[1 - mine], batch[1 - mine]
    free, other_free = _free(ndim, c, b), _free(other_ndim, oc, ob)
    n = len(b)
    lead = tuple(range(n))
    skip = n if mine == 1 else n + len(free)  # where the other's free axes lie in g
    g_free = tuple(range(skip, skip + len(other_free)))
    # out's axes: batch, my free axes, then the other's contracted axes in ascending order
    order = sorted(range(len(oc)), key=lambda k: oc[k])
    place = [*b, *free, *(c[k] for k in order)]
    axes = tuple(sorted(range(len(place)), key=place.__getitem__))
    return (g_free, other_free), (lead, ob), None if axes == tuple(range(len(axes))) else axes


def _dot_vjp(xp: Any, g: Any, other: Any, shape: tuple[int, ...], contract: Axes, batch: Axes, mine: int) -> Any:
    pairs, lead, axes = _pulled(len(shape), len(other.shape), contract, batch, mine)
    out = xp.dot_general(g, other, contract=pairs, batch=lead)
    return out if axes is None else xp.permute(out, axes=axes)


def _dot_x(xp: Any, g: Any, y: Any, x_shape: Any, contract: Axes, batch: Axes) -> Any:
    return _dot_vjp(xp, g, y, x_shape, contract, batch, 0)


def _dot_y(xp: Any, g: Any, x: Any, y_shape: Any, contract: Axes, batch: Axes) -> Any:
    return _dot_vjp(xp, g, x, y_shape, contract, batch, 1)


def _batch_dot(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    (cx, cy), (bx, by) = params["contract"], params["batch"]
    up = tuple(tuple(a + 1 for a in axes) for axes in (cx, cy, bx, by))
    if all(batched):
        return call("dot_general", *xs, contract=(up[0], up[1]), batch=((0, *up[2]), (0, *up[3])))
    if batched[0]:  # the batch axis is one more free axis of x, first after the batch axes
        out = call("dot_general", *xs, contract=(up[0], cy), batch=(up[2], by))
        at = len(bx)
    else:
        out = call("dot_general", *xs, contract=(cx, up[1]), batch=(bx, up[3]))
        at = len(bx) + len(_free(len(xs[0].shape), cx, bx))
    return out if at == 0 else call("permute", out, axes=(at, *(a for a in range(len(out.shape)) if a != at)))


dot_general = Primitive("dot_general", "x y", "contract batch", infer=_infer_dot, vjps=(_dot_x, _dot_y), jvps=("linear", "linear"), batch=_batch_dot)

dot_general.strong = "terms"


def _infer_affine(x: Any, w: Any, b: Any) -> Any:
    turned = SimpleNamespace(shape=(w.shape[1], w.shape[0]), dtype=w.dtype)
    return _infer_dot(x, turned, contract=((len(x.shape) - 1,), (0,)), batch=((), ()))


def _affine(xp: Any, x: Any, w: Any, b: Any) -> Any:
    return xp.add(_last(xp, x, xp.permute(w, axes=(1, 0)), 0), b)


def _last(xp: Any, x: Any, w: Any, axis: int) -> Any:
    """The product of x over its last axis with w over the given one."""
    return xp.dot_general(x, w, contract=((len(x.shape) - 1,), (axis,)), batch=((), ()))


def _affine_w(xp: Any, g: Any, x: Any) -> Any:
    lead = tuple(range(len(g.shape) - 1))
    return xp.dot_general(g, x, contract=(lead, lead), batch=((), ()))


#: x wᵀ + b, what a linear layer computes, with the gradient of w in w's own layout.
affine = Primitive(
    "affine", "x w b", infer=_infer_affine, decompose=_affine, inline=True,
    vjps=(
        lambda xp, g, w: _last(xp, g, w, 0), _affine_w,
        lambda xp, g: xp.sum(g, axis=tuple(range(len(g.shape) - 1)), keepdims=False) if len(g.shape) > 1 else g,
    ),
    jvps=(
        lambda xp, t, w: _last(xp, t, w, 1), lambda xp, t, x: _last(xp, x, t, 1), lambda xp, t, out_shape: xp.broadcast_to(t, shape=out_shape),
    ),
)  # fmt: skip
affine.strong = "terms"
