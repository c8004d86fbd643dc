"""The value and dtype contract as data: what every backend computes alike before any derivative is taken.

A row is a function with its arguments, and the dtype and the values of its result, or the exception that it raises when eager. All rows run eagerly,
and all that can be traced run in one compiled program.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import minidl as md
from conventions.test_conventions import BACKENDS
from minidl.testing.trial import close

inf, nan = math.inf, math.nan
LO, HI = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Value:
    """f(*args) has this dtype and value; args are (data, dtype) pairs.

    raises: when eager on a CPU; the value is then what a trace gives (None: it raises too). flushes: backends that may give 0.
    """

    name: str
    f: Callable[..., Any]
    args: tuple[tuple[Any, str], ...]
    dtype: str
    value: Any
    raises: Any = None
    ulp: int = 0
    flushes: tuple[str, ...] = ()


def a(data: Any, dtype: str) -> tuple[Any, str]:
    """An argument."""
    return data, dtype


F4, I4 = a(2.0, "float32"), a(3, "int32")
PAIR, SINGULAR = a([1.0, 2.0], "float32"), a([[1.0, 2.0], [2.0, 4.0]], "float32")
VALUES = [
    # promotion
    Value("i4 + f4", md.add, (I4, F4), "float32", 5.0),
    Value("i4 + f2", md.add, (I4, a(2.0, "float16")), "float16", 5.0),
    Value("i8 + bf16", md.add, (a(3, "int64"), a(2.0, "bfloat16")), "bfloat16", 5.0),
    Value("f2 + bf16", md.add, (a(3.0, "float16"), a(2.0, "bfloat16")), "float32", 5.0),
    Value("bool + i1", md.add, (a(True, "bool"), a(2, "int8")), "int8", 3),
    Value("u1 + i1", md.add, (a(200, "uint8"), a(-1, "int8")), "int16", 199),
    Value("u4 + i4", md.add, (a(2**32 - 1, "uint32"), a(-1, "int32")), "int64", 2**32 - 2),
    Value("u8 with a signed integer", md.add, (a(1, "uint64"), a(-1, "int8")), "", None, raises=TypeError),
    Value("f4 + c8", md.add, (F4, a(1j, "complex64")), "complex64", 2 + 1j),
    Value("f8 + c8", md.add, (a(2.0, "float64"), a(1j, "complex64")), "complex128", 2 + 1j),
    Value("f4 array + 1.5", lambda x: x + 1.5, (a([2.0], "float32"),), "float32", [3.5]),
    Value("1.5 - f4 array", lambda x: 1.5 - x, (a([2.0], "float32"),), "float32", [-0.5]),
    Value("i4 array + 2", lambda x: x + 2, (I4,), "int32", 5),
    Value("i4 array + 1.5", lambda x: x + 1.5, (I4,), "float32", 4.5),
    Value("f4 array * np.float64(2)", lambda x: x * np.float64(2), (a([2.0], "float32"),), "float32", [4.0]),
    Value("np.float64(2) * f4 array", lambda x: np.float64(2) * x, (a([2.0], "float32"),), "float32", [4.0]),
    Value("f4 array * np.complex128(2j)", lambda x: x * np.complex128(2j), (a([2.0], "float32"),), "complex64", [4j]),
    Value("f2 array * np.float32(2): typed", lambda x: x * np.float32(2), (a([2.0], "float16"),), "float32", [4.0]),
    Value("f4 array * f8 0-d tensor", md.multiply, (a([2.0], "float32"), a(2.0, "float64")), "float64", [4.0]),
    # dtypes of results
    Value("sum of i4", md.sum, (a([2**31 - 1, 1], "int32"),), "int64", 2**31),
    Value("sum of bool", md.sum, (a([True, True], "bool"),), "int64", 2),
    Value("prod of i4", md.prod, (a([2**20, 2**20], "int32"),), "int64", 2**40),
    Value("prod of bool", md.prod, (a([True, False], "bool"),), "int64", 0),
    Value("cumsum of i4", md.cumulative_sum, (a([2**31 - 1, 1], "int32"),), "int64", [2**31 - 1, 2**31]),
    Value("cumsum of bool", md.cumulative_sum, (a([True, True], "bool"),), "int64", [1, 2]),
    Value("sum of u1", md.sum, (a([255, 1], "uint8"),), "uint64", 256),
    Value("mean of i4", md.mean, (a([1, 2], "int32"),), "float32", 1.5),
    Value("exp of i4", md.exp, (a([0], "int32"),), "float32", [1.0]),
    Value("sqrt of i1", md.sqrt, (a([4], "int8"),), "float32", [2.0]),
    Value("i4 / i4", md.divide, (I4, a(2, "int32")), "float32", 1.5),
    Value("arange", lambda: md.arange(3), (), "int64", [0, 1, 2]),
    Value("argmax", md.argmax, (a([1.0, 3.0, 3.0], "float32"),), "int64", 1),
    Value("argmax with nan", md.argmax, (a([1.0, nan, 3.0], "float32"),), "int64", 1),
    # integers
    Value("1 // 0", md.floor_divide, (a([1, -1], "int32"), a([0, 0], "int32")), "int32", [0, 0]),
    Value("1 % 0", md.remainder, (a([1, -1], "int32"), a([0, 0], "int32")), "int32", [0, 0]),
    Value("-7 // 2, 7 // -2", md.floor_divide, (a([-7, 7], "int32"), a([2, -2], "int32")), "int32", [-4, -4]),
    Value("-7 % 2, 7 % -2", md.remainder, (a([-7, 7], "int32"), a([2, -2], "int32")), "int32", [1, -1]),
    Value("2 ** -1 of arrays", md.pow, (a([2], "int32"), a([-1], "int32")), "int32", [0], raises=ValueError),
    Value("2 ** -1, Python exponent", lambda x: x**-1, (a([2], "int32"),), "", None, raises=ValueError),
    # casts
    Value("f4 -> i4 of nan, +-inf, +-1e20", lambda x: x.to(md.int32), (a([nan, inf, -inf, 1e20, -1e20], "float32"),), "int32", [0, HI, LO, HI, LO]),
    Value("f4 -> u1 of -1, 300, nan", lambda x: x.to(md.uint8), (a([-1.0, 300.0, nan], "float32"),), "uint8", [0, 255, 0]),
    Value("f8 -> i8 of +-1e300", lambda x: x.to(md.int64), (a([1e300, -1e300], "float64"),), "int64", [2**63 - 1, -(2**63)]),
    Value("f4 -> i4 truncates", lambda x: x.to(md.int32), (a([2.9, -2.9], "float32"),), "int32", [2, -2]),
    Value("f4 -> bool", lambda x: x.to(md.bool), (a([0.0, -0.0, 0.5, nan], "float32"),), "bool", [False, False, True, True]),
    # special numbers
    Value("sign(nan)", md.sign, (a([nan], "float32"),), "float32", [nan]),
    Value("signbit(sign(-0.)), bf16", lambda x: md.signbit(md.sign(x)), (a([-0.0], "bfloat16"),), "bool", [False]),
    Value(
        "complex infinities add by parts", lambda x, y: md.stack([x + y, y + x, x - y]), (a(complex(inf, 1), "complex64"), a(1 + 2j, "complex64")),
        "complex64", [complex(inf, 3), complex(inf, 3), complex(inf, -1)],
    ),
    Value("signbit(sign(-0.))", lambda x: md.signbit(md.sign(x)), (a([-0.0], "float32"),), "bool", [False]),
    Value("round half to even", md.round, (a([0.5, 1.5, 2.5, -0.5], "float32"),), "float32", [0.0, 2.0, 2.0, 0.0]),
    Value("nan in sort", md.sort, (a([nan, 1.0, -inf, inf], "float32"),), "float32", [-inf, 1.0, inf, nan]),
    Value("nan in sort, descending", lambda x: md.sort(x, descending=True), (a([1.0, nan, -inf, inf], "float32"),), "float32", [nan, inf, 1.0, -inf]),
    Value("argsort is stable both ways", lambda x: md.argsort(x, descending=True), (a([1.0, 2.0, 1.0, 2.0], "float32"),), "int64", [1, 3, 0, 2]),
    Value("subnormal 1e-40 * 1.5", lambda x: x * 1.5, (a([1e-40], "float32"),), "float32", [1.5e-40], ulp=1, flushes=("jax",)),
    # rows of -inf
    Value("log_softmax, all -inf", md.log_softmax, (a([-inf, -inf], "float32"),), "float32", [-inf, -inf]),
    Value("logsumexp, all -inf", md.logsumexp, (a([-inf, -inf], "float32"),), "float32", -inf),
    Value("logsumexp(inf, 1)", md.logsumexp, (a([inf, 1.0], "float32"),), "float32", inf),
    Value("logsumexp with nan", md.logsumexp, (a([inf, nan], "float32"),), "float32", nan),
    Value("softmax(inf, 1)", md.softmax, (a([inf, 1.0], "float32"),), "float32", [1.0, 0.0]),
    # nan in max, min and their places
    Value("max with nan", md.max, (a([1.0, nan, 2.0], "float32"),), "float32", nan),
    Value("min with nan", md.min, (a([1.0, nan, 2.0], "float32"),), "float32", nan),
    Value("max along an axis with nan", lambda x: md.max(x, axis=1), (a([[1.0, nan], [2.0, 3.0]], "float32"),), "float32", [nan, 3.0]),
    Value("maximum(nan, 1), (1, nan)", md.maximum, (a([nan, 1.0], "float32"), a([1.0, nan], "float32")), "float32", [nan, nan]),
    Value("minimum(nan, 1), (1, nan)", md.minimum, (a([nan, 1.0], "float32"), a([1.0, nan], "float32")), "float32", [nan, nan]),
    Value("fmax(nan, 1), (nan, nan)", md.fmax, (a([nan, nan], "float32"), a([1.0, nan], "float32")), "float32", [1.0, nan]),
    Value("fmin(1, nan), (nan, nan)", md.fmin, (a([1.0, nan], "float32"), a([nan, nan], "float32")), "float32", [1.0, nan]),
    Value("argmin with nan", md.argmin, (a([1.0, nan, -3.0], "float32"),), "int64", 1),
    Value("argmax with nan, bf16", md.argmax, (a([1.0, nan, 3.0], "bfloat16"),), "int64", 1),
    Value("argsort with nan", md.argsort, (a([nan, 1.0, nan, -inf], "float32"),), "int64", [3, 1, 0, 2]),
    Value("argsort with nan, descending", lambda x: md.argsort(x, descending=True), (a([1.0, nan, -inf, nan], "float32"),), "int64", [1, 3, 0, 2]),
    Value("median with nan", md.median, (a([1.0, nan, 2.0], "float32"),), "float32", nan),
    Value("cumulative_max with nan", md.cumulative_max, (a([1.0, nan, 2.0], "float32"),), "float32", [1.0, nan, nan]),
    Value("topk with nan", lambda x: md.topk(x, 2).values, (a([1.0, nan, 3.0], "float32"),), "float32", [nan, 3.0]),
    Value("clip by nan", md.clip, (a([0.5, 0.5], "float32"), a([nan, 0.0], "float32"), a([1.0, nan], "float32")), "float32", [nan, nan]),
    Value("clip by the number nan", lambda x: md.clip(x, 0.0, nan), (a([0.5], "float32"),), "float32", [nan]),
    Value("logaddexp of infinities", md.logaddexp, (a([inf, -inf, inf, nan], "float32"), a([inf, -inf, -inf, 0.0], "float32")), "float32",
          [inf, -inf, inf, nan]),
    Value("c8 to bool", lambda x: x.astype(md.bool), (a([1j, 0j, nan * 1j, 1.0], "complex64"),), "bool", [True, False, True, True]),
    Value("f8 one beyond i4", lambda x: x.astype(md.int32), (a([2.0**31, -(2.0**31) - 1], "float64"),), "int32", [HI, LO]),
    Value("f4 one beyond i8", lambda x: x.astype(md.int64), (a([2.0**63, -(2.0**64)], "float32"),), "int64", [2**63 - 1, -(2**63)]),
    Value("clip with nan", lambda x: md.clip(x, 0.0, 1.0), (a([nan, 2.0], "float32"),), "float32", [nan, 1.0]),
    Value("relu with nan", md.relu, (a([nan, -1.0], "float32"),), "float32", [nan, 0.0]),
    # zeros of both signs
    Value(
        "signs of ceil, trunc, round(-.5)", lambda x: md.signbit(md.stack([md.ceil(x), md.trunc(x), md.round(x)])),
        (a(-0.5, "float32"),), "bool", [True] * 3,
    ),
    Value("sign of sqrt(-0.)", lambda x: md.signbit(md.sqrt(x)), (a([-0.0], "float32"),), "bool", [True]),
    Value(
        "sign of -0. + -0., -0. + 0.", lambda x, y: md.signbit(x + y), (a([-0.0, -0.0], "float32"), a([-0.0, 0.0], "float32")), "bool", [True, False],
    ),
    Value("sign of -0. * 1, -(0.)", lambda x: md.signbit(md.stack([x * 1.0, -x])), (a(-0.0, "float32"),), "bool", [True, False]),
    Value("sign of abs(-0.)", lambda x: md.signbit(md.abs(x)), (a([-0.0], "float32"),), "bool", [False]),
    Value("1 / -0.", lambda x: 1.0 / x, (a([-0.0, 0.0], "float32"),), "float32", [-inf, inf]),
    Value("0. // -1, sign of it", lambda x: md.signbit(x // -1.0), (a([0.0], "float32"),), "bool", [True]),
    Value("(-0.) ** 3, ** -1", lambda x: md.stack([1.0 / x**3, x**-1]), (a(-0.0, "float32"),), "float32", [-inf, -inf]),
    Value(
        "atan2 of zeros", md.atan2, (a([0.0, -0.0, 0.0, -0.0], "float64"), a([0.0, 0.0, -0.0, -0.0], "float64")),
        "float64", [0, 0, math.pi, -math.pi],
    ),
    *(
        Value(
            f"nextafter of zeros, {d}", lambda x, y: md.signbit(md.nextafter(x, y)), (a([0.0, -0.0, -0.0, 0.0], d), a([-0.0, 0.0, -0.0, 0.0], d)),
            "bool", [True, False, True, False],
        )
        for d in ("float64", "float32", "float16", "bfloat16")
    ),
    Value("zeros in sort", lambda x: md.signbit(md.sort(x)), (a([0.0, -0.0, -1.0, 0.0], "float32"),), "bool", [True, False, True, False]),
    Value("0. == -0., 0. < -0.", lambda x, y: md.stack([x == y, x < y]), (a(0.0, "float32"), a(-0.0, "float32")), "bool", [True, False]),
    Value(
        "argmax, argsort of zeros", lambda x: md.concat([md.argsort(x), md.argmax(x, keepdims=True)]), (a([0.0, -0.0], "float32"),), "int64",
        [0, 1, 0],
    ),
    # integers that overflow
    Value("i1: -128 // -1, -128 % -1", lambda x, y: md.stack([x // y, x % y]), (a(-128, "int8"), a(-1, "int8")), "int8", [-128, 0]),
    Value("i4: -2**31 // -1, % -1", lambda x, y: md.stack([x // y, x % y]), (a(LO, "int32"), a(-1, "int32")), "int32", [LO, 0]),
    Value("i8: -2**63 // -1, % -1", lambda x, y: md.stack([x // y, x % y]), (a(-(2**63), "int64"), a(-1, "int64")), "int64", [-(2**63), 0]),
    Value(
        "u1: 200 + 100, 1 - 2, 16 * 17", lambda x: md.stack([x[0] + x[1], x[2] - x[3], x[4] * x[5]]),
        (a([200, 100, 1, 2, 16, 17], "uint8"),), "uint8", [44, 255, 16],
    ),
    Value("i1: abs, - of -128", lambda x: md.stack([md.abs(x), -x]), (a(-128, "int8"),), "int8", [-128, -128]),
    Value("u4: 3 // 0, 3 % 0", lambda x, y: md.stack([x // y, x % y]), (a(3, "uint32"), a(0, "uint32")), "uint32", [0, 0]),
    Value("0 ** 0, (-3) ** 3, 2 ** 31 wraps", lambda x, y: x**y, (a([0, -3, 2], "int32"), a([0, 3, 31], "int32")), "int32", [1, -27, LO]),
    Value("-8 >> 1", lambda x: x >> 1, (a([-8, -1], "int32"),), "int32", [-4, -1]),
    # more casts
    Value("f4 -> i1 of 300, -300, -inf", lambda x: x.to(md.int8), (a([300.0, -300.0, -inf], "float32"),), "int8", [127, -128, -128]),
    Value("f4 -> u4 of -1, 5e9, nan", lambda x: x.to(md.uint32), (a([-1.0, 5e9, nan], "float32"),), "uint32", [0, 2**32 - 1, 0]),
    Value("f8 -> u8 of 1e30, -1e30", lambda x: x.to(md.uint64), (a([1e30, -1e30], "float64"),), "uint64", [2**64 - 1, 0]),
    Value("bf16 -> i4 of inf, nan", lambda x: x.to(md.int32), (a([inf, nan], "bfloat16"),), "int32", [HI, 0]),
    Value("f2 -> u1 of -inf, 1e4", lambda x: x.to(md.uint8), (a([-inf, 1e4], "float16"),), "uint8", [0, 255]),
    Value("i8 -> i1 wraps", lambda x: x.to(md.int8), (a([300, -129], "int64"),), "int8", [44, 127]),
    Value("i8 -> u1 wraps", lambda x: x.to(md.uint8), (a([-1, 256], "int64"),), "uint8", [255, 0]),
    Value("f8 -> f4 overflows", lambda x: x.to(md.float32), (a([1e300, -1e300], "float64"),), "float32", [inf, -inf]),
    Value("f4 -> f2 rounds to even", lambda x: x.to(md.float16), (a([2049.0, 2051.0, 65520.0], "float32"),), "float16", [2048.0, 2052.0, inf]),
    Value("i8 -> f4 rounds to even", lambda x: x.to(md.float32), (a([2**24 + 1, 2**24 + 3], "int64"),), "float32", [2.0**24, 2.0**24 + 4]),
    Value("c8 -> f4 is the real part", lambda x: x.to(md.float32), (a([2 + 1j, -1j], "complex64"),), "float32", [2.0, 0.0]),
    Value("bool -> f4, i1", lambda x: x.to(md.float32), (a([True, False], "bool"),), "float32", [1.0, 0.0]),
    Value("numbers beyond a dtype", lambda x: x * 1e300, (a([1.0, -1.0], "float32"),), "float32", [inf, -inf]),
    # reductions of nothing
    Value("sum of nothing", md.sum, (a([], "float32"),), "float32", 0.0),
    Value("prod of nothing", md.prod, (a([], "int32"),), "int64", 1),
    Value("mean of nothing", md.mean, (a([], "float32"),), "float32", nan),
    Value("var of nothing", md.var, (a([], "float32"),), "float32", nan),
    Value("any, all of nothing", lambda x: md.stack([md.any(x), md.all(x)]), (a([], "bool"),), "bool", [False, True]),
    Value("sum over an empty axis", lambda x: md.sum(x, axis=0), (a([[], []], "float32"),), "float32", []),
    Value("sum over the axis of no elements", lambda x: md.sum(x, axis=1), (a([[], []], "float32"),), "float32", [0.0, 0.0]),
    Value("max of nothing", md.max, (a([], "float32"),), "", None, raises=ValueError),
    Value("min along an empty axis", lambda x: md.min(x, axis=1), (a([[], []], "float32"),), "", None, raises=ValueError),
    Value("argmax of nothing", md.argmax, (a([], "float32"),), "", None, raises=ValueError),
    Value("median of nothing", md.median, (a([], "float32"),), "", None, raises=ValueError),
    Value("logsumexp of nothing", md.logsumexp, (a([], "float32"),), "float32", -inf),
    Value("cumulative_sum of nothing", md.cumulative_sum, (a([], "float32"),), "float32", []),
    Value("sort of nothing", md.sort, (a([], "float32"),), "float32", []),
    Value("vector_norm of nothing", md.vector_norm, (a([], "float32"),), "float32", 0.0),
    Value("matmul over no elements", lambda x: x @ x.T, (a([[], []], "float32"),), "float32", [[0.0, 0.0], [0.0, 0.0]]),
    # subnormals
    Value("subnormal f8", lambda x: x * 0.5, (a([2e-308, 5e-324 * 4], "float64"),), "float64", [1e-308, 5e-324 * 2], flushes=("jax",)),
    Value("a subnormal passes through", lambda x: md.where(x > -1.0, x, 0.0), (a([1e-40], "float32"),), "float32", [1e-40], ulp=1, flushes=("jax",)),
    # out of range
    Value("x[5] of 3 elements", lambda x: x[5], (a([1.0, 2.0, 3.0], "float32"),), "", None, raises=IndexError),
    Value("x[i], i = 5", lambda x, i: x[i], (a([1.0, 2.0, 3.0], "float32"), a([5, -1], "int64")), "float32", [3.0, 3.0], raises=IndexError),
    Value("x.at[i].add(1), i = 5", lambda x, i: x.at[i].add(1.0), (PAIR, a([5], "int64")), "float32", [1.0, 2.0], raises=IndexError),
    Value(
        "no gradient to a dropped update", lambda x, i: md.grad(lambda v: md.sum(x.at[i].add(v)))(md.ones_like(x)),
        (PAIR, a([5, 1], "int64")), "float32", [0.0, 1.0], raises=IndexError,
    ),
    # matrices without a factor or an inverse
    Value("cholesky, indefinite", md.linalg.cholesky, (a([[1.0, 0.0], [0.0, -1.0]], "float32"),), "float32", [[nan] * 2] * 2, raises=ValueError),
    Value("cholesky reads the lower triangle", md.linalg.cholesky, (a([[4.0, 9.0], [2.0, 2.0]], "float32"),), "float32", [[2.0, 0.0], [1.0, 1.0]]),
    Value("inv, singular", md.linalg.inv, (SINGULAR,), "float32", [[nan] * 2] * 2, raises=ValueError),
    Value("solve, singular", md.linalg.solve, (SINGULAR, PAIR), "float32", [nan, nan], raises=ValueError),
    Value("det, singular", md.linalg.det, (SINGULAR,), "float32", 0.0),
]  # fmt: skip


def complaint(row: Value, backend: str, got: Any) -> list[str]:
    """How a result differs from its row, in words."""
    if got.dtype.name != row.dtype:
        return [f"{row.name}: dtype {got.dtype.name}, wanted {row.dtype}"]
    have = got.numpy()
    have = have.astype("float32") if row.dtype in ("bfloat16", "float16") else have
    want = np.asarray(row.value, have.dtype)
    if close(have, want, row.ulp) or (backend in row.flushes and close(have, np.zeros_like(have), 0)):
        return []
    return [f"{row.name}: {have.tolist()}, wanted {want.tolist()}"]


def tensors(row: Value) -> list[md.Tensor]:
    """The row's arguments on the backend in force."""
    return [md.tensor(data, dtype=dtype) for data, dtype in row.args]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_value_eager(backend: str):
    found = []
    with md.use_backend(backend):
        for row in VALUES:
            if row.raises is not None:
                try:
                    row.f(*tensors(row))
                except row.raises as error:
                    assert str(error), row.name
                else:
                    found.append(f"{row.name}: raised no {row.raises.__name__}")
                continue
            found += complaint(row, backend, row.f(*tensors(row)))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_value_traced(backend: str):
    rows = {row.name: row for row in VALUES if row.value is not None}
    errors: dict[str, Exception] = {}

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        out = {}
        for name, row in rows.items():
            try:
                out[name] = row.f(*inputs[name])
            except Exception as error:
                errors[name] = error
        return out

    with md.use_backend(backend):
        got = md.jit(run)({name: tensors(row) for name, row in rows.items()})
        found = [f"{name}: raised {type(e).__name__}: {e}" for name, e in errors.items()]
        for name, value in got.items():
            found += complaint(rows[name], backend, value)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_are_alike_while_tracing(backend: str):
    """What no trace can repair raises the same class there."""
    with md.use_backend(backend):
        for row in VALUES:
            if row.raises is not None and row.value is None:
                with pytest.raises(row.raises):
                    md.jit(row.f)(*tensors(row))


@functools.cache
def normals() -> np.ndarray:
    """64 draws of 1e5 float32 normals."""
    return np.random.default_rng(0).standard_normal((64, 100_000)).astype(np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("traced", [False, True])
def test_float32_sums_are_as_accurate_as_numpy(backend: str, traced: bool):
    """The root mean square error over the draws, which no single lucky draw decides."""
    x = normals()
    true = x.sum(axis=1, dtype=np.float64)
    rms = lambda sums: float(np.sqrt(np.mean((np.asarray(sums, np.float64) - true) ** 2)))
    with md.use_backend(backend):
        total = md.jit(md.sum) if traced else md.sum
        got = rms([total(md.asarray(row)).item() for row in x])
    assert got <= rms([row.sum() for row in x]), "less accurate than NumPy's pairwise sum"
