"""Every function of the Array API standard that makes floats of floats, linear algebra and Fourier transforms included, differentiates in both modes.

A case is a call with arguments at which the function is smooth (degenerate points are in minidl/testing/kinks.py). A loss weighs every element of
every output with numbers of its own, linearly and squared, so that no order of derivative is lost. On the NumPy backend the tape, the functional
gradient and the traced one, forward mode, vmap of the gradient, and both ways to a product with the Hessian are held to finite differences of fourth
order along a random direction. The other backends run the same in compiled programs, also under vmap, and must give those numbers.

The names come from array_api_signatures.txt: one that has neither a case nor a place in NO_DERIVATIVE fails.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl as md

la, fft = md.linalg, md.fft
LINES = (Path(__file__).resolve().parent / "array_api_signatures.txt").read_text().splitlines()
NAMES = {m[1] for line in LINES if (m := re.match(r"([\w.]+)\(", line))}
#: Functions of no floats, or whose results are whole numbers, truth values, dtypes or Python objects.
NO_DERIVATIVE = set(
    """
    arange empty empty_like eye from_dlpack ones ones_like zeros zeros_like can_cast finfo iinfo isdtype result_type bitwise_and bitwise_left_shift
    bitwise_invert bitwise_or bitwise_right_shift bitwise_xor equal greater greater_equal isfinite isinf isnan less less_equal logical_and logical_not
    logical_or logical_xor not_equal signbit broadcast_shapes argmax argmin count_nonzero nonzero searchsorted isin unique_counts unique_inverse
    argsort all any __array_namespace_info__ linalg.matrix_rank fft.fftfreq fft.rfftfreq
    """.split()
) | {n for n in NAMES if n.startswith("info.")}
NO_DERIVATIVE |= {
    f"array.__{n}__"
    for n in "and array_namespace bool complex dlpack dlpack_device eq float ge gt index int invert le lshift lt ne or rshift xor".split()
}

# ---- arguments --------------------------------------------------------------------------------------------------------------------------
_rng = np.random.default_rng(4)


def _apart(shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Values between the ends, no two near each other, near a whole number or near a half."""
    n = int(np.prod(shape))
    x = np.linspace(low, high, n)
    x += np.where(abs(2 * x - np.round(2 * x)) < 0.06, 0.05, 0.0)
    return _rng.permutation(x).reshape(shape)


_square = _apart((3, 3), -1.9, 2.1) + 4 * np.diag([1.0, -1.3, 1.7])
_complex = lambda x, y: x + 1j * y
#: Letters for arguments: real, positive, in (-1, 1), beyond 1; rows and vectors; matrices; complex ones of the same shapes in capitals.
ARGS = {
    "a": _apart((2, 3), -2.3, 2.2), "b": _apart((2, 3), -1.7, 2.65), "r": _apart((3,), -1.1, 1.9), "p": _apart((2, 3), 0.3, 2.4),
    "q": _apart((2, 3), 0.45, 1.9), "u": _apart((2, 3), -0.85, 0.9), "g": _apart((2, 3), 1.2, 3.1), "v": _apart((5,), -1.45, 2.1),
    "w": _apart((5,), -2.1, 1.3), "s": _square, "t": np.stack([_square, _square.T[::-1] - 0.3]), "c": _apart((4, 3), -2.2, 2.9),
    "d": _apart((3, 4), -1.3, 2.2), "n": np.array(0.7), "m": np.array(1.6), "e": _apart((2, 3, 4), -2.7, 2.8),
    "A": _complex(_apart((2, 3), -2.3, 2.2), _apart((2, 3), 0.3, 1.9)), "B": _complex(_apart((2, 3), 0.4, 2.2), _apart((2, 3), -1.9, 1.4)),
    "R": _complex(_apart((3,), -1.1, 1.9), _apart((3,), 0.2, 1.4)), "V": _complex(_apart((5,), -1.45, 2.1), _apart((5,), -1.2, 1.9)),
    "W": _complex(_apart((5,), -2.1, 1.3), _apart((5,), -1.3, 2.2)), "S": _complex(_square, _apart((3, 3), -0.9, 1.1)),
    "T": np.stack([_complex(_square, _apart((3, 3), -0.9, 1.1)), _complex(_square.T, _apart((3, 3), -0.7, 1.2))]),
    "C": _complex(_apart((4, 3), -2.2, 2.9), _apart((4, 3), -1.2, 1.9)), "E": _complex(_apart((2, 3, 4), -2.7, 2.8), _apart((2, 3, 4), -1.1, 1.8)),
    "D": _complex(_apart((3, 4), -1.3, 2.2), _apart((3, 4), -0.8, 1.2)), "N": np.array(0.7 - 0.4j),
}  # fmt: skip


# ---- cases ------------------------------------------------------------------------------------------------------------------------------
def definite(x: Any) -> Any:
    """A positive definite matrix of any one."""
    return x @ md.conj(la.matrix_transpose(x)) + 0.1 * md.eye(3, dtype=x.dtype)


def hermitian(x: Any) -> Any:
    return x + md.conj(la.matrix_transpose(x))


def assigned(x: Any, key: Any, value: Any) -> Any:
    y = x * 1.0
    y[key] = value
    return y


def inplace(x: Any, y: Any) -> Any:
    z, u = x * 1.0, x * 1.0
    z += y
    z *= y
    z -= x
    z /= y * y + 1.0
    u **= 2
    u @= la.matrix_transpose(y) @ y
    return z, u


CASES: dict[str, list[tuple[Callable[..., Any], str]]] = {}


def case(name: str, f: Callable[..., Any], *arguments: str) -> None:
    """f is held to its derivatives at each of these argument lists, a letter for each argument."""
    CASES.setdefault(name, []).extend((f, letters) for letters in arguments)


for _line in """
    abs a A; acos u A; acosh g A; asin u A; asinh a A; atan a A; atanh u A; ceil a; conj a A; cos a A; cosh a A; exp a A; expm1 a A; floor a; imag A
    log p A; log1p p A; log2 p A; log10 p A; negative a A; positive a A; real a A; reciprocal p A; round a A; sign a A; sin a A; sinh a A; square a A
    sqrt p A; tan u A; tanh a A; trunc a; add ab ar AB aB AR na; atan2 ab ar; copysign ab; divide ap AB aB Ar nq; floor_divide ap; hypot ab ar
    logaddexp ab ar; maximum ab aq; minimum ab aq; multiply ab ar AB aB AR nA; nextafter ab; pow pb pr AB pA An; remainder ap; subtract ab AB aB nA
    matrix_transpose a A t; broadcast_arrays ar AR nb; flip a A; meshgrid rv RV; vecdot ab ar AB aB; linalg.det s S t; linalg.inv s S t T
    linalg.slogdet s S t; linalg.matrix_transpose t T; linalg.outer vw VW vW; linalg.diagonal t S; linalg.trace t S; linalg.vecdot ab AB
    linalg.svdvals c C t; linalg.pinv c C; linalg.matmul td sD TS; matmul td sD TS vV; linalg.vector_norm a A; linalg.matrix_norm c C
    fft.fft a A; fft.ifft a A; fft.fftn a E; fft.ifftn a E; fft.rfft e; fft.irfft E; fft.rfftn e; fft.irfftn E; fft.hfft A; fft.ihfft e
    fft.fftshift a A; fft.ifftshift a A; sort a; tril s T; triu s T; cumulative_sum v V; cumulative_prod v V; max a; min a; mean a A; prod a A
    std a A; sum a A; var a A; diff a A; linalg.solve td TD; linalg.cross ab AB ar
""".replace("\n", ";").split(";"):
    if _line.strip():
        _name, *_letters = _line.split()
        _home = {"linalg": la, "fft": fft}.get(_name.partition(".")[0], md)
        case(_name, getattr(_home, _name.rpartition(".")[2]), *_letters)

for _op, _f, _letters in (
    ("abs", lambda x: abs(x), "a A"), ("add", lambda x, y: x + y + (2.0 + x), "ab aB"), ("floordiv", lambda x, y: x // y, "ap"),
    ("getitem", lambda x: (x[0], x[..., 1:], x[::-1, None], x[[1, 0, 1]], x[md.asarray([[0], [1]]), [2, 0]]), "a A"),
    ("getitem", lambda x: x[x > 0.2], "a"), ("matmul", lambda x, y: x @ y, "td sD"), ("mod", lambda x, y: x % y, "ap"),
    ("mul", lambda x, y: x * y * 1.5 + 2.0 * x, "ab aB"), ("neg", lambda x: -x, "a A"), ("pos", lambda x: +x, "a A"),
    ("pow", lambda x, y: x**y + x**3 + 1.3**y, "pb"), ("pow", lambda x: x**-2, "a A"), ("sub", lambda x, y: x - y - (1.0 - x), "ab aB"),
    ("truediv", lambda x, y: x / y + 1.0 / y, "ap AB"), ("to_device", lambda x: x.to_device(x.device), "a"),
    ("setitem", lambda x, r: (assigned(x, 0, r), assigned(x, (slice(None), [2, 0]), r[:2]), assigned(x, (1, 2), r[0] * x[0, 0])), "ar AR"),
    ("setitem", lambda x, y: assigned(x, x > 0.2, y[0, 0]), "ab"), ("setitem", inplace, "ab SS"),
):  # fmt: skip
    case(f"array.{_op}" if _op == "to_device" else f"array.__{_op}__", _f, *_letters.split())

case("asarray", lambda x, n: md.asarray([[x[0, 0], n], [n, 2.0]]), "an")
case("astype", lambda x: md.astype(x, md.complex128), "a")
case("astype", lambda x: md.astype(x, md.complex128, copy=False) * 2j, "A")
case("full", lambda n: md.full((2, 2), n), "n", "N")
case("full_like", lambda x, n: md.full_like(x, n), "an")
case("linspace", lambda n, m: (md.linspace(n, m, 4, dtype=md.float64), md.linspace(n, m, 3, endpoint=False, dtype=md.float64)), "nm")
case("clip", lambda x, y: (md.clip(x, -0.7, 1.1), md.clip(x, y, None), md.clip(x, y - 1.0, y + 0.6), md.clip(x, None, y[0])), "ab")
case("tril", lambda x: (md.tril(x, k=1), md.triu(x, k=-1)), "s")
case("where", lambda x, y: (md.where(x > 0.2, x, y), md.where(x > 0.2, y * 1.0, 0.5)), "ab")
case("where", lambda x, y: md.where(md.real(x) > 0.2, x, y), "AB", "Ab")
case("take", lambda x: (md.take(x, md.asarray([2, 0, 2]), axis=1), md.take(x[0], md.asarray([[1]]))), "a", "A")
case("take_along_axis", lambda x: (md.take_along_axis(x, md.argsort(x, axis=0), axis=0), md.take_along_axis(x, md.asarray([[0], [2]]))), "a")
case("tensordot", lambda x, y: (md.tensordot(x, y, axes=2), md.tensordot(x, y, axes=0), md.tensordot(x, y, axes=((0,), (0,)))), "ab", "AB", "aB")
case("linalg.tensordot", lambda x, y: la.tensordot(x, y, axes=((1, 0), (1, 0))), "ab", "AB")
case("vecdot", lambda x, y: md.vecdot(x, y, axis=0), "AB")
case("broadcast_to", lambda x: md.broadcast_to(x, (2, 2, 3)), "a", "R")
case("concat", lambda x, y: (md.concat([x, y], axis=1), md.concat([x, y * 2.0], axis=None)), "ab", "AB", "aB")
case("expand_dims", lambda x: md.expand_dims(x, (0, 2)), "a", "A")
case("flip", lambda x: md.flip(x, axis=(0, -1)), "e")
case("moveaxis", lambda x: (md.moveaxis(x, 0, 2), md.moveaxis(x, (0, 1), (1, 2))), "e", "E")
case("permute_dims", lambda x: md.permute_dims(x, (2, 0, 1)), "e", "E")
case("repeat", lambda x: (md.repeat(x, 2), md.repeat(x, [2, 0, 3], axis=1), md.repeat(x, np.array([1, 2]), axis=0)), "a", "A")
case("reshape", lambda x: md.reshape(x, (3, -1)), "a", "E")
case("roll", lambda x: (md.roll(x, 2), md.roll(x, (1, -1), axis=(0, 1))), "a", "A")
case("squeeze", lambda x: md.squeeze(md.expand_dims(x, 1), 1), "a", "A")
case("stack", lambda x, y: (md.stack([x, y], axis=-1), md.stack([x, x * 2.0])), "ab", "aB")
case("tile", lambda x: md.tile(x, (2, 1, 2)), "a", "A")
case("unstack", lambda x: md.unstack(x, axis=1), "a", "A")
case("unique_values", lambda x: md.unique_values(x), "a")
case("unique_all", lambda x: md.unique_all(x).values, "a")
case("sort", lambda x: (md.sort(x, axis=0, descending=True), md.sort(x, axis=1)), "a", "e")
for _reduction in (md.max, md.min, md.mean, md.prod, md.sum):
    _kinds = ("e",) if _reduction in (md.max, md.min) else ("e", "E")
    case(_reduction.__name__, lambda x, f=_reduction: (f(x, axis=1), f(x, axis=(0, 2), keepdims=True)), *_kinds)
for _spread in (md.std, md.var):
    case(_spread.__name__, lambda x, f=_spread: (f(x, axis=(0, 1), correction=1), f(x, axis=2, correction=0.5, keepdims=True)), "e", "E")
for _running in (md.cumulative_sum, md.cumulative_prod):
    case(_running.__name__, lambda x, f=_running: (f(x, axis=1, include_initial=True), f(x, axis=0)), "a", "A")
case("sum", lambda x: (md.sum(x, dtype=md.complex128), md.cumulative_sum(x, axis=-1, dtype=md.complex128), md.prod(x, dtype=md.complex128)), "a")
case("diff", lambda x, y: (md.diff(x, n=2), md.diff(x, axis=0, prepend=y, append=y * y)), "ab", "AB")
case("linalg.cholesky", lambda x: (la.cholesky(definite(x)), la.cholesky(definite(x), upper=True)), "s", "S", "t")
case("linalg.cross", lambda x, y: la.cross(x, y, axis=0), "sS", "ss")
case("linalg.diagonal", lambda x: (la.diagonal(x, offset=1), la.trace(x, offset=-1)), "c", "T")
case("linalg.eigh", lambda x: tuple(la.eigh(hermitian(x))), "s", "S", "t")
case("linalg.eigvalsh", lambda x: la.eigvalsh(hermitian(x)), "s", "S", "t")
case("linalg.matrix_power", lambda x: tuple(la.matrix_power(x, n) for n in (-2, -1, 0, 1, 2, 5)), "s", "S")
case("linalg.qr", lambda x: tuple(la.qr(x)), "c", "C", "a", "t")
case("linalg.qr", lambda x: tuple(la.qr(x, mode="complete")), "s", "a")
case("linalg.svd", lambda x: tuple(la.svd(x, full_matrices=False)), "c", "a", "s")
case("linalg.svd", lambda x: tuple(la.svd(x)), "s", "t")
case("linalg.svd", lambda x: tuple(map(md.abs, la.svd(x, full_matrices=False))), "C", "S")
case("linalg.solve", lambda x, y: la.solve(x, y), "sr", "SR", "sR")
case("linalg.matrix_norm", lambda x: tuple(la.matrix_norm(x, ord=o) for o in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)), "c", "C", "t")
case("linalg.matrix_norm", lambda x: la.matrix_norm(x, keepdims=True, ord="nuc"), "t")
case("linalg.vector_norm", lambda x: tuple(la.vector_norm(x, ord=o) for o in (0, 1, 2, 3, 0.5, -1, -2, np.inf, -np.inf)), "v", "V")
_AXES = ((1, 2), ((0, 2), 1), (2, np.inf), (0, 3))
case("linalg.vector_norm", lambda x: tuple(la.vector_norm(x, axis=a, ord=o, keepdims=True) for a, o in _AXES), "e")
case("fft.fft", lambda x: (fft.fft(x, n=2, axis=0, norm="ortho"), fft.ifft(x, n=4, norm="forward")), "a", "A")
case("fft.fftn", lambda x: (fft.fftn(x, s=(2, 5), axes=(0, 2)), fft.ifftn(x, axes=(1,), norm="ortho")), "e", "E")
case("fft.rfft", lambda x: (fft.rfft(x, n=5), fft.rfftn(x, s=(3, 3), axes=(1, 2), norm="ortho"), fft.ihfft(x, n=3, axis=0)), "e")
case("fft.irfft", lambda x: (fft.irfft(x, n=5), fft.irfftn(x, s=(3, 3), axes=(1, 2), norm="forward"), fft.hfft(x, n=3, axis=1)), "E")
case("fft.fftshift", lambda x: (fft.fftshift(x, axes=1), fft.ifftshift(x, axes=(0,))), "a")

PROGRAMS = {f"{name}, {i}, {letters}": (f, letters) for name, fs in CASES.items() for i, (f, letters) in enumerate(fs)}
#: What is eager by nature (the shape of the result depends on values).
EAGER = {k for k in PROGRAMS if k.startswith(("unique", "array.__getitem__, 2"))}


def test_every_name_has_a_case_or_no_derivative():
    assert set(CASES) | NO_DERIVATIVE == NAMES and not set(CASES) & NO_DERIVATIVE


# ---- the loss and its derivatives -------------------------------------------------------------------------------------------------------
def loss(f: Callable[..., Any], *xs: Any) -> Any:
    """A real number that every element of every float output enters with a weight of its own, and once more squared."""
    total = 0.0
    for k, out in enumerate(md.tree.leaves(f(*xs))):
        if out.dtype.inexact:
            w = np.cos(1.0 + 0.9 * k + np.arange(out.size)).reshape(out.shape)
            u = np.sin(0.4 + 1.1 * k + np.arange(out.size)).reshape(out.shape)
            square = out * out
            total = total + md.sum(md.real(square) * md.asarray(w)) + md.sum(md.real(out) * md.asarray(u))
            if not out.dtype.is_float:
                total = total + md.sum(md.imag(out) * md.asarray(w)) + md.sum(md.imag(square) * md.asarray(u))
    return total


def arguments(letters: str) -> list[np.ndarray]:
    return [ARGS[letter] for letter in letters]


def direction(letters: str, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng([seed, len(letters)])
    found = []
    for x in arguments(letters):
        v = rng.uniform(0.4, 1.0, x.shape) * rng.choice([-1.0, 1.0], x.shape)
        found.append(v + 1j * rng.uniform(-1, 1, x.shape) if x.dtype.kind == "c" else v)
    return found


def derivatives(name: str, xs: list[Any], vs: list[Any]) -> dict[str, Any]:
    """The value, the gradient, the slope along v, and the Hessian's product with v, by forward mode over reverse mode."""
    f, _ = PROGRAMS[name]
    numbers = tuple(range(len(xs)))
    gradient = lambda *xs: md.grad(functools.partial(loss, f), argnums=numbers)(*xs)
    value, slope = md.jvp(functools.partial(loss, f), tuple(xs), tuple(vs))
    g, hv = md.jvp(gradient, tuple(xs), tuple(vs))
    return {"value": value, "gradient": list(g), "slope": slope, "hessian": list(hv)}


def inner(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return float(sum(np.sum(np.real(np.conj(x) * y)) for x, y in zip(a, b, strict=True)))


def near(got: Any, want: Any, tolerance: float, what: str) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype, f"{what}: {got.dtype}{got.shape}, wanted {want.dtype}{want.shape}"
    error = np.abs(got - want).max(initial=0.0) / max(1.0, np.abs(want).max(initial=0.0))
    assert error <= tolerance, f"{what}: {got}, wanted {want} (relative error {error:.2g})"


def numpy_of(tree: Any) -> Any:
    return md.tree.map(lambda t: t.numpy() if isinstance(t, md.Tensor) else np.asarray(t), tree)


@functools.cache
def reference(name: str) -> Any:
    """The derivatives on the NumPy backend, eager."""
    letters = PROGRAMS[name][1]
    with md.use_backend("numpy"):
        return numpy_of(derivatives(name, list(map(md.asarray, arguments(letters))), list(map(md.asarray, direction(letters)))))


STEP = 5e-4


def difference(f: Callable[[float], Any]) -> Any:
    """The derivative of f at 0, of fourth order in the step."""
    return (8 * (f(STEP) - f(-STEP)) - (f(2 * STEP) - f(-2 * STEP))) / (12 * STEP)


@pytest.mark.parametrize("name", PROGRAMS)
def test_derivatives_are_those_of_finite_differences(name):
    f, letters = PROGRAMS[name]
    at, along = arguments(letters), direction(letters)
    numbers = tuple(range(len(at)))
    total = functools.partial(loss, f)
    gradient = md.grad(total, argnums=numbers)
    with md.use_backend("numpy"):
        moved = lambda h: [md.asarray(x + h * v) for x, v in zip(at, along, strict=True)]
        found = reference(name)
        slope = difference(lambda h: total(*moved(h)).item())
        near(found["slope"], slope, 1e-8, "forward mode")
        near(inner(found["gradient"], along), slope, 1e-8, "reverse mode")
        hessian = [difference(lambda h, i=i: gradient(*moved(h))[i].numpy()) for i in numbers]
        for got, want, x in zip(found["hessian"], hessian, at, strict=True):
            near(got, want.astype(x.dtype), 1e-7, "forward over reverse")
        # the tape, and reverse over reverse
        leaves = [md.tensor(x, requires_grad=True) for x in at]
        out = total(*leaves)
        assert out.requires_grad
        grads = md.autograd.grad(out, leaves, create_graph=True, retain_graph=True, allow_unused=True)
        out.backward()
        for leaf, g, want in zip(leaves, grads, found["gradient"], strict=True):
            near(leaf.grad.numpy() if leaf.grad is not None else np.zeros_like(want), want, 1e-13, "backward()")
            near(g.detach().numpy() if g is not None else np.zeros_like(want), want, 1e-13, "create_graph")
        product = lambda *xs: sum(md.sum(md.real(md.conj(g) * md.asarray(v))) for g, v in zip(gradient(*xs), along, strict=True))
        for got, want in zip(md.grad(product, argnums=numbers)(*moved(0.0)), found["hessian"], strict=True):
            near(got.numpy(), want, 1e-11, "reverse over reverse")
        # lanes of vmap
        if name not in EAGER:
            lanes = [md.stack([md.asarray(x + h * v) for h in (0.0, 1e-3, 0.0)]) for x, v in zip(at, along, strict=True)]
            batched, apart = md.vmap(gradient)(*lanes), gradient(*moved(1e-3))
            for got, first, second in zip(batched, found["gradient"], apart, strict=True):
                near(got.numpy()[0], first, 1e-12, "vmap of the gradient")
                near(got.numpy()[1], second.numpy(), 1e-12, "vmap of the gradient, another lane")


@pytest.mark.parametrize(
    ("backend", "mode"), [*((b, "traced vmap") for b in ("numpy", "numba", "torch", "jax")), ("torch", "traced")]
)
def test_compiled_derivatives_are_the_same(backend, mode, request):
    """All cases in one program; for numba and jax, which compile for long, each third or tenth unless --nightly is given."""
    every = 1 if request.config.getoption("--nightly") else {"numba": 3, "jax": 10}.get(backend, 1)
    cases = [n for n in PROGRAMS if n not in EAGER][::every]
    stacked = mode == "traced vmap"

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        one = lambda name: (lambda given: derivatives(name, *given))
        return {n: (md.vmap(one(n)) if stacked else one(n))(inputs[n]) for n in cases}

    lane = lambda x: np.stack([x, x * 1.001]) if stacked else x
    with md.use_backend(backend):
        inputs = {n: tuple([md.asarray(lane(x)) for x in make(PROGRAMS[n][1])] for make in (arguments, direction)) for n in cases}
        got = numpy_of(md.jit(run)(inputs))
    wrong = []
    for n in cases:
        for a, b in zip(md.tree.leaves(got[n]), md.tree.leaves(reference(n)), strict=True):
            try:
                near(a[0] if stacked else a, b, 1e-10, n)
            except AssertionError as error:
                wrong.append(str(error))
    assert not wrong, "\n".join(wrong)
