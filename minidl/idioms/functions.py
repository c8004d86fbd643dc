"""PyTorch's functions of numbers, its reductions and tests: compositions of minidl's, with PyTorch's arguments."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import minidl as md
from minidl.idioms.numbers import along, one_of, whole, word_all
from minidl.idioms.shaping import atleast_2d, axis_of, narrow

__all__ = [
    "addcdiv", "addcmul", "addmm", "addmv", "allclose", "baddbmm", "cdist", "clamp_max", "clamp_min", "complex", "corrcoef", "cov", "deg2rad",
    "det", "dist", "div", "exp2", "fmod", "frac", "inner", "isclose", "isreal", "kron", "lerp", "logdet", "logit", "mm", "nan_to_num", "nanmean",
    "nansum", "polar", "rad2deg", "sgn", "sinc", "std_mean", "trace", "trapezoid", "var_mean", "view_as_complex", "view_as_real",
]  # fmt: skip

Dims = int | Sequence[int] | None


# ---- arithmetic -----------------------------------------------------------------------------------------------------------------------
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> md.Tensor:
    """The quotient; rounding_mode "floor" rounds it down and "trunc" towards zero. Raises ValueError for another."""
    if rounding_mode not in (None, "floor", "trunc"):
        raise ValueError(f"div: rounding_mode must be None, 'floor' or 'trunc', not {rounding_mode!r}")
    if rounding_mode == "trunc":
        if md.result_type(input, other).inexact:
            return md.trunc(md.stop_gradient(md.divide(input, other)))  # no slope of it times one that may be infinite
        down = md.floor_divide(input, other)  # exact; a quotient of floats would not be
        return md.where((down < 0) & (down * other != input), down + 1, down)
    return md.divide(input, other) if rounding_mode is None else md.floor_divide(input, other)


def fmod(input: md.Tensor, other: Any) -> md.Tensor:
    """The remainder with the sign of the dividend (md.remainder has the divisor's)."""
    if not md.result_type(input, other).inexact:
        r = md.remainder(input, other)
        return md.where((r != 0) & ((r < 0) != (input < 0)), r - other, r)  # the smallest integer has no absolute value
    dtype = md.result_type(input, other)
    x = input.to(dtype)
    y = other.to(dtype) if isinstance(other, md.Tensor) else md.full((), other, dtype=dtype, backend=x.backend, device=x.device)
    sign, turned = (md.where(md.signbit(v), -1.0, 1.0).to(v.dtype) for v in (x, y))  # factors, since a branch not taken may have an infinite slope
    return sign * md.remainder(sign * x, turned * y)


def frac(input: md.Tensor) -> md.Tensor:
    """What is behind the point, with the sign of the number."""
    return input - md.trunc(input)


def sgn(input: md.Tensor) -> md.Tensor:
    """The sign; of a complex number it by its absolute value."""
    return md.sign(input)


def clamp_min(input: md.Tensor, min: Any) -> md.Tensor:
    """Elements of at least min."""
    return md.clip(input, min=min)


def clamp_max(input: md.Tensor, max: Any) -> md.Tensor:
    """Elements of at most max."""
    return md.clip(input, max=max)


def lerp(input: md.Tensor, end: Any, weight: Any) -> md.Tensor:
    """input + weight * (end - input), which is exactly end where the weight is 1."""
    way = end - input
    near, far = input + weight * way, end - (1 - weight) * way
    return md.where(weight < 0.5, near, far) if isinstance(weight, md.Tensor) else near if weight < 0.5 else far


def addcmul(input: md.Tensor, tensor1: md.Tensor, tensor2: md.Tensor, *, value: float = 1) -> md.Tensor:
    """input + value * tensor1 * tensor2."""
    return input + (tensor1 * tensor2 if value == 1 else value * (tensor1 * tensor2))


def addcdiv(input: md.Tensor, tensor1: md.Tensor, tensor2: md.Tensor, *, value: float = 1) -> md.Tensor:
    """input + value * tensor1 / tensor2."""
    return input + (tensor1 / tensor2 if value == 1 else value * (tensor1 / tensor2))


def plus(input: Any, product: md.Tensor, beta: float, alpha: float) -> md.Tensor:
    product = product if alpha == 1 else alpha * product
    return product if beta == 0 else product + (input if beta == 1 else beta * input)


def addmm(input: Any, mat1: md.Tensor, mat2: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    return plus(input, md.matmul(mat1, mat2), beta, alpha)


def addmv(input: Any, mat: md.Tensor, vec: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (mat @ vec)."""
    return plus(input, md.matmul(mat, vec), beta, alpha)


def baddbmm(input: Any, batch1: md.Tensor, batch2: md.Tensor, *, beta: float = 1, alpha: float = 1) -> md.Tensor:
    """beta * input + alpha * (batch1 @ batch2)."""
    return plus(input, md.matmul(batch1, batch2), beta, alpha)


def mm(input: md.Tensor, mat2: md.Tensor) -> md.Tensor:
    """The product of two matrices. Raises ValueError for other numbers of axes."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise ValueError(f"mm: two matrices are wanted, not tensors of shapes {input.shape} and {mat2.shape}; md.matmul takes batches")
    return md.matmul(input, mat2)


def inner(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """Products summed over the last axes."""
    return input * other if input.ndim == 0 or other.ndim == 0 else md.tensordot(input, other, axes=([-1], [-1]))


def kron(input: md.Tensor, other: md.Tensor) -> md.Tensor:
    """The Kronecker product.

    >>> md.kron(md.tensor([1, 2]), md.tensor([1, 1])).tolist()
    [1, 1, 2, 2]
    """
    n = builtins.max(input.ndim, other.ndim)
    a, b = ((1,) * (n - v.ndim) + v.shape for v in (input, other))
    spread = [s for i in a for s in (i, 1)], [s for i in b for s in (1, i)]
    return md.reshape(md.reshape(input, spread[0]) * md.reshape(other, spread[1]), tuple(i * j for i, j in zip(a, b, strict=True)))


def trace(input: md.Tensor) -> md.Tensor:
    """The sum of the diagonal of a matrix."""
    return md.linalg.trace(input)


def det(input: md.Tensor) -> md.Tensor:
    """The determinant: md.linalg.det."""
    return md.linalg.det(input)


def logdet(input: md.Tensor) -> md.Tensor:
    """The logarithm of the determinant; nan where it is negative."""
    sign, size = md.linalg.slogdet(input)
    return md.where(sign < 0, md.nan, size)


def dist(input: md.Tensor, other: md.Tensor, p: float = 2) -> md.Tensor:
    """The p-norm of the difference."""
    return md.vector_norm(input - other, ord=p)


def cdist(x1: md.Tensor, x2: md.Tensor, p: float = 2.0) -> md.Tensor:
    """p-norms of the differences of all rows of x1 [..., P, M] to all rows of x2 [..., R, M]: [..., P, R].

    >>> md.cdist(md.zeros(1, 2), md.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
    [[5.0, 1.0]]
    """
    return md.vector_norm(md.expand_dims(x1, -2) - md.expand_dims(x2, -3), axis=-1, ord=p)


def exp2(input: md.Tensor) -> md.Tensor:
    """2 to the power of each element.

    >>> md.exp2(md.tensor(3.0)).item()
    8.0
    """
    return md.pow(2.0, input)


def logit(input: md.Tensor, eps: float | None = None) -> md.Tensor:
    """log(x / (1 - x)), of x between eps and 1 - eps if there is one.

    >>> md.logit(md.tensor(0.5)).item()
    0.0
    """
    x = input if input.dtype.inexact else input.to(md.get_default_dtype())
    x = x if eps is None else md.clip(x, eps, 1 - eps)
    return md.log(x) - md.log1p(-x)


def sinc(input: md.Tensor) -> md.Tensor:
    """sin(pi x) / (pi x), 1 at 0.

    >>> md.sinc(md.tensor(0.0)).item()
    1.0
    """
    x = math.pi * md.where(input == 0, 1.0, input)
    return md.where(input == 0, 1.0 - (math.pi * input) ** 2 / 6, md.sin(x) / x)


def deg2rad(input: md.Tensor) -> md.Tensor:
    """Degrees in radians."""
    return input * (math.pi / 180)


def rad2deg(input: md.Tensor) -> md.Tensor:
    """Radians in degrees."""
    return input * (180 / math.pi)


def complex(real: md.Tensor, imag: md.Tensor) -> md.Tensor:
    """The complex numbers of these real and imaginary parts, which keep infinities, nan and the signs of zeros. Raises TypeError for complex ones.

    >>> md.complex(md.tensor(1.0), md.tensor(-2.0)).item()
    (1-2j)
    """
    real, imag = md.asarray(real), md.asarray(imag)
    dtype = md.result_type(real, imag, 1.0)
    if dtype.is_complex:
        raise TypeError(f"complex: the parts are real numbers, not {real.dtype.name} and {imag.dtype.name}; add z and w * 1j")
    return _joined(*md.broadcast_arrays(real.to(dtype), imag.to(dtype)))


@md.custom_jvp
def _joined(real: md.Tensor, imag: md.Tensor) -> md.Tensor:
    a, b = md.abs(real), md.abs(imag)
    near = md.isfinite(b)  # a product with 1j has its real part from 0 * b, and a sum takes the sign of zeros away: neither is met here
    z = md.where(near, a + md.where(near, b, 0.0) * 1j, a + md.where(md.isnan(b), builtins.complex(0, math.nan), builtins.complex(0, math.inf)))
    z = md.where(md.signbit(imag), md.conj(z), z)
    return md.where(md.signbit(real), -md.conj(z), z)


@_joined.defjvp
def _joined_jvp(primals: Any, tangents: Any) -> Any:
    return _joined(*primals), tangents[0] + tangents[1] * 1j


def view_as_real(input: md.Tensor) -> md.Tensor:
    """Real and imaginary parts in a last axis of two."""
    return md.extend.view(md.stack([md.real(input), md.imag(input)], axis=-1), input, ("part", "view_as_real(x)"))


def view_as_complex(input: md.Tensor) -> md.Tensor:
    """The complex numbers whose parts are in the last axis."""
    return complex(input[..., 0], input[..., 1])


def polar(abs: md.Tensor, angle: md.Tensor) -> md.Tensor:
    """The complex numbers of these absolute values and angles."""
    return complex(abs * md.cos(angle), abs * md.sin(angle))


# ---- reductions and tests -------------------------------------------------------------------------------------------------------------
def _spread_and_mean(
    f: Any, input: md.Tensor, dim: Dims, unbiased: bool | None, correction: float | None, keepdim: bool
) -> tuple[md.Tensor, md.Tensor]:  # fmt: skip
    if isinstance(dim, bool):  # std_mean(input, unbiased)
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    axis = whole("std", dim)
    return f(input, axis=axis, correction=correction, keepdims=keepdim), md.mean(input, axis=axis, keepdims=keepdim)


@along
def var_mean(
    input: md.Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[md.Tensor, md.Tensor]:
    """The variance and the mean over axes. The correction is 1 as in PyTorch (md.var, as the Array API has it, corrects nothing by itself)."""
    return _spread_and_mean(md.var, input, dim, unbiased, correction, keepdim)


@along
def std_mean(
    input: md.Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[md.Tensor, md.Tensor]:
    """The standard deviation and the mean over axes. The correction is 1 as in PyTorch (md.std, as the Array API has it, corrects nothing)."""
    return _spread_and_mean(md.std, input, dim, unbiased, correction, keepdim)


def cov(input: md.Tensor, *, correction: int = 1) -> md.Tensor:
    """The covariances of variables, which are rows; columns are observations."""
    x = atleast_2d(input)
    x = x - md.mean(x, axis=1, keepdims=True)
    return (
        md.squeeze(md.matmul(x, md.conj(x).mT) / (x.shape[1] - correction))
        if input.ndim < 2
        else md.matmul(x, md.conj(x).mT) / (x.shape[1] - correction)
    )


def corrcoef(input: md.Tensor) -> md.Tensor:
    """The correlations of variables, which are rows; columns are observations."""
    c = cov(input)
    if c.ndim == 0:
        return c / c
    s = md.sqrt(md.real(md.diagonal(c))) if c.dtype.is_complex else md.sqrt(md.diagonal(c))
    return c / md.expand_dims(s, 1) / s


def nan_to_num(input: md.Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> md.Tensor:
    """nan and infinities replaced by numbers, infinities by the largest ones of the dtype unless others are given."""
    if not input.dtype.inexact:
        return input
    info = md.finfo(input.dtype)
    x = md.where(md.isnan(input), nan, input)
    x = md.where(x == math.inf, info.max if posinf is None else posinf, x)
    return md.where(x == -math.inf, info.min if neginf is None else neginf, x)


@along
def nansum(input: md.Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None) -> md.Tensor:
    """The sum of what is not nan."""
    there = md.where(md.isnan(input), 0.0, input) if input.dtype.inexact else input
    return md.sum(there, axis=whole("sum", dim) if axis is None else one_of(dim, axis), keepdims=keepdim)


@along
def nanmean(input: md.Tensor, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None) -> md.Tensor:
    """The mean of what is not nan; nan where all is."""
    total = nansum(input, dim, keepdim, axis=axis)
    return total / nansum((~md.isnan(input)).to(total.dtype), dim, keepdim, axis=axis)


def trapezoid(y: md.Tensor, x: md.Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> md.Tensor:
    """The integral by the rule of trapezoids along an axis, at the places x or dx apart."""
    n = y.shape[axis_of("trapezoid", y, dim)]
    means = (narrow(y, dim, min(n, 1), max(n - 1, 0)) + narrow(y, dim, 0, max(n - 1, 0))) / 2
    if x is None:
        return md.sum(means, axis=dim) * dx
    steps = md.diff(x, axis=dim if x.ndim > 1 else 0)
    if x.ndim == 1:
        steps = md.reshape(steps, (-1,) + (1,) * (y.ndim - 1 - dim % y.ndim))
    return md.sum(means * steps, axis=dim)


def isclose(input: md.Tensor, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> md.Tensor:
    """Where |input - other| <= atol + rtol * |other|; equal infinities are close, nans if equal_nan.

    >>> md.isclose(md.tensor([1.0, 2.0]), md.tensor([1.0, 2.1])).tolist()
    [True, False]
    """
    other = md.asarray(other, backend=input.backend, device=input.device) if not isinstance(other, md.Tensor) else other
    if not md.result_type(input, other).inexact:  # whose differences may overflow
        input, other = input.to(md.float64), other.to(md.float64)
    input, other = md.broadcast_arrays(input, other)
    near = md.isfinite(input) & md.isfinite(other) & (md.abs(input - other) <= atol + rtol * md.abs(other))
    close = near | (input == other)
    return close | (md.isnan(input) & md.isnan(other)) if equal_nan else close


def allclose(input: md.Tensor, other: md.Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether all elements are close (see isclose), as a Python bool."""
    return builtins.bool(md.all(isclose(input, other, rtol, atol, equal_nan)))


def isreal(input: md.Tensor) -> md.Tensor:
    """Where there is no imaginary part."""
    return md.imag(input) == 0 if input.dtype.is_complex else md.ones_like(input, dtype=md.bool)


word_all(globals(), __all__)
