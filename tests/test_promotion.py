"""One promotion lattice: every pair of dtypes, every kind of scalar, every operator, on every backend, by a table that is written out here.

What an operator makes of the common dtype is one of four things: it keeps it, makes it a float, answers with bool, or refuses it with TypeError.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import dtypes

NAMES = "bool i8 i16 i32 i64 u8 u16 u32 u64 f16 bf16 f32 f64 c64 c128".split()
#: The dtype of an operation on a row's and a column's; "-": TypeError, since no dtype holds both.
LATTICE = """
bool bool i8   i16  i32  i64  u8   u16  u32  u64  f16  bf16 f32  f64  c64  c128
i8   i8   i8   i16  i32  i64  i16  i32  i64  -    f16  bf16 f32  f64  c64  c128
i16  i16  i16  i16  i32  i64  i16  i32  i64  -    f16  bf16 f32  f64  c64  c128
i32  i32  i32  i32  i32  i64  i32  i32  i64  -    f16  bf16 f32  f64  c64  c128
i64  i64  i64  i64  i64  i64  i64  i64  i64  -    f16  bf16 f32  f64  c64  c128
u8   u8   i16  i16  i32  i64  u8   u16  u32  u64  f16  bf16 f32  f64  c64  c128
u16  u16  i32  i32  i32  i64  u16  u16  u32  u64  f16  bf16 f32  f64  c64  c128
u32  u32  i64  i64  i64  i64  u32  u32  u32  u64  f16  bf16 f32  f64  c64  c128
u64  u64  -    -    -    -    u64  u64  u64  u64  f16  bf16 f32  f64  c64  c128
f16  f16  f16  f16  f16  f16  f16  f16  f16  f16  f16  f32  f32  f64  c64  c128
bf16 bf16 bf16 bf16 bf16 bf16 bf16 bf16 bf16 bf16 f32  bf16 f32  f64  c64  c128
f32  f32  f32  f32  f32  f32  f32  f32  f32  f32  f32  f32  f32  f64  c64  c128
f64  f64  f64  f64  f64  f64  f64  f64  f64  f64  f64  f64  f64  f64  c128 c128
c64  c64  c64  c64  c64  c64  c64  c64  c64  c64  c64  c64  c64  c128 c64  c128
c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128 c128
"""
PAIRS = {(row.split()[0], b): want for row in LATTICE.strip().split("\n") for b, want in zip(NAMES, row.split()[1:], strict=True)}
#: The dtype of an operation on a row's and a Python scalar, which is weak: it raises the kind at most. f: the default float, c: its complex dtype.
SCALARS = {
    "bool": (True, "bool i8 i16 i32 i64 u8 u16 u32 u64 f16 bf16 f32 f64 c64 c128"),
    "int": (1, "i64 i8 i16 i32 i64 u8 u16 u32 u64 f16 bf16 f32 f64 c64 c128"),
    "float": (1.0, "f f f f f f f f f f16 bf16 f32 f64 c64 c128"),
    "complex": (1j, "c c c c c c c c c c64 c64 c64 c128 c64 c128"),
    "np.float64": (np.float64(1.0), "f f f f f f f f f f16 bf16 f32 f64 c64 c128"),
    "np.complex128": (np.complex128(1j), "c c c c c c c c c c64 c64 c64 c128 c64 c128"),
}
#: NumPy's other scalars are typed: they count as an array of their dtype.
TYPED = {"i8": np.int8(1), "u16": np.uint16(1), "i64": np.int64(1), "f16": np.float16(1), "f32": np.float32(1), "c64": np.complex64(1)}

_INTEGERS = "i8 i16 i32 i64 u8 u16 u32 u64".split()
_FLOATS = "f16 bf16 f32 f64".split()
_COMPLEX = ["c64", "c128"]
_REAL = ["bool", *_INTEGERS, *_FLOATS]
#: function, the common dtypes that it takes, and what it makes of them: "same", "float" (integers become the default float first) or "bool".
OPERATORS: dict[str, tuple[Callable[..., Any], list[str], str]] = {
    "+": (lambda x, y: x + y, NAMES, "same"), "-": (lambda x, y: x - y, NAMES[1:], "same"), "*": (lambda x, y: x * y, NAMES, "same"),
    "/": (lambda x, y: x / y, NAMES, "float"), "//": (lambda x, y: x // y, [*_INTEGERS, *_FLOATS], "same"),
    "%": (lambda x, y: x % y, [*_INTEGERS, *_FLOATS], "same"), "**": (lambda x, y: x**y, NAMES[1:], "same"),
    "&": (lambda x, y: x & y, ["bool", *_INTEGERS], "same"), "|": (lambda x, y: x | y, ["bool", *_INTEGERS], "same"),
    "^": (lambda x, y: x ^ y, ["bool", *_INTEGERS], "same"), "<<": (lambda x, y: x << y, _INTEGERS, "same"),
    ">>": (lambda x, y: x >> y, _INTEGERS, "same"), "==": (lambda x, y: x == y, NAMES, "bool"), "!=": (lambda x, y: x != y, NAMES, "bool"),
    "<": (lambda x, y: x < y, _REAL, "bool"), ">=": (lambda x, y: x >= y, _REAL, "bool"),
    "maximum": (md.maximum, _REAL, "same"), "minimum": (md.minimum, _REAL, "same"),
    "atan2": (md.atan2, _REAL, "float"), "hypot": (md.hypot, _REAL, "float"),
    "where": (lambda x, y: md.where(md.tensor([True]), x, y), NAMES, "same"), "<=": (lambda x, y: x <= y, _REAL, "bool"),
    ">": (lambda x, y: x > y, _REAL, "bool"), "fmax": (md.fmax, _REAL, "same"), "fmin": (md.fmin, _REAL, "same"),
    "logaddexp": (md.logaddexp, _REAL, "float"), "copysign": (md.copysign, _REAL, "float"), "nextafter": (md.nextafter, _REAL, "float"),
    "xlogy": (md.xlogy, _REAL, "float"), "heaviside": (md.heaviside, _REAL, "float"),
}  # fmt: skip
#: Functions of arrays that take no number in their place; "left": the first array's dtype, into which a complex one fits only if it is complex.
FUNCTIONS: dict[str, tuple[Callable[..., Any], list[str], str]] = {
    "concat": (lambda x, y: md.concat([x, y]), NAMES, "same"), "stack": (lambda x, y: md.stack([x, y]), NAMES, "same"),
    "asarray": (lambda x, y: md.asarray([x[0], y[0]]), NAMES, "same"), "matmul": (lambda x, y: x @ y, NAMES, "same"),
    "tensordot": (lambda x, y: md.tensordot(x, y, axes=1), NAMES, "same"), "vecdot": (md.vecdot, NAMES, "same"),
    "outer": (md.linalg.outer, NAMES, "same"), "einsum": (lambda x, y: md.einsum("i,i->i", x, y), NAMES, "same"),
    "diff": (lambda x, y: md.diff(x, prepend=y), NAMES[1:], "same"), "clip": (lambda x, y: md.clip(x, y, y), _REAL, "same"),
    "clip below": (lambda x, y: md.clip(x, y, None), _REAL, "same"), "clip above": (lambda x, y: md.clip(x, None, y), _REAL, "same"),
    "solve": (lambda x, y: md.linalg.solve(x[:, None], y[:, None]), NAMES, "float"), "x.at.set": (lambda x, y: x.at[0].set(y[0]), NAMES, "left"),
    "x.at.add": (lambda x, y: x.at[0].add(y[0]), NAMES, "left"), "searchsorted": (md.searchsorted, _REAL, "i64"),
    "isin": (md.isin, NAMES, "bool"), "where, a bool": (lambda x, y: md.where(x == x, x, y), NAMES, "same"),
}  # fmt: skip
SHORT = {d.short: d for d in dtypes.all_dtypes}


def result(op: str, common: str, default: str = "f32") -> str:
    """The dtype of an operator's result for a common dtype, or "-"."""
    _, takes, makes = (OPERATORS | FUNCTIONS)[op]
    if common == "-" or common not in takes:
        return "-"
    return makes if makes in ("bool", "i64") else default if makes == "float" and common not in (*_FLOATS, *_COMPLEX) else common


def found(f: Callable[..., Any], *args: Any) -> str:
    """The dtype of a result, "-" for TypeError."""
    try:
        return f(*args).dtype.short
    except TypeError:
        return "-"


def ones() -> dict[str, md.Tensor]:
    return {n: md.ones((1,), dtype=SHORT[n]) for n in NAMES}


def test_the_table_is_a_lattice():
    """Symmetric, idempotent, and the same as the rule that minidl uses."""
    for (a, b), want in PAIRS.items():
        assert PAIRS[b, a] == want and PAIRS[a, a] == a
        try:
            assert dtypes.promote(SHORT[a], SHORT[b]) is SHORT[want], (a, b)
        except TypeError:
            assert want == "-", (a, b)
        assert md.can_cast(SHORT[a], SHORT[b]) is (want == b), (a, b)
        if want != "-":
            assert md.result_type(SHORT[a], SHORT[b]) is SHORT[want], (a, b)


def pairs() -> list[tuple[str, str, str]]:
    """Every operator and function with every pair of dtypes."""
    return [(op, a, b) for op in OPERATORS | FUNCTIONS for a, b in PAIRS]


def expected(op: str, a: str, b: str) -> str:
    want = result(op, PAIRS[a, b])
    if (OPERATORS | FUNCTIONS)[op][2] != "left":
        return want
    return "-" if b in _COMPLEX and a not in _COMPLEX else a


def test_every_pair_and_operator(backend):
    """Eager; on jax what is refused, since XLA compiles each dtype of each operator."""
    xs, wrong = ones(), []
    for op, a, b in pairs():
        want = expected(op, a, b)
        if backend == "jax" and want != "-":
            continue
        got = found((OPERATORS | FUNCTIONS)[op][0], xs[a], xs[b])
        if got != want:
            wrong.append(f"{a} {op} {b}: {got}, wanted {want}")
    assert not wrong, "\n".join(wrong)


def test_every_pair_scalar_and_operator_on_jax():
    """All that is not refused, in one program of jax's own functions, whose dtypes jax tells without compiling it."""
    jax = pytest.importorskip("jax")
    every = OPERATORS | FUNCTIONS
    asked = [(op, a, b) for op, a, b in pairs() if expected(op, a, b) != "-"]
    known = {"f": "f32", "c": "c64"}
    scalars = [(a, value, known.get(c, c)) for value, row in SCALARS.values() for a, c in zip(NAMES, row.split(), strict=True)]
    mixed = [(op, a, value, want) for op in OPERATORS for a, value, c in scalars if (want := result(op, c)) != "-"]
    with md.use_backend("jax"):
        xs = ones()

        def run(xs: dict[str, md.Tensor]) -> list[md.Tensor]:
            return [every[op][0](xs[a], xs[b]) for op, a, b in asked] + [every[op][0](xs[a], v) for op, a, v, _ in mixed]

        graph = md.trace(run)(xs)
        xp = xs["f32"].xp
        with xp.scope():
            shapes = jax.eval_shape(xp.callable(graph), *(jax.ShapeDtypeStruct(v.shape, v.dtype.numpy) for v in graph.inputs))
    got = [xp.dtype_of(s).short for s in shapes]
    wants = [expected(*case) for case in asked] + [want for *_, want in mixed]
    assert len(got) == len(wants) > 8000
    wrong = [(case, g, w) for case, g, w in zip([*asked, *mixed], got, wants, strict=True) if g != w]
    assert not wrong, wrong


IN_PLACE = {
    "+": operator.iadd, "-": operator.isub, "*": operator.imul, "/": operator.itruediv, "//": operator.ifloordiv, "%": operator.imod,
    "**": operator.ipow, "&": operator.iand, "|": operator.ior, "^": operator.ixor, "<<": operator.ilshift, ">>": operator.irshift,
}  # fmt: skip


def stored(op: str, a: str, common: str) -> str:
    """The dtype after `x op= y`: that of x, which takes any number of its kind or a lower one; else TypeError."""
    order = ["bool", "int", "float", "complex"]
    rank = lambda name: order.index({"u": "int", "i": "int", "b": "bool", "f": "float", "c": "complex"}[name.replace("bf16", "f16")[0]])
    made = result(op, common)
    return "-" if made == "-" or rank(made) > rank(a) else a


def test_every_in_place_operator(backend):
    """Of arrays and numbers. What is refused leaves the tensor as it was. On jax, where each operator of each dtype is compiled, a few are tried."""
    xs, wrong = ones(), []
    known = {"f": "f32", "c": "c64"}
    cases = [(op, a, xs[b], b, c) for op in IN_PLACE for (a, b), c in PAIRS.items()]
    cases += [(op, a, v, k, known.get(c, c)) for op in IN_PLACE for k, (v, r) in SCALARS.items() for a, c in zip(NAMES, r.split(), strict=True)]
    for op, a, other, name, common in cases[:: 37 if backend == "jax" else 1]:
        x, want = md.ones((1,), dtype=SHORT[a]), stored(op, a, common)
        same = x
        got = found(IN_PLACE[op], x, other)
        if got != want or (want == "-" and x.tolist() != [1]) or x is not same or x.dtype is not SHORT[a]:
            wrong.append(f"{a} {op}= {name}: {got}, wanted {want}")
    assert not wrong, "\n".join(wrong)


def test_bounds_of_clip_are_weak_scalars(backend):
    for a, x in ones().items():
        if a not in _REAL or (backend == "jax" and a not in ("i8", "bf16", "f32")):
            continue
        for kind, (value, row) in SCALARS.items():
            want = {"f": "f32", "c": "c64"}.get(c := row.split()[NAMES.index(a)], c)
            want = want if want in _REAL else "-"
            assert found(md.clip, x, value, None) == found(md.clip, x, None, value) == want, (a, kind)


def test_every_scalar_and_operator(backend):
    xs, wrong = ones(), []
    few = ("+", "/", "<", "&", "where") if backend == "jax" else OPERATORS
    for default in ("f32", "f64"):
        md.set_default_dtype(SHORT[default])
        try:
            known = {"f": default, "c": {"f32": "c64", "f64": "c128"}[default]}
            for op in few:
                f = OPERATORS[op][0]
                for kind, (value, row) in SCALARS.items():
                    if backend == "jax" and (kind.startswith("np.") or default == "f64") and op != "+":
                        continue
                    for a, common in zip(NAMES, row.split(), strict=True):
                        want = result(op, known.get(common, common), default)
                        got = found(f, xs[a], value), found(f, value, xs[a])
                        if got != (want, want):
                            wrong.append(f"{a} {op} {kind}, default {default}: {got}, wanted {want}")
        finally:
            md.set_default_dtype(md.float32)
    assert not wrong, "\n".join(wrong)


def test_typed_numpy_scalars_and_arrays(backend):
    xs, wrong = ones(), []
    for a in NAMES:
        for b, value in TYPED.items():
            for other in (value, np.asarray([value])):
                got = found(lambda x, y: x + y, xs[a], other), found(lambda x, y: x + y, other, xs[a])
                if got != (PAIRS[a, b],) * 2:
                    wrong.append(f"{a} + {other!r}: {got}, wanted {PAIRS[a, b]}")
    assert not wrong, "\n".join(wrong)


def test_values_agree_where_dtypes_meet(backend):
    """The operands are cast to the common dtype first: 200 as uint8 and -1 as int8 make 199, and 2**31 as uint32 and 1 as int32 make 2**31 + 1."""
    for a, b, x, y, want in (
        ("u8", "i8", 200, -1, 199), ("u32", "i32", 2**31, 1, 2**31 + 1), ("i64", "f32", 2**24 + 1, 0.0, 2.0**24), ("bool", "i8", True, 1, 2),
        ("u64", "u8", 2**63, 1, 2**63 + 1), ("i32", "f16", 2049, 0.0, 2048.0), ("f16", "bf16", 1.0, 2.0**-10, 1.0009765625),
        ("f32", "c64", 0.5, 1j, 0.5 + 1j),
    ):  # fmt: skip
        assert (md.tensor(x, dtype=SHORT[a]) + md.tensor(y, dtype=SHORT[b])).item() == want, (a, b)


def test_reductions_and_functions_of_one_array(backend):
    """Sums of integers are wide, statistics are floats, functions of numbers make floats of integers."""
    for a, x in ones().items():
        if backend == "jax" and a not in ("bool", "i32", "u8", "bf16", "f32", "c64"):
            continue
        wide = "i64" if a in ("bool", "i8", "i16", "i32", "i64") else "u64" if a[0] == "u" else a
        floating = a if a in (*_FLOATS, *_COMPLEX) else "f32"
        real = {"c64": "f32", "c128": "f64"}.get(a, a)
        wants = {md.sum: wide, md.prod: wide, md.cumulative_sum: wide, md.mean: floating, md.exp: floating, md.count_nonzero: "i64", md.any: "bool"}
        wants |= {md.var: {"c64": "f32", "c128": "f64"}.get(a, floating), md.isnan: "bool"}
        wants |= {md.abs: "-" if a == "bool" else real, md.negative: "-" if a == "bool" else a, md.max: "-" if a in _COMPLEX else a}
        wants |= {md.argmax: "-" if a in _COMPLEX else "i64", md.erf: "-" if a in _COMPLEX else floating}
        for f, want in wants.items():
            assert found(f, x) == want, (f.__name__, a)


def test_strict(backend):
    """Arrays of two dtypes are refused, with both named; equal ones and weak scalars are not. It is part of a jitted program."""
    xs = ones()
    with md.strict_promotion():
        for (a, b), common in PAIRS.items():
            if backend != "jax" or a == b:
                assert found(lambda x, y: x + y, xs[a], xs[b]) == (common if a == b else "-"), (a, b)
        for a in NAMES:
            assert found(lambda x: x * 1, xs[a]) == ("i64" if a == "bool" else a)
        with pytest.raises(TypeError, match=r"^add: i32 with f32 under md\.strict_promotion\(\); convert one with \.to"):
            xs["i32"] + xs["f32"]
        with pytest.raises(TypeError, match="under md.strict_promotion"):
            md.where(md.tensor([True]), xs["f16"], xs["f32"])
    f = md.jit(lambda x, y: x + y)
    assert f(xs["i32"], xs["f32"]).dtype is md.float32
    with md.strict_promotion(), pytest.raises(TypeError, match="under md.strict_promotion"):
        f(xs["i32"], xs["f32"])
    assert f(xs["i32"], xs["f32"]).dtype is md.float32


def test_traced_dtypes_are_the_eager_ones():
    """One trace of all pairs under all operators: its dtypes are the table's."""
    wrong = []

    def run(xs: dict[str, md.Tensor]) -> None:
        for op, (f, _, _) in OPERATORS.items():
            for (a, b), common in PAIRS.items():
                if found(f, xs[a], xs[b]) != result(op, common):
                    wrong.append((a, op, b))
            for kind, (value, row) in SCALARS.items():
                for a, common in zip(NAMES, row.split(), strict=True):
                    if found(f, xs[a], value) != result(op, {"f": "f32", "c": "c64"}.get(common, common)):
                        wrong.append((a, op, kind))

    md.trace(run)(ones())
    assert not wrong, wrong


def test_a_dtype_is_a_function_that_makes_tensors_of_it(backend):
    for dtype in (md.float32, md.uint32, md.bool, md.complex64, md.int8):
        for value in (1, [1, 0], np.ones((2, 2)), md.ones(2)):
            made = dtype(value)
            assert made.dtype is dtype and made.shape == np.shape(value) and made.tolist() == np.asarray(value, dtype.numpy).tolist()
        assert not dtype().item()
    assert md.jit(lambda x: md.int32(x) + md.float32(0.5))(md.tensor(1.75)).item() == 1.5
    with pytest.raises(OverflowError):
        md.uint8(300)
