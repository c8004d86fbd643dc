"""Rules for functions of single elements.

Each is exact in IEEE arithmetic for every element; where a rule holds for some dtypes only, it says so. (x - 0.0 is x for both zeros, x + 0.0 is not;
x + -y is x - y by definition; dividing by a power of two and multiplying by its reciprocal round the same real number.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl import DType
from minidl import broadcast_shapes as broadcast
from minidl.extend import Equation, Literal, Rewriter, Var, get_backend, rule

Atom = Var | Literal
#: What every backend computes alike to the last bit, so that it may be computed while tracing.
_EXACT = tuple("add sub mul div neg abs eq ne lt le gt ge logical_and logical_or logical_not where".split())
#: Functions whose array operands may as well be numbers, on every backend.
_TAKES_NUMBERS = tuple("add sub mul div maximum minimum eq ne lt le gt ge where".split())


def _fits(e: Equation, a: Atom) -> Atom | None:
    """An operand that may stand for the whole result."""
    return a if a.shape == e.outputs[0].shape and a.dtype is e.outputs[0].dtype else None


@rule(*_EXACT)
def fold(b: Rewriter, e: Equation) -> Atom | None:
    """The constant that an equation of constants makes."""
    values = [b.constant(a) for a in e.inputs]
    if None in values or (e.primitive.name in ("mul", "div", "abs") and e.inputs[0].dtype.is_complex):
        return None
    xp = get_backend("numpy", "cpu")
    with xp.scope():
        value = getattr(xp, e.primitive.name)(*(xp.scalar(v, a.dtype) for v, a in zip(values, e.inputs, strict=True)), **e.params)
        return b.full(e, xp.to_numpy(value).item())


@rule(*_TAKES_NUMBERS)
def number(b: Rewriter, e: Equation) -> Atom | None:
    """A constant array that only says a number is that number."""
    values = [b.constant(a) if isinstance(a, Var) else None for a in e.inputs]
    if all(v is None for v in values):
        return None
    inputs = list(e.inputs)
    for i, v in enumerate(values):
        rest = [a.shape for k, a in enumerate(inputs) if k != i]
        if v is not None and (i or e.primitive.name != "where") and broadcast(*rest) == e.outputs[0].shape:
            inputs[i] = Literal(v, e.inputs[i].dtype)
    return None if tuple(inputs) == e.inputs else b.make(e, e.primitive.name, tuple(inputs), **e.params)


@rule()
def spread_later(b: Rewriter, e: Equation) -> Atom | None:
    """An operand that was only broadcast is read as it was, where the function itself broadcasts it; where all operands were, the function is
    computed on the small arrays, and its result broadcast."""
    (out,), inputs = e.outputs, list(e.inputs)
    for i, a in enumerate(e.inputs):
        before = b.source(a, "broadcast_to", "reshape")
        if before is not None and (before.primitive.name != "reshape" or _leads(before)):
            rest = [v.shape for k, v in enumerate(inputs) if k != i]
            if broadcast(before.inputs[0].shape, *rest) == out.shape:
                inputs[i] = before.inputs[0]
    if any(a is not was for a, was in zip(inputs, e.inputs, strict=True)):
        return b.make(e, e.primitive.name, tuple(inputs), **e.params)
    spread = [b.source(a, "broadcast_to") for a in inputs]
    if not any(s is not None and b.alone(a) for s, a in zip(spread, inputs, strict=True)):
        return None
    inputs = [a if s is None else s.inputs[0] for s, a in zip(spread, inputs, strict=True)]
    if broadcast(*(a.shape for a in inputs)) == out.shape:
        return None
    return b.make(e, "broadcast_to", (b.make(e, e.primitive.name, tuple(inputs), **e.params),), shape=out.shape)


def _leads(e: Equation) -> bool:
    """A reshape that puts axes of size one in front."""
    x, shape = e.inputs[0], e.outputs[0].shape
    return len(shape) > len(x.shape) and shape[len(shape) - len(x.shape) :] == x.shape and math.prod(shape[: len(shape) - len(x.shape)]) == 1


@rule()
def rearrange_later(b: Rewriter, e: Equation) -> Atom | None:
    """f(permute(x), permute(y)) is permute(f(x, y)), f(reshape(x)) is reshape(f(x)), where nobody else reads them: the rearrangement may then meet
    one that undoes it, a product or a reduction that takes it in."""
    before = [b.source(a, "permute", "reshape") for a in e.inputs if a.shape]
    first = before[0] if before else None
    if first is None or not all(
        x is not None and x.primitive is first.primitive and x.params == first.params and x.inputs[0].shape == first.inputs[0].shape for x in before
    ):
        return None
    if not all(b.alone(a) or e.inputs.count(a) == b.reads(a) for a in e.inputs if a.shape):
        return None
    inner = iter(before)
    inputs = tuple(next(inner).inputs[0] if a.shape else a for a in e.inputs)  # type: ignore[union-attr]
    return b.make(e, first.primitive.name, (b.make(e, e.primitive.name, inputs, **e.params),), **first.params)


# ---- sums and products --------------------------------------------------------------------------------------------------------------------
def _minus(b: Rewriter, e: Equation, a: Atom) -> Atom | None:
    """-a, where that costs nothing: a is a negation, or a float constant."""
    if (before := b.source(a, "neg")) is not None:
        return before.inputs[0]
    return Literal(-a.value, a.dtype) if isinstance(a, Literal) and a.dtype.is_float else None


@rule("add")
def add(b: Rewriter, e: Equation) -> Atom | None:
    """x + -0.0 is x, as is x + 0 of integers; x + -y is x - y."""
    for x, y in (e.inputs, e.inputs[::-1]):
        if isinstance(y, Literal) and (repr(y.value) == "-0.0" or (y.dtype.is_integer and y.value == 0)) and _fits(e, x):
            return x
        if (before := b.source(y, "neg")) is not None:
            return b.make(e, "sub", (x, before.inputs[0]))
    return None


@rule("sub")
def sub(b: Rewriter, e: Equation) -> Atom | None:
    """x - 0.0 is x; x - -y is x + y."""
    x, y = e.inputs
    if isinstance(y, Literal) and repr(y.value) in ("0.0", "0") and _fits(e, x):
        return x
    if (before := b.source(y, "neg")) is not None:
        return b.make(e, "add", (x, before.inputs[0]))
    return None


@rule("mul")
def mul(b: Rewriter, e: Equation) -> Atom | None:
    """x * 1 is x, x * -1 is -x, x * x is square(x), -x * -y is x * y, -x * 2.0 is x * -2.0, all of reals; x * 0 is 0 of integers."""
    dtype = e.outputs[0].dtype
    if dtype.is_complex:  # the product with 1 multiplies by an imaginary 0.0, too: inf and -0.0 feel it
        return None
    for x, y in (e.inputs, e.inputs[::-1]):
        if isinstance(y, Literal) and isinstance(x, Var):
            if y.value == 1 and _fits(e, x):
                return x
            if y.value == -1 and x.shape == e.outputs[0].shape:
                return b.make(e, "neg", (x,))
            if y.value == 0 and dtype.is_integer:
                return b.full(e, 0)
    x, y = e.inputs
    if x is y and isinstance(x, Var) and (dtype.is_integer or dtype.is_float):
        return b.make(e, "square", (x,))
    if b.source(x, "neg") or b.source(y, "neg"):
        a, c = _minus(b, e, x), _minus(b, e, y)
        if a is not None and c is not None:
            return b.make(e, "mul", (a, c))
    return None


@rule("div")
def div(b: Rewriter, e: Equation) -> Atom | None:
    """x / 1 is x; x / 8.0 is x * 0.125; -x / -y is x / y, and -x / 3.0 is x / -3.0, all of reals."""
    x, y = e.inputs
    dtype = e.outputs[0].dtype
    if dtype.is_complex:
        return None
    if isinstance(y, Literal) and y.value == 1 and _fits(e, x):
        return x
    if isinstance(y, Literal) and isinstance(y.value, float) and abs(math.frexp(y.value)[0]) == 0.5:
        if abs(math.log2(abs(y.value))) <= (14 if dtype.bits == 16 else 126):  # the reciprocal is a normal number
            return b.make(e, "mul", (x, Literal(1 / y.value, y.dtype)))
    if b.source(x, "neg") or b.source(y, "neg"):
        a, c = _minus(b, e, x), _minus(b, e, y)
        if a is not None and c is not None:
            return b.make(e, "div", (a, c))
    return None


@rule("neg")
def neg(b: Rewriter, e: Equation) -> Atom | None:
    """-(-x) is x; -(x * 2.0) is x * -2.0, and so with /."""
    (x,) = e.inputs
    if (before := b.source(x, "neg")) is not None:
        return before.inputs[0]
    before = b.source(x, "mul", "div")
    if before is None or not b.alone(x) or not x.dtype.is_float:
        return None
    for i, a in enumerate(before.inputs):
        if isinstance(a, Literal):
            return b.make(e, before.primitive.name, (*before.inputs[:i], Literal(-a.value, a.dtype), *before.inputs[i + 1 :]))
    return None


#: f(g(x)) is f(x), for reals.
_ABSORBS = {"abs": ("abs", "neg"), "square": ("abs", "neg")}
#: f(g(x)) is g(x): g's results are what f leaves alone.
_FIXED = dict.fromkeys(("floor", "ceil", "round", "trunc"), ("floor", "ceil", "round", "trunc")) | {"abs": ("square", "exp"), "relu": ("relu",)}


@rule("abs", "square", "floor", "ceil", "round", "trunc", "relu")
def absorb(b: Rewriter, e: Equation) -> Atom | None:
    """|-x| is |x|, floor(floor(x)) is floor(x), integers have nothing to round, and their like."""
    (x,), name = e.inputs, e.primitive.name
    if x.dtype.is_complex or (x.dtype.is_integer and name == "abs"):
        return None
    if x.dtype.is_integer and name in ("floor", "ceil", "round", "trunc"):
        return x
    if b.source(x, *_FIXED.get(name, ())):
        return x
    before = b.source(x, *_ABSORBS.get(name, ()))
    return None if before is None or before.inputs[0].dtype is not x.dtype else b.make(e, name, before.inputs)  # |z| of a complex z is real


@rule("real", "conj", "imag")
def real(b: Rewriter, e: Equation) -> Atom | None:
    """The real part of a real number, or its conjugate, is itself, and its imaginary part is 0."""
    if e.inputs[0].dtype.is_complex:
        return None
    return e.inputs[0] if e.primitive.name != "imag" else b.full(e, {"bool": False, "float": 0.0}.get(e.inputs[0].dtype.kind, 0))


# ---- logic and choice ---------------------------------------------------------------------------------------------------------------------
@rule("logical_and", "logical_or")
def decided(b: Rewriter, e: Equation) -> Atom | None:
    """A logical operation that one constant decides is that constant, or the other operand."""
    decisive = e.primitive.name == "logical_or"
    values = [b.constant(a) for a in e.inputs]
    if decisive in values:
        return b.full(e, decisive)
    for value, other in zip(values, reversed(e.inputs), strict=True):
        if value is not None and _fits(e, other):
            return other
    return None


@rule("where")
def choice(b: Rewriter, e: Equation) -> Atom | None:
    """A choice by a constant, between two equals, by a negation, or between choices by the same condition."""
    c, x, y = e.inputs
    if (value := b.constant(c)) is not None:
        return _fits(e, x if value else y)
    if x is y and _fits(e, x):
        return x
    if (before := b.source(c, "logical_not")) is not None:
        return b.make(e, "where", (before.inputs[0], y, x))
    for i, a in ((1, x), (2, y)):
        before = b.source(a, "where")
        if before is not None and before.inputs[0] is c:
            inputs = [c, x, y]
            inputs[i] = before.inputs[i]
            if broadcast(*(v.shape for v in inputs)) == e.outputs[0].shape:
                return b.make(e, "where", tuple(inputs))
    return None


# ---- conversions --------------------------------------------------------------------------------------------------------------------------
#: The bits that a dtype's numbers need as integers, and the bits of a float's significand.
SIGNIFICAND = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
_EXPONENT = {"float16": 5, "bfloat16": 8, "float32": 8, "float64": 11}


def keeps(a: DType, to: DType) -> bool:
    """Whether each number of one dtype is a number of the other."""
    if a is to or (a.kind == "bool" and (to.is_integer or to.is_float)):
        return True
    if a.is_integer and to.is_integer:
        return to.bits > a.bits if a.kind == "uint" or to.kind == a.kind else False
    if a.is_integer and to.is_float:
        return a.bits - (a.kind != "uint") <= SIGNIFICAND[to.name] and to.bits > 16
    return a.is_float and to.is_float and SIGNIFICAND[a.name] <= SIGNIFICAND[to.name] and _EXPONENT[a.name] <= _EXPONENT[to.name]


@rule("cast", "bitcast")
def conversion(b: Rewriter, e: Equation) -> Atom | None:
    """To the dtype it has; or by way of a dtype that holds the same numbers."""
    (x,), to, name = e.inputs, e.params["dtype"], e.primitive.name
    if to is x.dtype:
        return x
    before = b.source(x, name)
    if before is None or (name == "cast" and not keeps(before.inputs[0].dtype, x.dtype)):
        return None
    if name == "cast" and to.is_integer and x.dtype.is_float and not before.inputs[0].dtype.is_float and not keeps(before.inputs[0].dtype, to):
        return None  # integers wrap around, floats are cut off at the ends
    return b.make(e, name, before.inputs, dtype=to)


@rule("cast")
def cast_constant(b: Rewriter, e: Equation) -> Atom | None:
    """A constant of another dtype that holds the same number."""
    value, to, was = b.constant(e.inputs[0]), e.params["dtype"], e.inputs[0].dtype
    if value is None or was.is_complex or to.is_complex:
        return None
    kind: Any = bool if to.kind == "bool" else int if to.is_integer else float
    return b.full(e, kind(np.asarray(value, was.numpy).item())) if keeps(was, to) else None  # the number as its dtype holds it
