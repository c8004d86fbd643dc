"""minidl as an Array API library: every name with the standard's signature, its dtypes and inspection, its special values on all backends, eager and
compiled. What libraries of the standard make of minidl's tensors is in test_array_api_libraries.py.

The standard's own suite is not fetched here; tests/array_api.sh runs it.
"""

from __future__ import annotations

import inspect
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

import minidl as md

HERE = Path(__file__).resolve().parent
NAMES = [line for line in (HERE / "array_api_signatures.txt").read_text().splitlines() if line.endswith(")") and not line.startswith("#")]
ATTRIBUTES = "T device dtype mT ndim shape size"


# ---- the surface ------------------------------------------------------------------------------------------------------------------------
def _found(path: str) -> object:
    homes = {"info": md.__array_namespace_info__(), "array": md.ones((2, 2))}
    home, _, name = path.rpartition(".")
    return getattr(homes[home] if home in homes else getattr(md, home) if home else md, name)


@pytest.mark.parametrize("line", NAMES, ids=lambda line: line.partition("(")[0])
def test_every_name_has_the_standards_signature(line):
    """Positional arguments in the same places (by name where they may be named), and every keyword. More arguments are allowed."""
    path, _, rest = line.partition("(")
    want = list(inspect.signature(eval(f"lambda {rest[:-1]}: None")).parameters.values())
    have = inspect.signature(_found(path)).parameters
    want = [p for p in want if p.name != "self"]
    places = list(have.values())
    if places and places[0].kind is inspect.Parameter.VAR_POSITIONAL:  # an operation whose code is made when it is first called
        want = [p for p in want if p.kind is not p.POSITIONAL_ONLY]
    for i, p in enumerate(p for p in want if p.kind is not p.KEYWORD_ONLY):
        assert places[i].kind in (p.kind, p.POSITIONAL_OR_KEYWORD), f"{path}: {places[i]} where {p} is wanted"
        assert p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) or places[i].name == p.name, f"{path}: {places[i]} is called {p.name} in the standard"
    for p in want:
        if p.kind is p.KEYWORD_ONLY:
            assert p.name in have and have[p.name].kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD), f"{path} has no keyword {p.name}"
            assert have[p.name].default == p.default or p.default is None or path.endswith("copy"), f"{path}: {p.name} is {p.default!r} by default"


def test_attributes_constants_and_dtypes():
    assert all(hasattr(md.ones((2, 2)), name) for name in ATTRIBUTES.split())
    assert (md.pi, md.e, md.inf, md.newaxis) == (math.pi, math.e, math.inf, None) and math.isnan(md.nan)
    for name in "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128".split():
        dtype = getattr(md, name)
        assert dtype == dtype and not any(dtype == other for other in (None, name, np.dtype(name), 3, [1], object(), md.ones(2))), name
        assert hash(dtype) == hash(getattr(md, name)) and dtype != "no dtype"


def test_the_namespace_says_what_there_is(backend):
    x = md.ones(3)
    assert md.__array_api_version__ == "2025.12"
    for version in (None, "2021.12", "2022.12", "2023.12", "2024.12", "2025.12"):
        assert x.__array_namespace__(api_version=version) is md
    with pytest.raises(ValueError, match=r"version 1999\.01 .* 2025\.12"):
        x.__array_namespace__(api_version="1999.01")
    info = md.__array_namespace_info__()
    assert info.default_device() in info.devices() and isinstance(info.devices(), tuple)
    assert all(md.zeros(1, device=d).device == d for d in info.devices())
    assert info.capabilities() == {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}
    assert md.zeros((1,) * 64).ndim == 64
    assert info.default_dtypes() == {
        "real floating": md.float32, "complex floating": md.complex64, "integral": md.int64, "indexing": md.int64
    }  # fmt: skip
    assert list(info.dtypes(kind=("bool", "unsigned integer"))) == ["bool", "uint8", "uint16", "uint32", "uint64"]
    assert len(info.dtypes()) == 13 and "float16" not in info.dtypes()
    with pytest.raises(ValueError, match="device"):
        info.dtypes(device="moon:1")
    with pytest.raises(ValueError, match="kind"):
        info.dtypes(kind="prime")


def test_devices(backend):
    x = md.arange(3)
    assert x.to_device(x.device) is x and md.astype(x, md.float32, device=x.device).device == x.device
    with pytest.raises(ValueError, match="streams"):
        x.to_device(x.device, stream=1)


@pytest.mark.parametrize("form", ["turned", "Fortran's", "every other", "repeated"])
def test_memory_of_any_form_is_shared_or_copied(backend, form):
    """torch ends the process where strides are negative, and compiled programs of jax refuse axes in another order."""
    x = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    x = {"turned": x[::-1], "Fortran's": np.asfortranarray(x), "every other": x[:, ::2], "repeated": np.broadcast_to(x[0], (4, 6))}[form]
    double = md.jit(lambda x: x * 2.0)
    for read in (md.asarray, md.from_dlpack, lambda x: md.from_dlpack(x, copy=True), lambda x: md.asarray(x, copy=False)):
        assert double(md.asarray(np.ascontiguousarray(x))).tolist() == (x * 2).tolist()
        try:
            found = read(x)
        except ValueError as error:
            assert "copy" in str(error)
        else:
            assert found.tolist() == x.tolist() and double(found).tolist() == (x * 2).tolist()


def test_dlpack_there_and_back(backend):
    x = md.asarray([[1.0, 2.0], [3.0, 4.0]])
    assert tuple(x.__dlpack_device__()) == (1, 0)
    for params in ({}, {"max_version": (0, 0)}, {"max_version": (1, 0)}, {"copy": True}, {"dl_device": (1, 0)}):
        assert x.__dlpack__(**params) is not None, params
    assert np.from_dlpack(x).tolist() == x.tolist() == md.from_dlpack(x).tolist() == md.from_dlpack(x.numpy(), copy=True).tolist()
    with pytest.raises(BufferError, match="detach"):
        md.tensor([1.0], requires_grad=True).__dlpack__()
    with pytest.raises(TypeError, match="__dlpack__"):
        md.jit(lambda v: v.__dlpack__())(x)


# ---- functions that came with the standard ----------------------------------------------------------------------------------------------
def test_diff(backend):
    x = md.asarray([[1.0, 4.0, 9.0], [2.0, 3.0, 5.0]])
    for axis, n in itertools.product((0, 1, -1), range(4)):
        assert np.array_equal(md.diff(x, axis=axis, n=n).numpy(), np.diff(x.numpy(), axis=axis, n=n))
    assert md.diff(x, prepend=md.zeros((2, 1)), append=md.ones((2, 2))).tolist() == [[1, 3, 5, -8, 0], [2, 1, 2, -4, 0]]
    assert md.grad(lambda v: (md.diff(v) * md.asarray([1.0, 10.0])).sum())(md.asarray([1.0, 4.0, 9.0])).tolist() == [-1.0, -9.0, 10.0]
    with pytest.raises(ValueError, match="diff: n is -1"):
        md.diff(x, n=-1)


def test_isin(backend):
    rng = np.random.default_rng(0)
    for dtype, size in itertools.product((np.int32, np.uint8, np.float64), (0, 3, 40)):
        x, y = rng.integers(0, 60, (4, 5)).astype(dtype), rng.integers(0, 60, size).astype(dtype)
        assert np.array_equal(md.isin(md.asarray(x), md.asarray(y)).numpy(), np.isin(x, y))
        assert np.array_equal(md.isin(md.asarray(x), md.asarray(y), invert=True).numpy(), ~np.isin(x, y))
    assert md.isin(3, md.asarray([1, 3])).item() and not md.isin(md.asarray([2]), 3).item()
    assert md.isin(md.asarray([math.nan, 1j]), md.asarray([math.nan, 1j])).tolist() == [False, True]
    candidates = md.arange(20) * 2
    assert md.jit(md.isin)(md.asarray([3, 4]), candidates).tolist() == [False, True]


def test_repeat_by_counts(backend):
    x = np.arange(6.0).reshape(2, 3)
    for counts, axis in (([2, 0, 1], 1), ([1, 3], 0), ([1, 0, 2, 0, 1, 1], None), ([2], 1), (0, 0)):
        want = np.repeat(x, counts, axis=axis)
        assert np.array_equal(md.repeat(md.asarray(x), counts, axis=axis).numpy(), want)
        assert np.array_equal(md.repeat(md.asarray(x), md.asarray(counts), axis=axis).numpy(), want)
    assert md.grad(lambda v: (md.repeat(v, [2, 0, 1]) * md.asarray([1.0, 2.0, 4.0])).sum())(md.ones(3)).tolist() == [3.0, 0.0, 4.0]
    assert md.jit(lambda v: md.repeat(v, [2, 1]))(md.arange(2)).tolist() == [0, 0, 1]
    for bad in (-1, 1.5, [1, 2], [[1, 2, 3]]):
        with pytest.raises(ValueError, match="repeat"):
            md.repeat(md.asarray(x), bad, axis=1)


def test_a_mask_without_axes(backend):
    x, yes, no = md.arange(3), md.asarray(True), md.asarray(False)
    assert x[yes].tolist() == [[0, 1, 2]] and x[no].shape == (0, 3) and md.asarray(5)[yes].tolist() == [5]
    y = md.arange(3)
    y[no] = md.zeros((0, 3), dtype=md.int64)
    assert y.tolist() == [0, 1, 2]
    y[yes] = md.asarray([[7, 8, 9]])
    assert y.tolist() == [7, 8, 9]
    y[yes] = 1
    assert y.tolist() == [1, 1, 1]


def test_a_mask_of_size_0_fits_any_axis(backend):
    x, empty = md.ones((2, 3)), md.zeros((0,), dtype=md.bool)
    assert x[empty].shape == (0, 3) and x[md.zeros((2, 0), dtype=md.bool)].shape == (0,)
    x[empty] = 5.0
    assert x.tolist() == md.ones((2, 3)).tolist()
    with pytest.raises(IndexError, match="mask"):
        x[md.asarray([True])]


def test_a_diagonal_far_off(backend):
    assert md.eye(2, 3, k=2**63).tolist() == [[0.0] * 3] * 2
    assert md.eye(2, k=-(2**70)).tolist() == [[0.0] * 2] * 2 and md.triu(md.ones((2, 2)), k=-(2**70)).tolist() == [[1.0] * 2] * 2


#: Shapes that only values know: name in the message, function of i64[3], and the way out that the message names.
DATA_DEPENDENT = {
    "unique_all": (md.unique_all, "md.sort"), "unique_counts": (md.unique_counts, "md.sort"), "unique_inverse": (md.unique_inverse, "md.sort"),
    "unique_values": (md.unique_values, "md.sort"), "nonzero": (md.nonzero, "md.where"), "repeat": (lambda x: md.repeat(x, x), "list of integers"),
    "arange": (lambda x: md.arange(x[0]), "Python numbers"), "getitem": (lambda x: x[x > 1], "md.where"),
    "getitem, a mask without axes": (lambda x: x[x[0] > 1], "md.where"), "getitem, a mask beside None": (lambda x: x[None, x > 1], "md.where"),
    "set_at": (lambda x: x.at[x > 1].set(x[:2] * 2), "md.where"), "set_at, a mask without axes": (lambda x: x.at[x[0] > 0].set(x[None]), "md.where"),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_shapes_that_only_values_know_raise_under_jit_and_vmap(name):
    """Each works eagerly; traced or batched it raises TypeError that names the operation, the user's line and the way out, alike on every backend."""
    f, way = DATA_DEPENDENT[name]
    said = set()
    for backend in ("numpy", "numba", "torch", "jax"):
        with md.use_backend(backend):
            x = md.asarray([1, 2, 2])
            f(x)
            with pytest.raises(
                TypeError, match=rf"^{name.partition(',')[0]}: .*symbolic.*test_array_api\.py:\d+.*size of the result.*{way}"
            ) as caught:
                md.jit(f)(x)
            said.add(str(caught.value))
            with pytest.raises(TypeError, match=rf"^{name.partition(',')[0]}: .*batched by md\.vmap.*size of the result.*{way}"):
                md.vmap(f)(md.stack([x, x]))
    assert len(said) == 1


def test_the_documentation_lists_what_has_data_dependent_shapes():
    text = " ".join(md.__array_namespace_info__().capabilities.__doc__.split())
    named = {n.partition(",")[0] for n in DATA_DEPENDENT} - {"getitem", "set_at"}
    assert all(f"`{n}`" in text for n in named) and "x[mask]" in text and "TypeError" in text
    assert all("TypeError under jit and vmap" in " ".join(getattr(md, n).__doc__.split()) or n == "repeat" for n in named - {"arange"})


def test_assignment_by_a_mask_is_traced(backend):
    """What broadcasts against each chosen element needs no data-dependent shape."""

    def put(x):
        y = x * 1
        y[x > 1] = 7
        return y, x.at[x > 1].add(x[0])

    for got in (put(md.asarray([1, 2, 2])), md.jit(put)(md.asarray([1, 2, 2]))):
        assert [g.tolist() for g in got] == [[1, 7, 7], [1, 3, 3]]
    batched = md.vmap(put)(md.asarray([[1, 2, 2], [3, 1, 1]]))
    assert [g.tolist() for g in batched] == [[[1, 7, 7], [7, 1, 1]], [[1, 3, 3], [6, 1, 1]]]


def test_numbers_may_be_tensors_without_axes(backend):
    """Wherever an integer is wanted, and where a range ends."""
    n, x = md.asarray(3), md.arange(6)
    assert md.arange(n).tolist() == [0, 1, 2] and md.arange(md.asarray(1.0), n + 1, dtype=md.float64).tolist() == [1.0, 2.0, 3.0]
    assert md.linspace(0, 1, n).tolist() == [0.0, 0.5, 1.0] and md.zeros(n).shape == md.eye(n)[0].shape == (3,)
    assert md.roll(x, n).tolist() == md.roll(x, (n,), axis=(n - 3,)).tolist() == [3, 4, 5, 0, 1, 2]
    assert [c.shape for c in md.split(x, n)] == [(3,), (3,)] and md.expand_dims(x, n - 3).shape == (1, 6)
    assert md.full_like(x, n).tolist() == md.jit(lambda n: md.full_like(x, n))(n).tolist() == [3] * 6
    for line in (lambda n: md.arange(n), lambda n: md.zeros(n), lambda n: md.roll(x, n), lambda n: md.split(x, n), lambda n: x[:n]):
        with pytest.raises(TypeError, match="static|Python numbers"):
            md.jit(line)(n)


STATIC = {
    "the value does not fit": (lambda x, i: x.at[i].set(md.ones((2, 3))), ValueError),
    "index arrays that do not broadcast": (lambda x, i: x[i, md.asarray([0, 1, 2])], IndexError),
    "the same, to write": (lambda x, i: x.at[i, md.asarray([0, 1, 2])].set(1.0), IndexError),
    "the same, one of them known": (lambda x, i: x[np.array([0, 1]), [0, 1, 2]], IndexError),
    "take_along_axis": (lambda x, i: md.take_along_axis(x, md.stack([i, i]), axis=1), ValueError),
    "take_along_axis by floats": (lambda x, i: md.take_along_axis(x, x), IndexError),
}


@pytest.mark.parametrize("name", STATIC)
def test_a_shape_that_does_not_fit_comes_before_an_index_out_of_bounds(name):
    """So eager and traced, where the index has no value, raise the same error."""
    f, kind = STATIC[name]
    x, i = md.ones((3, 4)), md.asarray([0, 9])
    said = set()
    for run in (f, md.jit(f)):
        with pytest.raises(kind) as caught:
            run(x, i)
        said.add(str(caught.value))
    assert len(said) == 1, said


# ---- special values ---------------------------------------------------------------------------------------------------------------------
#: What the standard says of complex arguments: real and imaginary part -> those of the result; ~ is a sign that it leaves open, p is π.
SPECIAL = """
acos: 0 0 -> p/2 -0 | -0 0 -> p/2 -0 | 0 nan -> p/2 nan | 2 inf -> p/2 -inf | 2 nan -> nan nan | -inf 1 -> p -inf | inf 1 -> 0 -inf
acos: -inf inf -> 3*p/4 -inf | inf inf -> p/4 -inf | inf nan -> nan ~inf | -inf nan -> nan ~inf | nan 2 -> nan nan | nan inf -> nan -inf
acosh: 0 0 -> 0 p/2 | -0 0 -> 0 p/2 | 2 inf -> inf p/2 | 2 nan -> nan nan | 0 nan -> nan ~p/2 | -inf 1 -> inf p | inf 1 -> inf 0
acosh: -inf inf -> inf 3*p/4 | inf inf -> inf p/4 | inf nan -> inf nan | -inf nan -> inf nan | nan 2 -> nan nan | nan inf -> inf nan
asinh: 0 0 -> 0 0 | 2 inf -> inf p/2 | 2 nan -> nan nan | inf 1 -> inf 0 | inf inf -> inf p/4 | inf nan -> inf nan | nan 0 -> nan 0
asinh: nan 2 -> nan nan | nan inf -> ~inf nan | nan nan -> nan nan
atanh: 0 0 -> 0 0 | 0 nan -> 0 nan | 1 0 -> inf 0 | 2 inf -> 0 p/2 | 2 nan -> nan nan | inf 1 -> 0 p/2 | inf inf -> 0 p/2 | inf nan -> 0 nan
atanh: nan 2 -> nan nan | nan inf -> ~0 p/2 | nan nan -> nan nan
cosh: 0 0 -> 1 0 | 0 inf -> nan ~0 | 0 nan -> nan ~0 | 2 inf -> nan nan | 2 nan -> nan nan | inf 0 -> inf 0 | inf 2 -> -inf inf
cosh: inf inf -> ~inf nan | inf nan -> inf nan | nan 0 -> nan ~0 | nan 2 -> nan nan | nan nan -> nan nan
exp: 0 0 -> 1 0 | -0 0 -> 1 0 | 2 inf -> nan nan | 2 nan -> nan nan | inf 0 -> inf 0 | -inf 2 -> -0 0 | inf 2 -> -inf inf
exp: -inf inf -> ~0 ~0 | inf inf -> ~inf nan | -inf nan -> ~0 ~0 | inf nan -> ~inf nan | nan 0 -> nan 0 | nan 2 -> nan nan | nan nan -> nan nan
expm1: 0 0 -> 0 0 | -0 0 -> 0 0 | 2 inf -> nan nan | 2 nan -> nan nan | inf 0 -> inf 0 | -inf 2 -> -1 0 | inf 2 -> -inf inf
expm1: -inf inf -> -1 ~0 | inf inf -> ~inf nan | -inf nan -> -1 ~0 | inf nan -> ~inf nan | nan 0 -> nan 0 | nan 2 -> nan nan
log: -0 0 -> -inf p | 0 0 -> -inf 0 | 2 inf -> inf p/2 | 2 nan -> nan nan | -inf 1 -> inf p | inf 1 -> inf 0 | -inf inf -> inf 3*p/4
log: inf inf -> inf p/4 | inf nan -> inf nan | -inf nan -> inf nan | nan 2 -> nan nan | nan inf -> inf nan | nan nan -> nan nan
log1p: -1 0 -> -inf 0 | 2 inf -> inf p/2 | 2 nan -> nan nan | -inf 1 -> inf p | inf 1 -> inf 0 | -inf inf -> inf 3*p/4 | inf inf -> inf p/4
log1p: inf nan -> inf nan | -inf nan -> inf nan | nan 2 -> nan nan | nan inf -> inf nan | nan nan -> nan nan
sinh: 0 0 -> 0 0 | 0 inf -> ~0 nan | 0 nan -> ~0 nan | 2 inf -> nan nan | 2 nan -> nan nan | inf 0 -> inf 0 | inf 2 -> -inf inf
sinh: inf inf -> ~inf nan | inf nan -> ~inf nan | nan 0 -> nan 0 | nan 2 -> nan nan | nan nan -> nan nan
sqrt: 0 0 -> 0 0 | -0 0 -> 0 0 | 2 inf -> inf inf | nan inf -> inf inf | -inf inf -> inf inf | 2 nan -> nan nan | -inf 1 -> 0 inf
sqrt: inf 1 -> inf 0 | -inf nan -> nan ~inf | inf nan -> inf nan | nan 2 -> nan nan | nan nan -> nan nan
tanh: 0 0 -> 0 0 | 2 inf -> nan nan | 0 inf -> 0 nan | 2 nan -> nan nan | 0 nan -> 0 nan | inf 2 -> 1 0 | inf inf -> 1 ~0 | inf nan -> 1 ~0
tanh: nan 0 -> nan 0 | nan 2 -> nan nan | nan nan -> nan nan
sign: 0 0 -> 0 0 | -0 -0 -> 0 0 | nan 1 -> nan nan | 1 nan -> nan nan | inf nan -> nan nan | -inf 1 -> -1 ~0
"""
#: f(iz) = i g(z) or g(z): what the standard defines by another function.
TURNED = {"asin": "asinh", "atan": "atanh", "sin": "sinh", "tan": "tanh", "cos": "cosh"}


def _number(text: str) -> float:
    if text.startswith("-"):
        return -_number(text[1:])
    return float(eval(text.replace("p", "math.pi").replace("inf", "math.inf").replace("nan", "math.nan"), {"math": math}))


def _special() -> dict[str, list[tuple[complex, str]]]:
    rows: dict[str, list[tuple[complex, str]]] = {}
    for line in SPECIAL.strip().splitlines():
        name, _, cases = line.partition(": ")
        for case in cases.split(" | "):
            argument, _, result = case.partition(" -> ")
            rows.setdefault(name, []).append((complex(*map(_number, argument.split())), result))
    for name, other in TURNED.items():  # -i g(iz) = f(z); for cos, g(iz)
        for z, result in rows[other]:
            a, b = result.split()
            rows.setdefault(name, []).append((complex(z.imag, -z.real), f"{a} {b}" if name == "cos" else f"{b} {_minus(a)}"))
    return rows


def _minus(text: str) -> str:
    return text if text.startswith("~") or text == "nan" else text[1:] if text.startswith("-") else f"-{text}"


ROWS = _special()


def _right(got: float, want: str) -> bool:
    value = _number(want.lstrip("~"))
    if math.isnan(value) or math.isnan(got):
        return math.isnan(value) and math.isnan(got)
    close = math.isclose(got, value, rel_tol=1e-12) if not want.startswith("~") else math.isclose(abs(got), abs(value), rel_tol=1e-12)
    return close and (want.startswith("~") or math.copysign(1, got) == math.copysign(1, value))


def test_special_values_of_complex_functions(backend):
    """Eager and compiled; and f(conj z) = conj f(z) besides, row by row."""
    names = list(ROWS)
    data = [np.array([z for z, _ in ROWS[n]], np.complex128) for n in names]
    f = md.jit(lambda *xs: [getattr(md, n)(x) for n, x in zip(names, xs, strict=True)])
    for conjugate in (False, True):
        xs = [md.asarray(np.conj(d) if conjugate else d) for d in data]
        eager = [getattr(md, n)(x) for n, x in zip(names, xs, strict=True)]
        single = [getattr(md, n)(x.to("complex64")) for n, x in zip(names, xs, strict=True)] if backend in ("numpy", "torch") else eager
        for how, outs in (("eager", eager), ("compiled", f(*xs)), ("single", single)):
            for name, out in zip(names, outs, strict=True):
                got = out.numpy().astype(np.complex128)
                got = np.conj(got) if conjugate else got
                for (z, want), g in zip(ROWS[name], got, strict=True):
                    real, imag = want.split()
                    if name == "sign" and not z:
                        g = np.conj(g) if conjugate else g  # 0 + 0j for every zero
                    if out.dtype is md.complex64:  # π and its parts are rounded
                        g = complex(*(round(v, 6) if math.isfinite(v) else v for v in (g.real, g.imag)))
                        real, imag = (t if "p" not in t else "~" * t.startswith("~") + repr(round(_number(t.lstrip("~")), 6)) for t in (real, imag))
                    assert _right(g.real, real) and _right(g.imag, imag), f"{name}({z}) is {g}, not {want} ({backend}, {how}, conjugate={conjugate})"


FLOOR = [
    (math.inf, 2.0, math.inf), (math.inf, -2.0, -math.inf), (-math.inf, 2.0, -math.inf), (-math.inf, -2.0, math.inf), (2.0, math.inf, 0.0),
    (2.0, -math.inf, -0.0), (-2.0, math.inf, -0.0), (-2.0, -math.inf, 0.0), (math.inf, math.inf, math.nan), (0.0, 0.0, math.nan), (0.0, -2.0, -0.0),
    (-0.0, -2.0, 0.0), (1.0, -0.0, -math.inf), (math.inf, 0.0, math.inf), (math.nan, 1.0, math.nan), (-7.0, 2.0, -4.0), (1.0, 0.1, 9.0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floor_divide_by_and_of_infinities(backend, dtype):
    x, y, want = (np.array(v) for v in zip(*FLOOR, strict=True))
    a, b = md.asarray(x).to(dtype), md.asarray(y).to(dtype)
    for got in (md.floor_divide(a, b), a // b, md.jit(md.floor_divide)(a, b)):
        got = got.numpy()
        ok = (np.isnan(got) & np.isnan(want)) | ((got == want) & (np.signbit(got) == np.signbit(want)))
        ok[-1] |= dtype == "float32"  # 0.1 is another number there
        assert ok.all(), list(zip(x[~ok], y[~ok], got[~ok], strict=True))


def test_log1p_of_small_complex_numbers(backend):
    z = np.array([1e-20 + 1e-20j, -1e-10 + 1e-12j, 1e-3 - 1e-3j, 0.4 + 0.2j])
    want = z - z**2 / 2 + z**3 / 3 - z**4 / 4
    want[3] = np.log(1 + z[3])
    for f in (md.log1p, md.jit(md.log1p)):
        assert np.allclose(f(md.asarray(z)).numpy(), want, rtol=1e-12, atol=0)


def test_round_of_complex_numbers(backend):
    x = md.asarray([1.5 + 2.5j, complex(math.inf, -0.5), complex(-2.4, math.nan)])
    for f in (md.round, md.jit(md.round)):
        got = f(x).numpy()
        assert np.array_equal(got.real, [2.0, math.inf, -2.0]) and np.array_equal(got.imag, [2.0, -0.0, math.nan], equal_nan=True)
    assert md.grad(lambda v: md.abs(md.round(v)).sum())(x[:1]).tolist() == [0j]


def test_numbers_that_round_to_the_largest_or_beyond(backend):
    largest = md.finfo(md.float32).max
    for value, want in ((3.402823466385289e38, largest), (1e39, math.inf), (-1e39, -math.inf)):
        assert md.asarray(value, dtype=md.float32).item() == md.full((1,), value, dtype=md.float32)[0].item() == want
        assert md.full((), complex(0, value), dtype=md.complex64).numpy().imag == want
        assert (md.zeros(1) + value).tolist() == [want]


def test_both_signs_of_nan_are_kept(backend):
    for value in (math.nan, -math.nan, math.nan):
        sign = bool(np.signbit(value))
        assert md.signbit(md.asarray(value, dtype=md.float64)).item() is md.signbit(md.full((2,), value))[0].item() is sign
