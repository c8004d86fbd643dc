"""One row per primitive: where its arguments may lie, and with which shapes and params it is tried.

A domain is the mathematical one: open intervals, from which only the kinks of the gradient law are cut out. Draws reach from 1e-4 to 1e4 and to
within 1e-4 of every end; where values overflow (exp), the ends are where float32 or float64 ends. In half precision they stay within 8 and keep 1/20
from the ends, so that intermediate results stay in the range of float16 and numbers do not round to an end. `room` is how far each element may move
and stay inside.

The rows are shipped because the conformance kit for new backends runs over them; minidl's own suite runs over the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minidl.arrays.composites
import minidl.arrays.special
import minidl.arrays.windows
import minidl.fft
import minidl.nn
import minidl.quantize
import minidl.random  # noqa: F401  as those of md.fft and md.linalg, their primitives have rows here
from minidl import custom_jvp, dtypes, scan, switch, while_loop
from minidl.extend import Body, aval, bind, constant, ns, table, vjp_graph
from minidl.idioms.jax import collectives
from minidl.linalg import phases

Array = np.ndarray
Draw = Callable[[np.random.Generator, tuple[int, ...], np.dtype], tuple[Array, Array | None]]
inf = math.inf


def _size(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> Array:
    return 10 ** rng.uniform(low, high, shape)


def interval(*ends: float, reach: float = 1e4) -> Draw:
    """Values between consecutive ends (all reals without any), and the distance to the nearest end. An end "L" is where exp ends.

    >>> import numpy
    >>> values, room = md.testing.interval(0.0, 1.0)(numpy.random.default_rng(0), (3,), numpy.dtype("f8"))
    >>> values.shape
    (3,)
    """

    def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, Array]:
        if dtype.kind == "c":  # any number off both axes, on which all branch cuts lie
            parts = [rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 2, shape) for _ in "ri"]
            z = (parts[0] + 1j * parts[1]).astype(dtype)
            return z, np.minimum(abs(z.real), abs(z.imag))
        half = dtype.itemsize == 2
        limit = 8.0 if half else 80.0 if dtype == np.float32 else 600.0
        e = [limit * math.copysign(1, v) if abs(v) == 999 or (half and 8 < abs(v) < inf) else v for v in (ends or (-inf, inf))]
        k = rng.integers(0, len(e) - 1, shape)
        lo, hi = np.array(e[:-1])[k], np.array(e[1:])[k]
        span = np.where(np.isfinite(hi - lo), hi - lo, 1.0)
        low = -1.3 if half else -4
        near = np.where(rng.random(shape) < 0.3, _size(rng, shape, low, -1), rng.uniform(0.1, 0.5, shape)) * span
        far = _size(rng, shape, low, math.log10(min(reach, 8.0) if half else reach))
        free = rng.choice([-1.0, 1.0], shape) * np.where(rng.random(shape) < 0.6, rng.uniform(0.1, 3, shape), far)
        both, up = np.isfinite(lo) & np.isfinite(hi), rng.random(shape) < 0.5
        with np.errstate(all="ignore"):
            x = np.where(both, np.where(up, hi - near, lo + near), np.where(np.isfinite(lo), lo + far, np.where(np.isfinite(hi), hi - far, free)))
        x = x.astype(dtype)
        room = 0.25 * np.maximum(1, abs(x)).astype(np.float64)
        for v in e:
            if math.isfinite(v):
                room = np.minimum(room, abs(x.astype(np.float64) - v))
        return x, room

    return draw


def lattice(offset: float = 0.0) -> Draw:
    """Between neighbours of the lattice of integers (shifted by offset).

    >>> callable(md.testing.lattice())
    True
    """

    def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, Array]:
        part = rng.uniform(0.05, 0.95, shape)
        x = (rng.integers(-5, 5, shape) + offset + part).astype(dtype)
        return x, np.minimum(part, 1 - part) * 0.9

    return draw


def whole(low: int, high: int) -> Draw:
    """Integers, which do not move: indices and exponents."""
    return lambda rng, shape, dtype: (rng.integers(low, high, shape).astype(dtype), None)


def index(high: int) -> Draw:
    """int64 positions, with duplicates."""
    return lambda rng, shape, dtype: (rng.integers(0, high, shape), None)


def flags(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, None]:
    """True and False."""
    return rng.random(shape) < 0.5, None


def words(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, None]:
    """Random uint32."""
    return rng.integers(0, 2**32, shape, dtype=np.uint32), None


def fixed(value: Any) -> Draw:
    """A given array, which does not move."""
    return lambda rng, shape, dtype: (np.asarray(value), None)


REAL, POSITIVE, NOT_ZERO, UNIT, EXP = interval(), interval(0, inf), interval(-inf, 0, inf), interval(-1, 1), interval(-999, 999)
TAME = interval(reach=3)  # for products of several values, so that no element hides the others


def apart(x: list[Array], rooms: list[Any]) -> list[Any]:
    """No two elements may meet: for everything that chooses one of them."""
    values = np.sort(np.concatenate([v.reshape(-1) for v, r in zip(x, rooms, strict=True) if r is not None]).astype(np.float64))
    gap = 0.4 * np.min(np.diff(values)) if values.size > 1 else 1.0
    return [None if r is None else np.minimum(r, gap) for r in rooms]


class Row:
    """A primitive with params, shapes and the domain of each argument.

    dtypes: what it is tried in; keep: narrows the rooms of arguments that depend on each other; make: draws the arguments together instead;
    call: another way to apply it (control flow); exact: every backend must give NumPy's bits for real numbers; floor: the
    least size by which roundings of the value are counted.

    >>> md.testing.Row("sin", ((2,),), (md.testing.interval(),)).name
    'sin'
    """

    def __init__(
        self, name: str, shapes: Sequence[tuple[int, ...]], domains: Sequence[Draw], dtypes: str = "float64 float32", label: str = "",
        keep: Any = None, make: Any = None, call: Any = None, exact: bool = False, floor: float = 0.0, **params: Any,
    ):  # fmt: skip
        self.name, self.shapes, self.domains, self.dtypes = name, tuple(shapes), tuple(domains), tuple(dtypes.split())
        self.label, self.keep, self.make, self.call, self.exact, self.floor, self.params = label, keep, make, call, exact, floor, params

    def __repr__(self) -> str:
        return f"{self.name}-{self.label}" if self.label else self.name

    def apply(self, *args: Any) -> tuple[Any, ...]:
        """The outputs, as a tuple of Tensors."""
        out = self.call(*args) if self.call else bind(table[self.name], args, self.params)
        return tuple(out) if isinstance(out, (tuple, list)) else (out,)

    def draw(self, seed: int, dtype: str) -> tuple[list[Array], list[Array | None]]:
        """Arguments as NumPy arrays, and how far each may move (None: it is no float, or does not move)."""
        rng, kind = np.random.default_rng(seed), dtypes.canonical(dtype).numpy
        if self.make is not None:
            xs, rooms = self.make(rng, kind)
        else:
            pairs = [d(rng, s, kind) for d, s in zip(self.domains, self.shapes, strict=True)]
            xs, rooms = [p[0] for p in pairs], [p[1] for p in pairs]
        xs = [np.asarray(x) for x in xs]
        return xs, self.keep(xs, rooms) if self.keep else rooms


ROWS: list[Row] = []


def row(name: str, shapes: Any, domains: Any, *more: Any, **options: Any) -> None:
    """Add a row; one shape or domain stands for one argument."""
    several = [shapes] if not shapes or isinstance(shapes[0], int) else shapes
    if not callable(domains) and not domains:
        several = []
    ROWS.append(Row(name, several, [domains] * len(several) if callable(domains) else domains, *more, **options))


# ---- elementwise ----------------------------------------------------------------------------------------------------------------------
HALF_PI = math.pi / 2
GAMMA = interval(-3, -2, -1, 0, inf)
for _names, _domain, _types in (
    ("exp expm1 sinh cosh", EXP, "float64 float32 complex128"),
    ("log log2 log10 sqrt rsqrt", POSITIVE, "float64 float32 complex128"),
    ("log1p", interval(-1, inf), "float64 float32 complex128"),
    ("sin cos", interval(reach=100), "float64 float32 complex128"),
    ("tan", interval(*(HALF_PI * k for k in range(-5, 6, 2))), "float64 float32 complex128"),
    ("asin acos atanh", UNIT, "float64 float32 complex128"),
    ("acosh", interval(1, inf), "float64 float32 complex128"),
    ("atan asinh tanh sigmoid", REAL, "float64 float32 complex128"),
    ("softplus erf erfc", REAL, "float64 float32"),
    ("erfinv", UNIT, "float64 float32"),
    ("lgamma digamma", GAMMA, "float64 float32"),
    ("neg square conj", REAL, "float64 float32 complex128 int64"),
    ("real imag", REAL, "float64 float32 complex128"),
    ("abs sign", NOT_ZERO, "float64 float32 complex128 int64"),
    ("relu", NOT_ZERO, "float64 float32 int64"),
    ("floor ceil trunc", lattice(), "float64 float32 int64"),
    ("round", lattice(0.5), "float64 float32 int64"),
    ("isnan isinf isfinite", REAL, "float64 float32 complex128"),
    ("signbit", REAL, "float64 float32 int64"),
):
    for _name in _names.split():
        row(_name, (2, 3), _domain, _types, exact=_name in "neg conj real imag abs sign relu floor ceil trunc round".split())
for _n in (1, 2):
    row("polygamma", (2, 3), GAMMA, label=f"n{_n}", n=_n)
for _n in (0, 1, 2):
    row("bessel_i", (2, 3), interval(-80, 0, 80), label=f"n{_n}", n=_n)
for _p in (2, 3, 1.5):
    row("root", (2, 3), POSITIVE, label=f"p{_p}", p=_p)

WIDE, SAME = ((2, 3), (3,)), ((2, 3), (2, 3))
for _name, _domains in {"add": REAL, "sub": REAL, "mul": REAL, "div": (REAL, NOT_ZERO)}.items():
    row(_name, WIDE, _domains, "float64 float32 complex128" + " int64" * (_name != "div"))
    row(_name, ((1, 3), (2, 1)), _domains, label="outer")
for _name in "maximum minimum fmax fmin".split():
    row(_name, WIDE, REAL, "float64 float32 int64", keep=apart, exact=True)
row("atan2", WIDE, NOT_ZERO)
row("hypot", WIDE, NOT_ZERO)
row("cosine", WIDE, NOT_ZERO)
row("logaddexp", WIDE, REAL)
row("copysign", WIDE, NOT_ZERO)
row("nextafter", WIDE, (REAL, fixed(np.array([9e9, -9e9, 9e9]))), "float64")
row("xlogy", WIDE, (REAL, POSITIVE))


def _quotient(rng: np.random.Generator, dtype: np.dtype) -> Any:
    """x / y between two integers."""
    room_y: Any
    room_q: Any
    y, room_y = NOT_ZERO(rng, (2, 3), dtype)
    q, room_q = lattice()(rng, (2, 3), np.dtype(np.float64))
    x = (q * y).astype(dtype)
    return [x, y], [0.3 * abs(y) * room_q, 0.3 * np.minimum(room_y, room_q * abs(y) / (abs(q) + 1))]


def _power(rng: np.random.Generator, dtype: np.dtype) -> Any:
    """x ** y that neither overflows nor underflows."""
    x, room = interval(0, inf)(rng, (2, 3), dtype)
    most = np.minimum((5 if dtype.itemsize == 2 else 70 if dtype == np.float32 else 500) / np.maximum(abs(np.log(x)), 1e-3), 1e3)
    y = (rng.uniform(-1, 1, (2, 3)) * most).astype(dtype)
    return [x, y], [room, np.full((2, 3), 0.25)]


row("floor_divide", SAME, (REAL, REAL), make=_quotient, exact=True)
row("remainder", SAME, (REAL, REAL), make=_quotient)
row("floor_divide", WIDE, whole(-9, 9), "int64", label="int")
row("remainder", WIDE, whole(-9, 9), "int64", label="int")
row("pow", SAME, (REAL, REAL), make=_power)
row("pow", WIDE, (NOT_ZERO, whole(-3, 4)), label="negative-base")
row("pow", WIDE, (REAL, REAL), "complex128", label="complex")
row("pow", WIDE, whole(-3, 5), "int64", label="int")
row("where", ((2, 3), (2, 1), (3,)), (flags, REAL, REAL), "float64 float32 complex128 int64", exact=True)
row("clip", (2, 3), interval(-inf, -0.5, 1.25, inf), "float64 float32", exact=True, call=lambda x: ns.clip(x, -0.5, 1.25))
for _name in "eq ne lt le gt ge".split():
    row(_name, WIDE, whole(-2, 3), "float64 float32 int64" + " complex128" * (_name in ("eq", "ne")))
for _name in "logical_and logical_or logical_xor".split():
    row(_name, WIDE, flags, "bool")
row("logical_not", (2, 3), flags, "bool")
for _name in "bitwise_and bitwise_or bitwise_xor".split():
    row(_name, WIDE, whole(-99, 99), "int64 int32")
    row(_name, WIDE, flags, "bool", label="bool")
row("bitwise_invert", (2, 3), whole(-99, 99), "int64 int32")
row("shift_left", WIDE, whole(0, 20), "int64 int32")
row("shift_right", WIDE, (whole(-99, 99), whole(0, 9)), "int64 int32")
row("threefry2x32", ((2, 3), (3,), (2, 3), ()), words, "uint32")
row("coins", (2,), words, "uint32", shape=(3, 5), most=2**30 + 5)
row("kept", ((2, 1), (2, 3)), (flags, REAL), "float64 float32 complex128", scale=1.25)
row("cast", (2, 3), REAL, "float64 float32", label="complex", dtype=dtypes.complex128)
row("cast", (2, 3), REAL, "complex128", label="real", dtype=dtypes.float64)
row("cast", (2, 3), REAL, "float32 int64", label="float", dtype=dtypes.float64)
row("cast", (2, 3), REAL, "float64 float32", label="int", dtype=dtypes.int64)
row("bitcast", (2, 3), REAL, "float64", dtype=dtypes.int64)
row("full", (), (), "float64", shape=(2, 3), value=1.5, dtype=dtypes.float32)
row("iota", (), (), "int64", size=5, dtype=dtypes.int64)

# ---- indexing -------------------------------------------------------------------------------------------------------------------------
row("gather", ((4, 3), (2, 2)), (REAL, index(4)), "float64 float32 complex128 int64", exact=True)
for _mode in ("set", "add", "mul", "min", "max"):
    row("scatter", ((4, 3), (5, 3), (5,)), (TAME, TAME, index(4)), label=_mode, mode=_mode, keep=apart if _mode in ("min", "max") else None)
row("take_along", ((2, 4), (2, 5)), (REAL, index(4)), axis=1, exact=True)
row("put_along", ((4, 2), (3, 2), (3, 2)), (TAME, index(4), TAME), axis=0, mode="add")

# ---- reductions and what runs along an axis ---------------------------------------------------------------------------------------------
row("sum", (2, 3, 2), REAL, "float64 float32 complex128 int64 int8", axis=(0, 2), keepdims=False)
row("sum", (2, 3), REAL, label="keepdims", axis=(1,), keepdims=True)
for _keep in (False, True):
    row("prod", (3, 4), TAME, "float64 float32 complex128 int8", label="keepdims" * _keep, axis=(1,), keepdims=_keep)
    for _name in ("max", "min"):
        row(
            _name,
            (3, 4),
            REAL,
            "float64 float32 int64",
            label="keepdims" * _keep,
            keep=apart,
            exact=True,
            axis=(0, 1) if _keep else (1,),
            keepdims=_keep,
        )
    # the rounding of the sum of exponentials, which is at least 1, is absolute in its logarithm
    row("logsumexp", (3, 4), REAL, label="keepdims" * _keep, floor=1.0, axis=(0,), keepdims=_keep)
row("prod", (2, 3), fixed(np.array([[2.0, 0.0, -1.5], [0.0, 0.0, 3.0]])), "float64", label="zeros", axis=(1,), keepdims=False,
    make=lambda rng, dtype: ([np.array([[2.0, 0.0, -1.5], [0.0, 0.0, 3.0]])], [np.array([[0.3, 0.2, 0.3], [0.3, 0.25, 0.3]])]))  # fmt: skip
for _name in ("any", "all"):
    row(_name, (2, 3), flags, "bool", axis=(1,), keepdims=False)
for _name in ("argmax", "argmin"):
    row(_name, (3, 4), REAL, "float64 float32 int64", axis=1, keepdims=False)
for _reverse in (False, True):
    for _name, _domain, _types in (
        ("cumsum", REAL, "float64 float32 complex128 int64 int8"), ("cumprod", TAME, "float64 float32 complex128 int8"),
        ("cumlogsumexp", REAL, "float64 float32"),
    ):  # fmt: skip
        row(_name, (3, 4), _domain, _types, label="reverse" * _reverse, axis=int(not _reverse), reverse=_reverse)
    for _name in ("cummax", "cummin"):
        row(_name, (3, 4), REAL, label="reverse" * _reverse, keep=apart, axis=int(not _reverse), reverse=_reverse)
    row("argtopk", (3, 9), REAL, "float64 float32 int64", label="largest" * _reverse, axis=1, k=2, largest=_reverse)
    row("argsort", (3, 4), REAL, "float64 float32 int64", label="descending" * _reverse, axis=int(not _reverse), descending=_reverse)
row("softmax", (3, 4), REAL, axis=1)
row("log_softmax", (3, 4), REAL, floor=1.0, axis=0)
row("log_softmax", (2, 3, 2), REAL, "float64", label="middle", floor=1.0, axis=1)
row("log_softmax_at", ((3, 4), (3,)), (REAL, index(4)), floor=1.0, axis=1)
row("log_softmax_at", ((2, 3, 2), (2, 2)), (REAL, index(3)), "float64", label="middle", floor=1.0, axis=1)
row("log_softmax_at_dx", ((3,), (3, 4), (3,)), (REAL, REAL, index(4)), floor=1.0, axis=1)
row("relu_dx", ((2, 3), (2, 3)), (REAL, NOT_ZERO))
row("clip_dx", ((2, 3), (2, 3)), (REAL, interval(-inf, -0.5, 1.25, inf)), exact=True, call=lambda g, x: ns.clip_dx(g, x, -0.5, 1.25))
for _name in ("tanh_dx", "sigmoid_dx"):
    row(_name, ((2, 3), (3,)), REAL, "float64 float32 complex128")

# ---- rearrangement ----------------------------------------------------------------------------------------------------------------------
MOVED = "float64 float32 complex128 int64"
row("reshape", (2, 3), REAL, MOVED, shape=(3, 2), exact=True)
row("barrier", ((2, 3), (4,)), REAL, MOVED, exact=True)
row("stop", (2, 3), NOT_ZERO, "float64 float32", call=lambda x: ns.stop(ns.sign(x)), exact=True)
row("instead", (2, 3), REAL, "float64 float32", call=lambda x: ns.instead(x, ns.stop(x)), exact=True)
row("permute", (2, 3, 4), REAL, MOVED, axes=(2, 0, 1), exact=True)
row("broadcast_to", (3, 1), REAL, MOVED, shape=(2, 3, 4))
row("flip", (2, 3), REAL, MOVED, axes=(0, 1), exact=True)
row("slice", (5, 4), REAL, MOVED, start=(1, 0), stop=(5, 3), step=(2, 1), exact=True)
row("unslice", (2, 3), REAL, MOVED, shape=(5, 4), start=(1, 0), stop=(5, 3), step=(2, 1), exact=True)
row("paste", ((5, 4), (2, 3)), REAL, MOVED, start=(1, 0), stop=(5, 3), step=(2, 1), exact=True)
row("pad", (2, 3), REAL, "float64 float32 complex128", widths=((1, 0), (0, 2)), value=1.5, exact=True)
row("tril", (3, 4), REAL, MOVED, k=1, exact=True)
row("triu", (2, 4, 3), REAL, MOVED, k=-1, exact=True)
row("concat", ((2, 3), (1, 3), (4, 3)), REAL, MOVED, axis=0, exact=True)

# ---- matrices ---------------------------------------------------------------------------------------------------------------------------


def _matrices(dtypes: str, positive: bool = False, right: bool = False) -> dict[str, Any]:
    """Two matrices far from singular (positive definite), and right sides."""

    def make(rng: np.random.Generator, dtype: np.dtype) -> Any:
        a: Any = rng.uniform(-1, 1, (2, 3, 3)) + (1j * rng.uniform(-1, 1, (2, 3, 3)) if dtype.kind == "c" else 0)
        a = 0.5 * (a + a.swapaxes(1, 2)) + 4 * np.eye(3) if positive else a + rng.choice([-4, 4], (2, 3, 1)) * np.eye(3)
        xs = [a, rng.uniform(-2, 2, (2, 3, 2))] if right else [a]
        return [x.astype(dtype) for x in xs], [np.full(x.shape, 0.2) for x in xs]

    return {"shapes": ((2, 3, 3), (2, 3, 2)) if right else (2, 3, 3), "domains": REAL, "dtypes": dtypes, "make": make}


BOTH = "float64 float32 complex128"
for _name in ("det", "cofactor", "logabsdet", "detsign"):
    row(_name, **_matrices(BOTH))
row("cholesky", **_matrices(BOTH, positive=True))
row("solve", **_matrices(BOTH, right=True))
for _label in ("lower", "upper", "lower-transpose", "upper-unit"):
    _how = {"lower": "lower" in _label, "transpose": "transpose" in _label, "unit": "unit" in _label}
    row("triangular_solve", **_matrices(BOTH, right=True), label=_label, **_how)



def _spread(m: int, n: int, dtypes: str, hermitian: bool = False) -> dict[str, Any]:
    """A matrix with singular values (eigenvalues) ±1, ±2, …, whose vectors lean so far from the axes that no element is small."""

    def make(rng: np.random.Generator, dtype: np.dtype) -> Any:
        def vectors(k: int) -> Any:
            lean: Any = rng.choice([-1, 1], (2, k, k)) * rng.uniform(0.15, 0.25, (2, k, k))
            return np.linalg.qr(np.eye(k) + (lean * np.exp(1j * rng.uniform(-1, 1, (2, k, k))) if dtype.kind == "c" else lean))[0]

        u, k = vectors(m), min(m, n)
        v = u if hermitian else vectors(n)
        s = rng.permuted(np.arange(1.0, k + 1) * np.ones((2, 1)), axis=1) * rng.choice([-1, 1], (2, k))
        x = (u[..., :k] * s[:, None, :]) @ v[..., :k].conj().swapaxes(1, 2)
        return [x.astype(dtype)], [np.full(x.shape, 0.03)]

    return {"shapes": (2, m, n), "domains": REAL, "dtypes": dtypes, "make": make}


def _parts(name: str, *ends: int) -> Callable[..., Any]:
    """Eigenvectors or singular vectors with the sign that md.linalg gives them, by their rows; the last row are the values."""

    def call(x: Any) -> Any:
        out = getattr(ns, name)(x)
        rows = [
            ns.slice(out, start=(0, a, 0), stop=(2, b, out.shape[2]), step=(1, 1, 1)) for a, b in zip((0, *ends), (*ends, out.shape[1]), strict=True)
        ]
        phase = phases(rows[0])
        return (*(ns.mul(v, phase) for v in rows[:-1]), ns.real(rows[-1]))

    return call

def _eig(x: Any) -> Any:
    out, n = ns.eig(x), x.shape[-1]
    v, w = (ns.slice(out, start=(0, a, 0), stop=(2, b, n), step=(1, 1, 1)) for a, b in ((0, n), (n, n + 1)))
    v = ns.mul(v, phases(v))
    return ns.div(v, ns.cast(ns.root(ns.sum(ns.square(ns.abs(v)), axis=(1,), keepdims=True), p=2), dtype=v.dtype)), w


for _m, _n, _complete in ((3, 3, False), (3, 2, False), (3, 2, True)):
    row("qr", **_spread(_m, _n, "complex128" if _n < 3 else "float64 float32"), label=f"{_m}x{_n}" + "complete" * _complete, complete=_complete)
row("eigh", **_spread(3, 3, BOTH, hermitian=True), call=_parts("eigh", 3))
row("eig", **_spread(2, 2, "float64 float32 complex128"), call=_eig)
row("eigvals", **_spread(2, 2, "complex128 float32"))
row("eigvalsh", **_spread(3, 3, "complex128 float32", hermitian=True))
for _m, _n, _types in ((2, 2, "float64 float32"), (3, 2, "complex128"), (2, 3, "complex128")):
    row("svd", **_spread(_m, _n, _types), label=f"{_m}x{_n}", call=_parts("svd", _m, _m + _n))
row("svdvals", **_spread(3, 2, "complex128 float32"))
row("pinv", **_spread(3, 2, "complex128 float32"), call=lambda x: ns.pinv(x, ns.mul(ns.real(ns.sum(x, axis=(1, 2), keepdims=False)), 0.0)))

# ---- Fourier transforms -----------------------------------------------------------------------------------------------------------------
for _label, _axes, _inverse, _norm in (("", (1,), False, "backward"), ("inverse", (1,), True, "backward"), ("two", (2, 0), True, "ortho")):
    row("fft", (2, 3, 4), REAL, "complex128", label=_label, axes=_axes, inverse=_inverse, norm=_norm)
for _n, _norm in ((5, "backward"), (4, "ortho"), (1, "forward")):
    row("rfft", (_n, 3), REAL, label=f"n{_n}", axis=0, norm=_norm)
    row("irfft", (2, _n // 2 + 1), REAL, "complex128", label=f"n{_n}", axis=1, n=_n, norm=_norm)

# ---- products and windows -----------------------------------------------------------------------------------------------------------------
row("dot_general", ((2, 3), (3, 4)), REAL, "float64 float32 complex128 int64", label="matrix", contract=((1,), (0,)), batch=((), ()))
row("dot_general", ((4, 2, 3), (3, 5, 4)), REAL, label="batch", contract=((2,), (0,)), batch=((0,), (2,)))
row("dot_general", ((2, 3, 4), (4, 5, 3)), REAL, label="two", contract=((1, 2), (2, 0)), batch=((), ()))
row("dot_general", ((2,), (3,)), REAL, label="outer", contract=((), ()), batch=((), ()))
row("affine", ((2, 3), (4, 3), (4,)), REAL, "float64 float32 complex128", label="matrix")
row("affine", ((3,), (4, 3), (4,)), REAL, label="vector")
row("affine", ((2, 2, 3), (4, 3), (4,)), REAL, label="batch")
row("dot_int8", ((3, 300), (4, 300)), whole(-128, 128), "int8", label="narrow")
row("dot_int8", ((2, 1100), (3, 1100)), whole(-128, 128), "int8", label="wide")
for _label, _x, _w, _out, _window in (
    ("1d", (2, 2, 6), (3, 2, 2), (2, 3, 4), {"stride": (1,), "padding": ((0, 1),), "dilation": (3,), "groups": 1}),
    ("2d", (2, 4, 5, 6), (6, 2, 3, 2), (2, 6, 3, 3), {"stride": (2, 2), "padding": ((1, 1), (0, 0)), "dilation": (1, 1), "groups": 2}),
    ("3d", (1, 1, 3, 4, 3), (2, 1, 2, 2, 2), (1, 2, 2, 2, 2), {"stride": (1, 2, 1), "padding": ((0, 0),) * 3, "dilation": (1, 1, 1), "groups": 1}),
):  # fmt: skip
    row("conv", (_x, _w), REAL, label=_label, **_window)
    row("conv_affine", (_x, _w, _w[:1]), REAL, label=_label, **_window)
    row("conv_dx", (_out, _w), REAL, label=_label, x_shape=_x, **_window)
    row("conv_dw", (_x, _out), REAL, label=_label, w_shape=_w, **_window)
POOL = {"window": (3, 2), "stride": (2, 2), "padding": ((1, 1), (0, 0)), "dilation": (1, 1)}
row("max_pool", (2, 2, 5, 4), REAL, keep=apart, **POOL)
row("pool_gather", ((2, 5, 4), (2, 3, 2)), (REAL, fixed(np.full((2, 3, 2), 2))), **POOL)
row("pool_scatter", ((2, 3, 2), (2, 3, 2)), (REAL, fixed(np.full((2, 3, 2), 2))), x_shape=(2, 5, 4), **POOL)


# ---- compositions -------------------------------------------------------------------------------------------------------------------------
for _tanh in (False, True):
    row("gelu", (2, 3), REAL, label="tanh" * _tanh, tanh=_tanh)
    row("gelu_dx", ((2, 3), (3,)), REAL, label="tanh" * _tanh, tanh=_tanh)
for _name in ("silu", "hardswish"):
    row(_name, (2, 3), REAL)
    row(f"{_name}_dx", ((2, 3), (3,)), REAL)
NORM = {"eps": 1e-5}


def _normalised(name: str, rank: int) -> Callable[..., Any]:
    """A derivative of layer_norm at the statistics that belong to x."""

    def call(g: Any, x: Any, *w: Any) -> Any:
        one = w[0] if w else ns.sum(x, axis=tuple(range(x.ndim - rank)), keepdims=False)
        _, mean, rstd = ns.layer_norm(x, one, one, **NORM)
        return getattr(ns, name)(g, x, *w, mean, rstd, **NORM, **({} if w else {"rank": rank}))

    return call


for _label, _shapes in {"": ((2, 3, 4), (4,), (4,)), "rank2": ((2, 3, 2), (3, 2), (3, 2))}.items():
    row("layer_norm", _shapes, TAME, label=_label, call=lambda x, w, b: ns.layer_norm(x, w, b, **NORM)[0])
row("layer_norm_dx", ((2, 4), (2, 4), (4,)), TAME, call=_normalised("layer_norm_dx", 1), **NORM)
row("layer_norm_dw", ((2, 4), (2, 4)), TAME, call=_normalised("layer_norm_dw", 1), **NORM)

QKV = ((2, 1, 3, 2), (2, 1, 4, 2), (2, 1, 4, 2))
HIDDEN = np.array([[0.0, -inf, 0.5, 0.0], [-inf, -inf, -inf, -inf], [0.0, 0.0, 0.0, -inf]])


def _attended(**params: Any) -> Callable[..., Any]:
    """The gradient of attention at the results that belong to q, k, v."""

    def call(g: Any, q: Any, k: Any, v: Any, *m: Any) -> Any:
        return ns.attention_grad(g, q, k, v, *(m or (0.0,)), *ns.attention(q, k, v, *(m or (0.0,)), **params), **params)

    return call




def _attention(causal: bool = False) -> Callable[..., Any]:
    return lambda q, k, v, mask=0.0: ns.attention(q, k, v, mask, scale=0.5, causal=causal)[0]


row("attention", QKV, TAME, call=_attention())
row("attention", QKV, TAME, label="causal", call=_attention(True))
row("attention", ((2, 3, 2), (2, 4, 2), (2, 4, 3), (1, 3, 4)), TAME, label="bias", call=_attention())
row("attention", (*QKV, (3, 4)), (TAME, TAME, TAME, fixed(HIDDEN)), label="hidden-row", call=_attention())
row("attention_grad", (QKV[0], *QKV), TAME, call=_attended(scale=0.5, causal=False))
row("attention_grad", ((3, 3), (3, 2), (4, 2), (4, 3), (3, 4)), TAME, label="bias", call=_attended(scale=0.5, causal=True))


# ---- control flow and lanes: applied through md.scan, vmap and their kin, which carry the derivatives --------------------------------------
def _scan(h: Any, w: Any, xs: Any) -> Any:
    return scan(lambda c, x: (ns.tanh(ns.add(ns.mul(w, c), x)), ns.mul(c, x)), h, xs)


def _while(x: Any, limit: Any) -> Any:
    return while_loop(lambda v: ns.lt(ns.sum(v, axis=(0,), keepdims=False), limit), lambda v: ns.add(ns.mul(v, v), 1.0), x)


def _cond(which: Any, x: Any, y: Any) -> Any:
    return switch(which, [lambda a, b: ns.mul(a, b), lambda a, b: ns.add(ns.sin(a), b)], x, y)


def _custom(x: Any, y: Any) -> Any:
    f = custom_jvp(lambda a, b: ns.sin(ns.mul(a, b)))
    f.defjvp(lambda p, t: (f(*p), ns.mul(ns.cos(ns.mul(*p)), ns.add(ns.mul(t[0], p[1]), ns.mul(p[0], t[1])))))
    return scan(lambda c, a: (f(c, a), ns.add(c, a)), x, y)


def _across(x: Any, y: Any) -> Any:
    return collectives.vmap(lambda a, b: ns.mul(collectives.psum(ns.mul(a, b), "lanes"), a), axis_name="lanes")(x, y)


def _leaky(backwards: bool, x: Any, *g: Any) -> Any:
    body = Body(lambda v: ns.mul(v, ns.where(ns.gt(v, 0.0), constant(v.xp, (), 1.0, v.dtype), 0.25)), [aval(x)]).graph
    how: dict[str, Any] = {"kernel": "leaky_relu", "static": (0.25,), "there": (True,)}
    if backwards:
        return ns.by_kernel_dx(x, *g, body=vjp_graph(body, [True], [True]), **how, wanted=(True,), used=(True,))[0]
    return ns.by_kernel(x, body=body, **how)[0]


row("across", ((3, 2), (3, 2)), TAME, call=_across)
row("by_kernel", (2, 3), NOT_ZERO, "float64 float32", call=functools.partial(_leaky, False))
row("by_kernel_dx", ((2, 3), (2, 3)), (NOT_ZERO, REAL), "float64 float32", call=functools.partial(_leaky, True))
row("custom", ((3,), (2, 3)), TAME, call=_custom)
row("scan", ((3,), (3,), (4, 3)), TAME, call=_scan)
row("while_loop", ((3,), ()), (interval(0.2, 0.9), fixed(1e4)), "float64", call=_while)
row("cond", ((), (3,), (3,)), (index(2), REAL, REAL), "float64", call=_cond)


@functools.cache
def uncovered() -> tuple[str, ...]:
    """Primitives of the table without a row.

    >>> md.testing.uncovered()
    ()
    """
    have = {r.name for r in ROWS}
    return tuple(n for n in table if n not in have)
