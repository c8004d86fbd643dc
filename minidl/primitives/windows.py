"""Max pooling: the maximum of each window together with its place, and the two linear maps that the place defines."""

from __future__ import annotations

from typing import Any

from minidl import shapes
from minidl.dtypes import bool_, int64
from minidl.primitives.contraction import conv_sizes
from minidl.primitives.core import Primitive


def _sizes(x_shape: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> tuple[int, ...]:
    k = len(x_shape) - len(window)
    return (*x_shape[:k], *conv_sizes(x_shape[k:], window, stride, padding, dilation))


def _infer_pool(x: Any, *, window: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    if x.dtype.is_complex or x.dtype is bool_:
        raise TypeError(f"max_pool: dtype {x.dtype.short} is not supported; it wants a real number dtype")
    if len(x.shape) < len(window):
        raise ValueError(f"max_pool: {shapes.show(x)} has fewer axes than the window {window}")
    if 0 in x.shape[len(x.shape) - len(window) :]:
        raise ValueError(f"max_pool: {shapes.show(x)} has an axis under the window {window} in which there is nothing to choose")
    for (lo, hi), k, d in zip(padding, window, dilation, strict=True):
        if 2 * max(lo, hi) > d * (k - 1) + 1:
            raise ValueError(f"max_pool: padding {padding} is more than half of the window {window}")
    out = _sizes(x.shape, window, stride, padding, dilation)
    if 0 in out[len(out) - len(window) :]:
        raise ValueError(f"max_pool: the window {window} is larger than the padded input {shapes.show(x)}")
    return (out, x.dtype), (out, int64)


def _batch_pool(primitive: Any, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    """Leading axes are free, so the batch axis is one more."""
    full = [x if b else call("broadcast_to", x, shape=(size, *x.shape)) for x, b in zip(xs, batched, strict=True)]
    more = {"x_shape": (size, *params["x_shape"])} if "x_shape" in params else {}
    return call(primitive.name, *full, **{**params, **more})


_PARAMS = "window stride padding dilation"
max_pool = Primitive(
    "max_pool", "x", _PARAMS, infer=_infer_pool, batch=_batch_pool, multiple=True, check_first=True,
    vjps=(lambda xp, g, out1, x_shape, window, stride, padding, dilation: xp.pool_scatter(
        g, out1, x_shape=x_shape, window=window, stride=stride, padding=padding, dilation=dilation),),
    jvps=(lambda xp, t, out1, window, stride, padding, dilation: xp.pool_gather(
        t, out1, window=window, stride=stride, padding=padding, dilation=dilation),),
)  # fmt: skip
pool_gather = Primitive(
    "pool_gather", "x i", _PARAMS, infer=lambda x, i, **_: (i.shape, x.dtype), batch=_batch_pool, joins=(0,), others=int64,
    vjps=(lambda xp, g, i, x_shape, window, stride, padding, dilation: xp.pool_scatter(
        g, i, x_shape=x_shape, window=window, stride=stride, padding=padding, dilation=dilation), None),
    jvps=("linear", None),
)  # fmt: skip
pool_scatter = Primitive(
    "pool_scatter", "g i", "x_shape " + _PARAMS, infer=lambda g, i, *, x_shape, **_: (x_shape, g.dtype), batch=_batch_pool, joins=(0,), others=int64,
    vjps=(lambda xp, c, i, window, stride, padding, dilation: xp.pool_gather(
        c, i, window=window, stride=stride, padding=padding, dilation=dilation), None),
    jvps=("linear", None),
)  # fmt: skip
