"""One promotion lattice: every pair of dtypes, every kind of scalar, every operator, on every backend, by a table that is written out here.

What an operator makes of the common dtype is one of four things: it keeps it, makes it a float, answers with bool, or refuses it with TypeError.
"""

from __future__ import annotations

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
#: function, the common dtypes that it takes, and what it makes of them: "same", "float" (integers become the default float first) or "bool".
OPERATORS: dict[str, tuple[Callable[..., Any], list[str], str]] = {
    "+": (lambda x, y: x + y, NAMES, "same"), "-": (lambda x, y: x - y, NAMES[1:], "same"), "*": (lambda x, y: x * y, NAMES, "same"),
    "/": (lambda x, y: x / y, NAMES, "float"), "//": (lambda x, y: x // y, [*_INTEGERS, *_FLOATS], "same"),
    "%": (lambda x, y: x % y, [*_INTEGERS, *_FLOATS], "same"), "**": (lambda x, y: x**y, NAMES[1:], "same"),
    "&": (lambda x, y: x & y, ["bool", *_INTEGERS], "same"), "|": (lambda x, y: x | y, ["bool", *_INTEGERS], "same"),
    "^": (lambda x, y: x ^ y, ["bool", *_INTEGERS], "same"), "<<": (lambda x, y: x << y, _INTEGERS, "same"),
    ">>": (lambda x, y: x >> y, _INTEGERS, "same"), "==": (lambda x, y: x == y, NAMES, "bool"), "!=": (lambda x, y: x != y, NAMES, "bool"),
    "<": (lambda x, y: x < y, ["bool", *_INTEGERS, *_FLOATS], "bool"), ">=": (lambda x, y: x >= y, ["bool", *_INTEGERS, *_FLOATS], "bool"),
    "maximum": (md.maximum, ["bool", *_INTEGERS, *_FLOATS], "same"), "minimum": (md.minimum, ["bool", *_INTEGERS, *_FLOATS], "same"),
    "atan2": (md.atan2, ["bool", *_INTEGERS, *_FLOATS], "float"), "hypot": (md.hypot, ["bool", *_INTEGERS, *_FLOATS], "float"),
    "where": (lambda x, y: md.where(md.tensor([True]), x, y), NAMES, "same"),
}  # fmt: skip
SHORT = {d.short: d for d in dtypes.all_dtypes}


def result(op: str, common: str, default: str = "f32") -> str:
    """The dtype of an operator's result for a common dtype, or "-"."""
    _, takes, makes = OPERATORS[op]
    if common == "-" or common not in takes:
        return "-"
    return "bool" if makes == "bool" else default if makes == "float" and common not in (*_FLOATS, *_COMPLEX) else common


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


def test_every_pair_and_operator(backend):
    """Eager; on jax what is refused, since XLA compiles each dtype of each operator."""
    xs, wrong = ones(), []
    for op, (f, _, _) in OPERATORS.items():
        for (a, b), common in PAIRS.items():
            want = result(op, common)
            if backend == "jax" and want != "-":
                continue
            got = found(f, xs[a], xs[b])
            if got != want:
                wrong.append(f"{a} {op} {b}: {got}, wanted {want}")
    assert not wrong, "\n".join(wrong)


def test_every_pair_and_operator_compiled():
    """What jax makes of the pairs, and of every operator's dtypes, in one program."""
    asked = [(op, a, b) for op in OPERATORS for (a, b), c in PAIRS.items() if result(op, c) != "-" and (op == "+" or a == b)]
    with md.use_backend("jax"):
        got = md.jit(lambda xs: [OPERATORS[op][0](xs[a], xs[b]) for op, a, b in asked])(ones())
    wrong = [(op, a, b) for (op, a, b), x in zip(asked, got, strict=True) if x.xp.dtype_of(x.payload).short != result(op, PAIRS[a, b])]
    assert not wrong, wrong


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
