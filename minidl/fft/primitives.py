"""Discrete Fourier transforms: complex to complex over any axes, and the real one and its inverse along one axis.

All three are linear. The complex one is its own transpose; the real one and its inverse are each other's, up to weights: a coefficient that stands
for itself and its conjugate counts twice. `norm` divides by the number of points, as NumPy's does: "backward" in the inverse transform, "forward" in
the transform, "ortho" by its square root in both.
"""

from __future__ import annotations

from typing import Any

from minidl import int64
from minidl.extend import Primitive, define, describe

#: A transform's transpose goes in the other direction with the same divisor.
_OTHER = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _check(name: str, x: Any, kind: bool, want: str, axes: tuple[int, ...], points: Any = None) -> None:
    if not kind:
        raise TypeError(f"{name}: dtype {x.dtype.short} is not supported; it wants a {want} dtype")
    for a in axes:
        if not (x.shape[a] if points is None else points):
            raise ValueError(f"{name}: axis {a} of {describe(x)} is empty; a transform needs one point or more")


def _infer_fft(x: Any, *, axes: tuple[int, ...], inverse: bool, norm: str) -> Any:
    _check("ifft" if inverse else "fft", x, x.dtype.is_complex, "complex", axes)
    return x.shape, x.dtype


def _infer_rfft(x: Any, *, axis: int, norm: str) -> Any:
    _check("rfft", x, x.dtype.is_float, "float", (axis,))
    return (*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :]), x.dtype.complex


def _infer_irfft(x: Any, *, axis: int, n: int, norm: str) -> Any:
    _check("irfft", x, x.dtype.is_complex, "complex", (axis,), n)
    if x.shape[axis] != n // 2 + 1:
        raise ValueError(f"irfft: {n} points have {n // 2 + 1} coefficients; axis {axis} of {describe(x)} has {x.shape[axis]}")
    return (*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype.real


def _alone(xp: Any, ndim: int, axis: int, n: int) -> Any:
    """Which coefficients along an axis stand for themselves alone: the mean, and for even n the last."""
    k = xp.iota(size=n // 2 + 1, dtype=int64)
    alone = xp.eq(k, 0) if n % 2 else xp.logical_or(xp.eq(k, 0), xp.eq(k, n // 2))
    return xp.reshape(alone, shape=(n // 2 + 1, *[1] * (ndim - 1 - axis)))


def _rfft_vjp(xp: Any, g: Any, x_shape: Any, x_dtype: Any, axis: int, norm: str) -> Any:
    n, g = x_shape[axis], xp.conj(g)
    g = xp.where(_alone(xp, len(x_shape), axis, n), g, g * 0.5)
    out = xp.irfft(g, axis=axis, n=n, norm=_OTHER[norm])
    return out if x_dtype is xp.dtype_of(out) else xp.cast(out, dtype=x_dtype)


def _irfft_vjp(xp: Any, g: Any, x_shape: Any, axis: int, n: int, norm: str) -> Any:
    out = xp.conj(xp.rfft(g, axis=axis, norm=_OTHER[norm]))
    return xp.where(_alone(xp, len(x_shape), axis, n), out, out * 2.0)


def _batch(primitive: Primitive, call: Any, size: int, xs: Any, batched: Any, params: Any) -> Any:
    """All axes move up by one."""
    moved = {"axes": tuple(a + 1 for a in params["axes"])} if "axes" in params else {"axis": params["axis"] + 1}
    return call(primitive.name, *xs, **{**params, **moved})


fft = Primitive(
    "fft", "x", "axes inverse norm", infer=_infer_fft, batch=_batch, check_first=True, jvps=("linear",),
    vjps=(lambda xp, g, axes, inverse, norm: xp.fft(g, axes=axes, inverse=inverse, norm=norm),),
)  # fmt: skip
rfft = Primitive("rfft", "x", "axis norm", infer=_infer_rfft, batch=_batch, check_first=True, jvps=("linear",), vjps=(_rfft_vjp,))
irfft = Primitive("irfft", "x", "axis n norm", infer=_infer_irfft, batch=_batch, check_first=True, jvps=("linear",), vjps=(_irfft_vjp,))
for _primitive in (fft, rfft, irfft):
    define(_primitive, kernels=__package__)
