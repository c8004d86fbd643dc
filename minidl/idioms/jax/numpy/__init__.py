"""jax.numpy: `from minidl.idioms.jax import numpy as jnp`.

Names, arguments and values are those of jax.numpy with 64-bit types enabled; the default float is md.get_default_dtype(), integers are int64.
"""

from __future__ import annotations

import builtins
import math
import string
from typing import Any

import numpy as np

import minidl as md
from minidl.idioms import of_numpy
from minidl.idioms.jax import arrays, counts, floats, places, polynomials, reductions, shaping
from minidl.idioms.jax.arrays import inexact as _inexact
from minidl.idioms.jax.numpy import fft, linalg
from minidl.idioms.jax.spelling import room, spelled

ndarray, bool_, bool = md.Tensor, md.bool, md.bool


class _Types(type):
    """Of `dtype`, which JAX's programs call as well as ask isinstance of."""

    def __call__(cls, dtype: Any) -> md.DType:
        return arrays.known_dtype(dtype)

    def __instancecheck__(cls, instance: Any) -> builtins.bool:
        return isinstance(instance, md.DType)


class dtype(metaclass=_Types):
    """The dtype of a name, of a Python type or of NumPy's; dtypes are its instances.

    >>> dtype("float32") is md.float32, isinstance(md.ones(1).dtype, dtype)
    (True, True)
    """
int_, uint, float_, complex_, single, csingle = md.int64, md.uint64, md.float64, md.complex128, md.float32, md.complex64
double, cdouble, newaxis = md.float64, md.complex128, None
generic, number, inexact, floating, complexfloating = "generic", "numeric", "inexact", "real floating", "complex floating"
integer, signedinteger, unsignedinteger = "integral", "signed integer", "unsigned integer"
euler_gamma = 0.57721566490153286
s_, index_exp = np.s_, np.index_exp


# ---- dtypes -----------------------------------------------------------------------------------------------------------------------------
def issubdtype(arg1: Any, arg2: Any) -> builtins.bool:
    """Whether a dtype is another or of a kind: jnp.floating, jnp.integer, jnp.inexact, jnp.number and so on.

    >>> issubdtype(md.float32, floating), issubdtype(md.int32, floating)
    (True, False)
    """
    kinds = {"generic": (), "inexact": ("real floating", "complex floating")}
    given = arg1 if isinstance(arg1, md.DType) else md.zeros((), dtype=arg1).dtype
    if isinstance(arg2, str) and arg2 in (*kinds, "numeric", "real floating", "complex floating", "integral", "signed integer", "unsigned integer"):
        return arg2 == "generic" or md.isdtype(given, kinds.get(arg2, arg2))
    scalar = {float: "real floating", int: "signed integer", complex: "complex floating", builtins.bool: "bool"}.get(arg2)
    return md.isdtype(given, scalar) if scalar else given == arg2


def isscalar(element: Any) -> builtins.bool:
    """Whether it is a number, or an array without axes."""
    return np.isscalar(element) or (isinstance(element, (md.Tensor, np.ndarray)) and element.ndim == 0)


def iscomplexobj(x: Any) -> builtins.bool:
    """Whether its dtype is complex."""
    return md.asarray(x).dtype.is_complex


def isrealobj(x: Any) -> builtins.bool:
    """Whether its dtype is not complex."""
    return not iscomplexobj(x)


def iscomplex(x: Any) -> md.Tensor:
    """Which elements have an imaginary part."""
    x = md.asarray(x)
    return md.imag(x) != 0 if x.dtype.is_complex else md.zeros_like(x, dtype=md.bool)


# ---- of elements ------------------------------------------------------------------------------------------------------------------------
def round(a: Any, decimals: int = 0, out: Any = None) -> md.Tensor:
    """md.round, to so many decimals.

    >>> from minidl.idioms.jax import numpy as jnp
    >>> jnp.round(md.tensor(3.14159), 2).item()
    3.140000104904175
    """
    x = md.asarray(a)
    if not x.dtype.inexact and decimals >= 0:
        return x
    if not decimals:
        return md.round(x)
    scale = 10.0**decimals
    found = md.round(x * scale) / scale
    return found if x.dtype.inexact else found.to(x.dtype)


def cbrt(x: Any, /) -> md.Tensor:
    """The real cube root, by a step of Newton's method behind the power, so that cubes have theirs exactly.

    >>> cbrt(md.tensor(-27.0)).item()
    -3.0
    """
    x = _inexact(x)
    still = x == 0
    safe = md.where(still, 1.0, md.abs(x))
    near = md.pow(safe, 1.0 / 3.0)
    near = md.where(md.isfinite(safe), near - (near - safe / (near * near)) / 3.0, safe)
    return md.where(still, x, md.sign(x) * near)


def logaddexp2(x1: Any, x2: Any, /) -> md.Tensor:
    """The logarithm to base 2 of 2**x1 + 2**x2."""
    return md.logaddexp(md.asarray(x1) * math.log(2.0), md.asarray(x2) * math.log(2.0)) / math.log(2.0)


def float_power(x: Any, y: Any, /) -> md.Tensor:
    """The power in floats."""
    return md.pow(_inexact(x), _inexact(y))


def divmod(x1: Any, x2: Any, /) -> tuple[md.Tensor, md.Tensor]:
    """Quotient, rounded down, and remainder."""
    return md.floor_divide(x1, x2), md.remainder(x1, x2)


def modf(x: Any, /, out: Any = None) -> tuple[md.Tensor, md.Tensor]:
    """The part behind the point and the part before it, both of the sign of x.

    >>> [v.item() for v in modf(md.tensor(-2.5))]
    [-0.5, -2.0]
    """
    x = _inexact(x)
    whole = md.trunc(x)
    return md.where(md.isinf(x), md.copysign(0.0, x), x - md.where(md.isinf(x), 0.0, whole)), whole


def ldexp(x1: Any, x2: Any, /) -> md.Tensor:
    """x1 times 2 to the power x2."""
    x1, x2 = arrays.together(x1, x2)
    x = _inexact(x1)
    most = math.frexp(float(md.finfo(x.dtype).max))[1] - 1  # in three steps, each a power of two that there is
    n = md.clip(md.asarray(x2).to(x.dtype), -3.0 * most, 3.0 * most)
    step = md.trunc(n / 3.0)
    power = lambda k: md.pow(md.asarray(2.0, dtype=x.dtype, **arrays.beside(x)), k)
    return x * power(step) * power(step) * power(n - 2.0 * step)


def gcd(x1: Any, x2: Any) -> md.Tensor:
    """The greatest common divisor, by Euclid's algorithm.

    >>> gcd(md.tensor([12, 7]), 18).tolist()
    [6, 1]
    """
    a, b = md.broadcast_arrays(*map(md.abs, _of_one_dtype(x1, x2)))
    step = lambda s: (md.where(s[1] == 0, s[0], s[1]), md.where(s[1] == 0, 0, md.remainder(s[0], md.where(s[1] == 0, 1, s[1]))))
    return md.while_loop(lambda s: md.any(s[1] != 0), step, (a, b))[0]


def _of_one_dtype(x1: Any, x2: Any) -> list[md.Tensor]:
    pair = arrays.together(x1, x2)
    dtype = md.result_type(*pair)
    return [x.to(dtype) for x in pair]


def lcm(x1: Any, x2: Any) -> md.Tensor:
    """The least common multiple."""
    a, b = map(md.abs, _of_one_dtype(x1, x2))
    d = gcd(a, b)
    return md.where(d == 0, 0, a * md.floor_divide(b, md.where(d == 0, 1, d)))


def bitwise_count(x: Any, /) -> md.Tensor:
    """How many bits of |x| are 1.

    >>> bitwise_count(md.tensor([3, 4])).tolist()
    [2, 1]
    """
    x = md.abs(md.asarray(x))
    return builtins.sum(md.bitwise_and(md.bitwise_right_shift(x, i), 1) for i in range(x.dtype.bits)).to(md.uint8)


def unwrap(p: Any, discont: Any = None, axis: int = -1, period: float = 2 * math.pi) -> md.Tensor:
    """Without jumps of more than half a period along an axis.

    >>> [v.shape for v in [unwrap(md.tensor([0.0, 6.0]))]]
    [(2,)]
    """
    x = md.moveaxis(_inexact(p), axis, -1)
    step, half = md.diff(x, axis=-1), period / 2
    moved = md.remainder(step + half, period) - half
    moved = md.where((moved == -half) & (step > 0), half, moved)
    fix = md.where(md.abs(step) < (half if discont is None else discont), 0.0, moved - step)
    return md.moveaxis(md.concat([x[..., :1], x[..., 1:] + md.cumulative_sum(fix, axis=-1)], axis=-1), -1, axis)


def angle(z: Any, deg: builtins.bool = False) -> md.Tensor:
    """md.angle, in degrees if asked for."""
    found = md.angle(z)
    return found * (180.0 / math.pi) if deg else found


# ---- statistics, products ---------------------------------------------------------------------------------------------------------------
def cov(
    m: Any, y: Any = None, rowvar: builtins.bool = True, bias: builtins.bool = False, ddof: int | None = None, fweights: Any = None,
    aweights: Any = None,
) -> md.Tensor:  # fmt: skip
    """The covariances of variables in rows (in columns without rowvar), y more of them; fweights: how often an
    observation counts, aweights: how much.

    >>> cov(md.tensor([[1.0, 3.0], [2.0, 6.0]])).tolist()
    [[2.0, 4.0], [4.0, 8.0]]
    """
    x = md.atleast_2d(_inexact(m))
    x = x if rowvar or x.shape[0] == 1 else x.T
    if y is not None:
        other = md.atleast_2d(_inexact(y))
        x = md.concat([x, other if rowvar or other.shape[0] == 1 else other.T])
    less = (0 if bias else 1) if ddof is None else ddof
    w = None if fweights is None else md.asarray(fweights).to(x.dtype)
    if aweights is not None:
        a = _inexact(aweights)
        w = a if w is None else w * a
    total = x.shape[1] if w is None else md.sum(w)
    middle = md.mean(x, axis=1, keepdims=True) if w is None else (md.sum(x * w, axis=1) / total)[:, None]
    if w is None or not less:
        by = total - less
    else:
        by = total - less if aweights is None else total - less * md.sum(w * _inexact(aweights)) / total
    x = x - middle
    found = (x if w is None else x * w) @ md.conj(x.T) / by
    return md.reshape(found, ()) if found.shape == (1, 1) else found


def corrcoef(x: Any, y: Any = None, rowvar: builtins.bool = True) -> md.Tensor:
    """The correlations of variables in rows."""
    c = cov(x, y, rowvar)
    if not c.ndim:
        return c / c
    spread = md.sqrt(md.real(md.diag(c)))
    c = c / spread[:, None] / spread[None, :]
    return md.clip(c, -1.0, 1.0) if c.dtype.is_float else c


def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> md.Tensor:
    """The cross product of vectors of three along axes; of two, the third component alone."""
    axisa, axisb, axisc = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    x, y = md.moveaxis(md.asarray(a), axisa, -1), md.moveaxis(md.asarray(b), axisb, -1)
    if x.shape[-1] == y.shape[-1] == 2:
        return x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]
    x, y = (md.pad(v, [(0, 0)] * (v.ndim - 1) + [(0, 1)]) if v.shape[-1] == 2 else v for v in (x, y))
    x, y = md.broadcast_arrays(x, y)
    return md.moveaxis(md.linalg.cross(x, y), -1, axisc)


def vdot(a: Any, b: Any, **options: Any) -> md.Tensor:
    """The sum of conj(a) b over all elements."""
    return md.vecdot(md.flatten(md.asarray(a)), md.flatten(md.asarray(b)))


def dot(a: Any, b: Any, *, precision: Any = None, preferred_element_type: Any = None) -> md.Tensor:
    """The product over the last axis of `a` and the last but one of `b`; of numbers, their product."""
    a, b = md.asarray(a), md.asarray(b)
    if preferred_element_type is not None:
        a, b = a.to(preferred_element_type), b.to(preferred_element_type)
    if not a.ndim or not b.ndim:
        return a * b
    return md.tensordot(a, b, axes=((a.ndim - 1,), (builtins.max(b.ndim - 2, 0),)))


def inner(a: Any, b: Any, **options: Any) -> md.Tensor:
    """The product over the last axes."""
    a, b = md.asarray(a), md.asarray(b)
    return md.tensordot(a, b, axes=((-1,), (-1,))) if a.ndim and b.ndim else a * b


def matmul(a: Any, b: Any, *, precision: Any = None, preferred_element_type: Any = None) -> md.Tensor:
    """md.matmul; precision changes nothing, preferred_element_type is the dtype in which it is computed."""
    a, b = md.asarray(a), md.asarray(b)
    return md.matmul(a, b) if preferred_element_type is None else md.matmul(a.to(preferred_element_type), b.to(preferred_element_type))


def matvec(x1: Any, x2: Any, /) -> md.Tensor:
    """Matrices by vectors, broadcasting what is before."""
    return md.squeeze(md.matmul(x1, md.expand_dims(md.asarray(x2), axis=-1)), axis=-1)


def vecmat(x1: Any, x2: Any, /) -> md.Tensor:
    """Conjugated vectors by matrices, broadcasting what is before."""
    return md.squeeze(md.matmul(md.expand_dims(md.conj(md.asarray(x1)), axis=-2), x2), axis=-2)


def einsum(subscripts: Any, /, *operands: Any, optimize: Any = True, precision: Any = None, preferred_element_type: Any = None) -> md.Tensor:
    """md.einsum, or by lists of numbers behind each operand; preferred_element_type is the dtype in which it is computed."""
    if not isinstance(subscripts, str):
        given = (subscripts, *operands)
        text = lambda axes: "".join("..." if a is Ellipsis else string.ascii_letters[a] for a in axes)
        inputs, out = ",".join(text(axes) for axes in given[1::2]), given[-1] if len(given) % 2 else None
        subscripts, operands = inputs if out is None else f"{inputs}->{text(out)}", given[: len(given) // 2 * 2 : 2]
    if preferred_element_type is not None:
        operands = tuple(o.to(preferred_element_type) if isinstance(o, md.Tensor) else o for o in operands)
    return md.einsum(subscripts, *operands)


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> md.Tensor:
    """The sum of a diagonal.

    >>> trace(md.eye(2)).item()
    2.0
    """
    return md.sum(md.diagonal(md.asarray(a), offset=offset, axis1=axis1, axis2=axis2), axis=-1, dtype=dtype)


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> md.Tensor:
    """The integral of samples by the trapezoidal rule."""
    y = md.moveaxis(_inexact(y), axis, -1)
    at = md.asarray(dx if x is None else x, **arrays.beside(y))
    step = at if x is None else md.diff(at if at.ndim == 1 else md.moveaxis(at, axis, -1), axis=-1)
    return md.sum((y[..., 1:] + y[..., :-1]) * step, axis=-1) * 0.5


def vander(x: Any, N: int | None = None, increasing: builtins.bool = False) -> md.Tensor:
    """The powers of x in columns, the highest first unless they shall increase."""
    return md.linalg.vander(x, N) if increasing else md.vander(x, N)


def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> md.Tensor:
    """The differences of neighbours of the flattened array, between to_begin and to_end."""
    parts = [p for p in (to_begin, md.diff(md.flatten(md.asarray(ary))), to_end) if p is not None]
    return md.concat([md.flatten(p) for p in arrays.together(*parts)])


def _running(f: Any, name: str) -> Any:
    def function(a: Any, axis: int | None = None, dtype: Any = None, out: Any = None) -> md.Tensor:
        x = md.flatten(md.asarray(a)) if axis is None else md.asarray(a)
        kept = x.dtype if dtype is None and x.dtype is not md.bool else dtype
        return f(x if dtype is None else x.to(dtype), axis=0 if axis is None else axis, dtype=kept)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{f.__name__} in the dtype of the array (int64 of bools), of the flattened array without an axis."
    return function


cumsum, cumprod = _running(md.cumulative_sum, "cumsum"), _running(md.cumulative_prod, "cumprod")


def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: builtins.bool = False) -> md.Tensor:
    """Whether all elements are close, as an array, which is there while tracing too."""
    return md.all(md.isclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan))


def array_equiv(a1: Any, a2: Any) -> md.Tensor:
    """Whether two arrays broadcast and are equal then."""
    a, b = md.asarray(a1), md.asarray(a2)
    try:
        md.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        return md.asarray(False)
    return md.all(a == b)


def sort(a: Any, axis: int | None = -1, *, kind: Any = None, stable: builtins.bool = True, descending: builtins.bool = False) -> md.Tensor:
    """md.sort; flattened for axis None."""
    x = md.flatten(md.asarray(a)) if axis is None else md.asarray(a)
    if x.dtype.is_complex and axis in (None, -1, x.ndim - 1) and not descending:
        return sort_complex(x)
    return md.sort(x, axis=-1 if axis is None else axis, stable=stable, descending=descending)


def argsort(
    a: Any, axis: int | None = -1, *, kind: Any = None, stable: builtins.bool = True, descending: builtins.bool = False
) -> md.Tensor:
    """md.argsort; flattened for axis None."""
    x = md.flatten(md.asarray(a)) if axis is None else md.asarray(a)
    axis = -1 if axis is None else axis
    if x.dtype.is_complex and not descending:
        return places.lexsort((md.imag(x), md.real(x)), axis=axis)
    return md.argsort(x, axis=axis, stable=stable, descending=descending)


def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> md.Tensor:
    """md.diff, of bools whether neighbours differ; numbers stand for slices of them in prepend and append.

    >>> diff(md.tensor([1, 4]), prepend=0).tolist()
    [1, 3]
    """
    x = md.asarray(a)
    slice_shape = tuple(1 if i == axis % x.ndim else m for i, m in enumerate(x.shape))
    ends = [None if e is None else md.asarray(e) for e in (prepend, append)]
    before, after = ((md.broadcast_to(e, slice_shape),) if e is not None and not e.ndim else () if e is None else (e,) for e in ends)
    x = md.concat([*before, x, *after], axis=axis) if before or after else x
    if x.dtype is not md.bool:
        return md.diff(x, n=n, axis=axis)
    x = md.moveaxis(x, axis, 0)
    for _ in range(n):
        x = x[1:] != x[:-1]
    return md.moveaxis(x, 0, axis)


def roll(a: Any, shift: Any, axis: Any = None) -> md.Tensor:
    """md.roll; one axis or shift stands for several.

    >>> roll(md.arange(4), (1, 2), axis=0).tolist()
    [1, 2, 3, 0]
    """
    if isinstance(shift, (tuple, list)) and isinstance(axis, int):
        axis = (axis,) * len(shift)
    if isinstance(axis, (tuple, list)) and not isinstance(shift, (tuple, list)):
        shift = (shift,) * len(axis)
    return md.roll(md.asarray(a), shift, axis=axis)


def outer(a: Any, b: Any, out: Any = None) -> md.Tensor:
    """Every element of one array by every element of the other."""
    return md.outer(md.flatten(md.asarray(a)), md.flatten(md.asarray(b)))


def _known_place(name: str) -> Any:
    found = getattr(md, name)

    def function(a: Any, axis: int | None = None, out: Any = None, keepdims: builtins.bool | None = None) -> md.Tensor:
        x, kept = md.asarray(a), builtins.bool(keepdims)
        at = found(x, axis=axis, keepdims=kept)
        return md.where(md.all(md.isnan(x), axis=axis, keepdims=kept), -1, at) if x.dtype.inexact else at

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{name}; -1 where all is nan."
    return function


nanargmax, nanargmin = _known_place("nanargmax"), _known_place("nanargmin")


def _logical(name: str) -> Any:
    def function(*args: Any) -> md.Tensor:
        return getattr(md, name)(*(md.asarray(x) != 0 for x in args))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"md.{name} of what is not 0."
    return function


logical_and, logical_or, logical_xor, logical_not = (_logical(f"logical_{name}") for name in ("and", "or", "xor", "not"))


def partition(a: Any, kth: int, axis: int = -1) -> md.Tensor:
    """Sorted, so that all before place kth are at most the element there."""
    return md.sort(md.asarray(a), axis=axis)


def argpartition(a: Any, kth: int, axis: int = -1) -> md.Tensor:
    """The order of partition."""
    return md.argsort(md.asarray(a), axis=axis)


def sort_complex(a: Any) -> md.Tensor:
    """Sorted by the real, then by the imaginary part, as complex numbers."""
    x = md.asarray(a)
    x = x if x.dtype.is_complex else x.to(md.result_type(_inexact(x), md.complex64))
    return md.take_along_axis(x, places.lexsort((md.imag(x), md.real(x))), axis=-1)


def _window(name: str, f: Any) -> Any:
    def function(M: int) -> md.Tensor:
        return md.ones((M,)) if M < 2 else f(md.arange(M).to(md.get_default_dtype()), M - 1)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {name} window of M samples."
    return function


bartlett = _window("bartlett", lambda n, m: 1.0 - md.abs(n - m / 2) / (m / 2))
blackman = _window("blackman", lambda n, m: 0.42 - 0.5 * md.cos(2 * math.pi * n / m) + 0.08 * md.cos(4 * math.pi * n / m))
hamming = _window("hamming", lambda n, m: 0.54 - 0.46 * md.cos(2 * math.pi * n / m))
hanning = _window("hanning", lambda n, m: 0.5 - 0.5 * md.cos(2 * math.pi * n / m))


def kaiser(M: int, beta: Any) -> md.Tensor:
    """The Kaiser window of M samples."""
    n = md.arange(M).to(md.get_default_dtype())
    half = (M - 1) / 2 or 1.0
    return md.i0(beta * md.sqrt(md.maximum(1.0 - md.square((n - (M - 1) / 2) / half), 0.0))) / md.i0(md.asarray(float(beta)))


_QUANTILE = "a q / axis out: overwrite_input:- method keepdims weights:"
_SPELLED = {
    "argmax": "a / axis out: keepdims", "argmin": "a / axis out: keepdims", "median": "a / axis out: overwrite_input:- keepdims",
    "quantile": _QUANTILE, "percentile": _QUANTILE, "nanquantile": _QUANTILE, "nanpercentile": _QUANTILE,
    "nanmedian": "a / axis out: overwrite_input:- keepdims", "ptp": "a / axis out: keepdims",
    "nanmax": "a / axis out: keepdims initial: where:", "nanmin": "a / axis out: keepdims initial: where:",
    "nansum": "a / axis dtype: out: keepdims initial: where:", "nanmean": "a / axis dtype: out: keepdims where:",
    "nanprod": "a / axis dtype: out: keepdims initial: where:", "nanvar": "a / axis dtype: out: ddof keepdims where:",
    "nanstd": "a / axis dtype: out: ddof keepdims where:", "nancumsum": "a / axis dtype: out:", "nancumprod": "a / axis dtype: out:",
    "cumulative_sum": "x / axis dtype include_initial",
    "cumulative_prod": "x / axis dtype include_initial", "count_nonzero": "a / axis keepdims", "diagonal": "a / offset axis1 axis2",
    "expand_dims": "a / axis", "flip": "m / axis", "moveaxis": "a source destination /",
    "nan_to_num": "x / copy:- nan posinf neginf", "rot90": "m / k axes:dims",
    "searchsorted": "a v / side sorter method:-", "swapaxes": "a axis1 axis2 /",
    "tensordot": "a b / axes precision:- preferred_element_type:", "tile": "A reps /", "tril": "m / k", "triu": "m / k", "kron": "a b /",
    "isclose": "a b / rtol atol equal_nan", "broadcast_to": "array shape /",
    "isin": "element test_elements / assume_unique:- invert method:-", "column_stack": "tup /", "fliplr": "m /", "flipud": "m /",
    "polyval": "p x / unroll:-", "digitize": "x bins right / method:-", "convolve": "a v mode / precision:- preferred_element_type:",
    "correlate": "a v mode / precision:- preferred_element_type:", "clip": "arr / min max", "asarray": "a / dtype order: copy device:",
    "iinfo": "int_type /", "vecdot": "x1 x2 / axis precision:- preferred_element_type:", "hstack": "tup /", "vstack": "tup /", "dstack": "tup /",
    "arange": "start / stop step dtype device:", "zeros": "shape / dtype device:", "ones": "shape / dtype device:",
    "permute_dims": "a axes /",
}  # fmt: skip
_SAME = """abs absolute acos acosh add append arccos arccosh arcsin arcsinh arctan arctan2 arctanh array_equal array_split asin asinh astype atan
atan2 atanh atleast_1d atleast_2d atleast_3d average bfloat16 bitwise_and bitwise_invert bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
bitwise_xor broadcast_arrays broadcast_shapes can_cast ceil complex128 complex64 concat conj conjugate copy copysign cos cosh deg2rad divide e equal
exp exp2 expm1 finfo fix float16 float32 float64 floor floor_divide fmax fmin fmod gradient greater greater_equal heaviside hypot i0
imag inf int16 int32 int64 int8 interp isdtype isfinite isinf isnan isneginf isposinf isreal less less_equal log log10 log1p log2 logaddexp
matrix_transpose maximum minimum mod multiply nan negative nextafter not_equal pi positive pow
rad2deg real reciprocal remainder result_type rint sign signbit sin sinc sinh sqrt square subtract tan tanh tri true_divide trunc uint16 uint32
uint64 uint8 unique_all unique_counts unique_inverse unique_values unstack"""
_ALSO = {
    "around": round, "degrees": md.rad2deg, "radians": md.deg2rad, "fabs": lambda x: md.abs(_inexact(x)),
    "invert": md.bitwise_invert, "left_shift": md.bitwise_left_shift,
    "right_shift": md.bitwise_right_shift, "power": md.pow, "mod": md.remainder, "promote_types": md.result_type,
    "ndim": lambda a: md.asarray(a).ndim,
    "shape": lambda a: md.asarray(a).shape, "size": lambda a, axis=None: md.asarray(a).size if axis is None else md.asarray(a).shape[axis],
    "iterable": np.iterable, "dtype": dtype,
    "empty": md.zeros, "array_repr": repr, "array_str": str, "fft": fft, "linalg": linalg, "bitwise_count": bitwise_count,
}  # fmt: skip
NAMES: dict[str, Any] = {
    **_ALSO, **of_numpy.NAMES, **{name: spelled(getattr(md, name), words, name) for name, words in _SPELLED.items()},
    **arrays.NAMES, **counts.NAMES, **floats.NAMES, **places.NAMES, **shaping.NAMES, **polynomials.NAMES, **reductions.NAMES,
}  # fmt: skip
_ABSENT = {
    "frompyfunc": "jnp.vectorize", "fromfile": "np.fromfile", "load": "md.load, or np.load", "save": "md.save, or np.save", "savez": "np.savez",
    "packbits": "np.packbits", "unpackbits": "np.unpackbits", "set_printoptions": "np.set_printoptions", "place": "jnp.where",
    "put": "x.at[i].set(v)",
}  # fmt: skip
__getattr__ = room(__name__, NAMES, (md,), _SAME, _ABSENT)


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES, *_SAME.split()})
