"""Convolution, a bilinear primitive, with its transposes in both operands: the rules of each are the others, so that they are closed under every
order. Max pooling: the maximum of each window together with its place, and the two linear maps that the place defines.
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.extend import Equation, Literal, Primitive, Rewriter, Var, define, describe, rule, table

HOME = "minidl.arrays.windows"


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
            f"conv: {describe(x)} with weight {describe(w)} and {groups} group{'s' * (groups != 1)}: want [N, C, ...] and [O, C/groups, ...]"
        )
    out = conv_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)
    if any(s == 0 for s in out):
        raise ValueError(f"conv: the weight {describe(w)} is larger than the padded input {describe(x)}")
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


_SETTINGS = "stride padding dilation groups"
_CONV_RULES: Any = (
    lambda xp, g, w, x_shape, stride, padding, dilation, groups: xp.conv_dx(
        g, w, x_shape=x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
    lambda xp, g, x, w_shape, stride, padding, dilation, groups: xp.conv_dw(
        x, g, w_shape=w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
)  # fmt: skip
define(Primitive(
    "conv", "x w", _SETTINGS, infer=_infer_conv, vjps=_CONV_RULES, jvps=("linear", "linear"), batch=_batch_conv, check_first=True,
), HOME)  # fmt: skip
define(Primitive(
    "conv_dx", "g w", "x_shape " + _SETTINGS, infer=lambda g, w, *, x_shape, **_: (x_shape, g.dtype), jvps=("linear", "linear"), batch=_batch_conv,
    vjps=(
        lambda xp, c, w, stride, padding, dilation, groups: xp.conv(c, w, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, c, g, w_shape, stride, padding, dilation, groups: xp.conv_dw(
            c, g, w_shape=w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
    ),
), HOME)  # fmt: skip
define(Primitive(
    "conv_dw", "x g", "w_shape " + _SETTINGS, infer=lambda x, g, *, w_shape, **_: (w_shape, x.dtype), jvps=("linear", "linear"), batch=_batch_conv,
    vjps=(
        lambda xp, c, g, x_shape, stride, padding, dilation, groups: xp.conv_dx(
            g, c, x_shape=x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, c, x, stride, padding, dilation, groups: xp.conv(x, c, stride=stride, padding=padding, dilation=dilation, groups=groups),
    ),
), HOME)  # fmt: skip


def _channels(b: Any, rank: int) -> tuple[int, ...]:
    """The shape in which one number for each channel meets [N, C, ...]."""
    return (b.shape[0], *(1,) * (rank - 2))


def _infer_conv_affine(x: Any, w: Any, b: Any, **params: Any) -> Any:
    return _infer_conv(x, w, **params)


define(Primitive(
    "conv_affine", "x w b", _SETTINGS, infer=_infer_conv_affine, check_first=True, inline=True,
    decompose=lambda xp, x, w, b, **params: xp.add(xp.conv(x, w, **params), xp.reshape(b, shape=_channels(b, len(x.shape)))),
    vjps=(*_CONV_RULES, lambda xp, g: xp.sum(g, axis=(0, *range(2, len(g.shape))), keepdims=False)),
    jvps=(
        lambda xp, t, w, stride, padding, dilation, groups: xp.conv(t, w, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, t, x, stride, padding, dilation, groups: xp.conv(x, t, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda xp, t, out_shape: xp.broadcast_to(xp.reshape(t, shape=_channels(t, len(out_shape))), shape=out_shape),
    ),
), HOME)  # fmt: skip

for _name in ("conv", "conv_dx", "conv_dw", "conv_affine"):
    table[_name].strong = "terms"


# ---- pooling -------------------------------------------------------------------------------------------------------------------------
def _sizes(x_shape: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, ...]:
    k = len(x_shape) - len(window)
    return (*x_shape[:k], *conv_sizes(x_shape[k:], window, stride, padding, dilation))


def _infer_pool(x: Any, *, window: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    if x.dtype.is_complex or x.dtype is md.bool:
        raise TypeError(f"max_pool: dtype {x.dtype.short} is not supported; it wants a real number dtype")
    if len(x.shape) < len(window):
        raise ValueError(f"max_pool: {describe(x)} has fewer axes than the window {window}")
    if 0 in x.shape[len(x.shape) - len(window) :]:
        raise ValueError(f"max_pool: {describe(x)} has an axis under the window {window} in which there is nothing to choose")
    for (lo, hi), k, d in zip(padding, window, dilation, strict=True):
        if 2 * max(lo, hi) > d * (k - 1) + 1:
            raise ValueError(f"max_pool: padding {padding} is more than half of the window {window}")
    out = _sizes(x.shape, window, stride, padding, dilation)
    if 0 in out[len(out) - len(window) :]:
        raise ValueError(f"max_pool: the window {window} is larger than the padded input {describe(x)}")
    return (out, x.dtype), (out, md.int64)


def _batch_pool(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    """Leading axes are free, so the batch axis is one more."""
    full = [x if b else call("broadcast_to", x, shape=(size, *x.shape)) for x, b in zip(xs, batched, strict=True)]
    more = {"x_shape": (size, *params["x_shape"])} if "x_shape" in params else {}
    return call(primitive.name, *full, **{**params, **more})


_PARAMS = "window stride padding dilation"
define(Primitive(
    "max_pool", "x", _PARAMS, infer=_infer_pool, batch=_batch_pool, multiple=True, check_first=True,
    vjps=(lambda xp, g, out1, x_shape, window, stride, padding, dilation: xp.pool_scatter(
        g, out1, x_shape=x_shape, window=window, stride=stride, padding=padding, dilation=dilation),),
    jvps=(lambda xp, t, out1, window, stride, padding, dilation: xp.pool_gather(
        t, out1, window=window, stride=stride, padding=padding, dilation=dilation),),
), HOME)  # fmt: skip
define(Primitive(
    "pool_gather", "x i", _PARAMS, infer=lambda x, i, **_: (i.shape, x.dtype), batch=_batch_pool, joins=(0,), others=md.int64,
    vjps=(lambda xp, g, i, x_shape, window, stride, padding, dilation: xp.pool_scatter(
        g, i, x_shape=x_shape, window=window, stride=stride, padding=padding, dilation=dilation), None),
    jvps=("linear", None),
), HOME)  # fmt: skip
define(Primitive(
    "pool_scatter", "g i", "x_shape " + _PARAMS, infer=lambda g, i, *, x_shape, **_: (x_shape, g.dtype), batch=_batch_pool,
    joins=(0,), others=md.int64,
    vjps=(lambda xp, c, i, window, stride, padding, dilation: xp.pool_gather(
        c, i, window=window, stride=stride, padding=padding, dilation=dilation), None),
    jvps=("linear", None),
), HOME)  # fmt: skip


@rule("where")
def mask_before_scatter(b: Rewriter, e: Equation) -> Var | Literal | None:
    """A gradient of max-pooling, masked by a comparison of what was pooled with a number (relu's own mask, where the layer before was that): the
    pooled value is what the window chose, so the mask is made from it, and the large array is not kept."""
    mask, g, zero = e.inputs
    test, spread = b.source(mask, "gt", "ge", "lt", "le"), b.source(g, "pool_scatter")
    if test is None or spread is None or not (b.alone(g) and b.alone(mask)) or repr(b.constant(zero)) != "0.0" or b.constant(test.inputs[1]) is None:
        return None
    cotangent, index = spread.inputs
    pool = b.source(index, "max_pool")
    if pool is None or pool.inputs[0] is not test.inputs[0] or any(pool.params[k] != spread.params[k] for k in pool.params):
        return None
    number = test.inputs[1] if isinstance(test.inputs[1], Literal) else Literal(b.constant(test.inputs[1]), test.inputs[1].dtype)
    few = b.make(e, test.primitive.name, (pool.outputs[0], number))
    none = Literal(0.0, cotangent.dtype)
    return b.make(e, "pool_scatter", (b.make(e, "where", (few, cotangent, none)), index), **spread.params)
