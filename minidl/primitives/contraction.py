"""Products: dot_general and convolution, bilinear primitives whose rules are each other, so that they are closed under every order."""

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


# ---- convolution ----------------------------------------------------------------------------------------------------------------------
def conv_sizes(spatial: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, ...]:
    """The spatial output sizes of a correlation."""
    return tuple(
        max(0, (n + lo + hi - d * (k - 1) - 1) // s + 1)
        for n, k, s, (lo, hi), d in zip(spatial, kernel, stride, padding, dilation, strict=True)
    )


def _infer_conv(x: Any, w: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    if len(x.shape) != len(w.shape) or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(
            f"conv: {shapes.show(x)} with weight {shapes.show(w)} and {groups} group{'s' * (groups != 1)}: want [N, C, ...] and [O, C/groups, ...]"
        )
    out = conv_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)
    if any(s == 0 for s in out):
        raise ValueError(f"conv: the weight {shapes.show(w)} is larger than the padded input {shapes.show(x)}")
    return (x.shape[0], w.shape[0], *out), x.dtype


def _window(p: dict[str, Any]) -> dict[str, Any]:
    return {k: p[k] for k in ("stride", "padding", "dilation", "groups")}


def _batch_conv(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    """Fold the batch into N where the weight (or its cotangent) is shared, and into groups where it is not.

    The three primitives have operands of kinds "x", "w" and "g": [N, C], [O, C/groups] and [N, O] in front of the spatial axes.
    """
    kinds, result = {"conv": ("xw", "g"), "conv_dx": ("gw", "x"), "conv_dw": ("xg", "w")}[primitive.name]
    groups, more = params["groups"], dict(_window(params))
    if "w" in kinds and not batched[kinds.index("w")]:  # only N grows
        i = kinds.index("w")
        a = xs[1 - i]
        n = a.shape[1]
        flat = call("reshape", a, shape=(size * n, *a.shape[2:]))
        if primitive.name == "conv_dx":
            more["x_shape"] = (size * n, *params["x_shape"][1:])
        out = call(primitive.name, *((flat, xs[1]) if i else (xs[0], flat)), **more)
        return call("reshape", out, shape=(size, n, *out.shape[1:]))
    flats = []
    for kind, a, b in zip(kinds, xs, batched, strict=True):
        a = a if b else call("broadcast_to", a, shape=(size, *a.shape))
        if kind == "w":  # [B, O, C/groups, ...] -> [B*O, C/groups, ...]
            flats.append(call("reshape", a, shape=(size * a.shape[1], *a.shape[2:])))
        else:  # [B, N, C, ...] -> [N, B*C, ...]
            a = call("permute", a, axes=(1, 0, *range(2, len(a.shape))))
            flats.append(call("reshape", a, shape=(a.shape[0], size * a.shape[2], *a.shape[3:])))
    more["groups"] = groups * size
    if "x_shape" in params:
        n, c, *rest = params["x_shape"]
        more["x_shape"] = (n, size * c, *rest)
    if "w_shape" in params:
        o, c, *rest = params["w_shape"]
        more["w_shape"] = (size * o, c, *rest)
    out = call(primitive.name, *flats, **more)
    if result == "w":
        return call("reshape", out, shape=(size, out.shape[0] // size, *out.shape[1:]))
    out = call("reshape", out, shape=(out.shape[0], size, out.shape[1] // size, *out.shape[2:]))
    return call("permute", out, axes=(1, 0, *range(2, len(out.shape))))


_PARAMS = "stride padding dilation groups"
conv = Primitive(
    "conv", "x w", _PARAMS, infer=_infer_conv, jvps=("linear", "linear"), batch=_batch_conv, check_first=True,
    vjps=(
        lambda xp, g, w, x_shape, stride, padding, dilation, groups: xp.conv_dx(
            g, w, x_shape=x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, g, x, w_shape, stride, padding, dilation, groups: xp.conv_dw(
            x, g, w_shape=w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
    ),
)  # fmt: skip
conv_dx = Primitive(
    "conv_dx", "g w", "x_shape " + _PARAMS, infer=lambda g, w, *, x_shape, **_: (x_shape, g.dtype), jvps=("linear", "linear"), batch=_batch_conv,
    vjps=(
        lambda xp, c, w, stride, padding, dilation, groups: xp.conv(c, w, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, c, g, w_shape, stride, padding, dilation, groups: xp.conv_dw(
            c, g, w_shape=w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
    ),
)  # fmt: skip
conv_dw = Primitive(
    "conv_dw", "x g", "w_shape " + _PARAMS, infer=lambda x, g, *, w_shape, **_: (w_shape, x.dtype), jvps=("linear", "linear"), batch=_batch_conv,
    vjps=(
        lambda xp, c, g, x_shape, stride, padding, dilation, groups: xp.conv_dx(
            g, c, x_shape=x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, c, x, stride, padding, dilation, groups: xp.conv(x, c, stride=stride, padding=padding, dilation=dilation, groups=groups),
    ),
)  # fmt: skip


def _channels(b: Any, rank: int) -> tuple[int, ...]:
    """The shape in which one number for each channel meets [N, C, ...]."""
    return (b.shape[0], *(1,) * (rank - 2))


def _infer_conv_affine(x: Any, w: Any, b: Any, **params: Any) -> Any:
    return _infer_conv(x, w, **params)


conv_affine = Primitive(
    "conv_affine", "x w b", _PARAMS, infer=_infer_conv_affine, check_first=True, inline=True,
    decompose=lambda xp, x, w, b, **params: xp.add(xp.conv(x, w, **params), xp.reshape(b, shape=_channels(b, len(x.shape)))),
    vjps=(*conv.vjps, lambda xp, g: xp.sum(g, axis=(0, *range(2, len(g.shape))), keepdims=False)),
    jvps=(
        lambda xp, t, w, stride, padding, dilation, groups: xp.conv(t, w, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, t, x, stride, padding, dilation, groups: xp.conv(x, t, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, t, out_shape: xp.broadcast_to(xp.reshape(t, shape=_channels(t, len(out_shape))), shape=out_shape),
    ),
)  # fmt: skip
