"""Elementwise equations as numba source: a table of scalar expressions, and the words for loading, storing and converting them.

Promises: each operation rounds to its dtype; integers wrap in their own width, x // 0 and x % 0 are 0 (Numba's own, under NumPy's error model), and
shifts past the width give 0 or the sign; float16 and bfloat16 are computed in float32 and rounded after every operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from minidl.backends import complex_values
from minidl.dtypes import DType, bfloat16, bool_, float16, float64
from minidl.graph import Equation, Literal

# {T}: the dtype, {W}: 64 bits of its kind, {S}: f32 or f64, {0} {1} {2}: operands, {n}: a param
_ANY = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "square": "{0} * {0}", "eq": "{0} == {1}", "ne": "{0} != {1}",
    "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}", "ge": "{0} >= {1}", "where": "{1} if {0} else {2}", "broadcast_to": "{0}",
    "real": "{0}", "imag": "{T}(0)", "conj": "{0}", "copy": "{0}", "alias": "{0}", "full": "{0}",
    "logical_and": "{0} & {1}", "logical_or": "{0} | {1}", "logical_xor": "{0} != {1}", "logical_not": "not {0}",
}  # fmt: skip
_VECTOR = "exp expm1 log log1p sin cos tanh erf".split()
_MATH = {n: f"math.{n}({{0}})" for n in "exp expm1 log log1p log10 sqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc".split()}
_E = "exp_{S}(-abs({0}))"
_FLOAT = _MATH | {
    **{n: f"{n}_{{S}}({{0}})" for n in _VECTOR},
    "neg": "-{0}", "abs": "abs({0})", "log2": "np.log2({0})", "rsqrt": "{T}(1) / math.sqrt({0})",
    "sigmoid": f"({{T}}(1) if {{0}} >= 0 else {_E}) / ({{T}}(1) + {_E})",
    "softplus": "vmax({0}, {T}(0)) + log1p_{S}(" + _E + ")", "erfinv": "erfinv(np.float64({0}))",
    "relu": "{T}(0) if {0} <= {T}(0) else {0}",
    "sign": "{0} if {0} != {0} else {T}(np.int64({0} > 0) - np.int64({0} < 0))",
    "floor": "np.floor({0})", "ceil": "np.ceil({0})", "round": "np.rint({0})", "trunc": "np.trunc({0})", "isnan": "{0} != {0}",
    "isinf": "abs({0}) == {T}(np.inf)", "isfinite": "abs({0}) < {T}(np.inf)", "signbit": "math.copysign({T}(1), {0}) < 0",
    "div": "{0} / {1}", "floor_divide": "float_floordiv({0}, {1})", "remainder": "float_mod({0}, {1})", "pow": "math.pow({0}, {1})",
    "maximum": "vmax({0}, {1})", "minimum": "vmin({0}, {1})", "clip": "clip({0}, {1}, {2})",
    "fmax": "{1} if {0} != {0} else ({0} if {1} != {1} else vmax({0}, {1}))",
    "fmin": "{1} if {0} != {0} else ({0} if {1} != {1} else vmin({0}, {1}))",
    "atan2": "math.atan2({0}, {1})", "hypot": "math.hypot({0}, {1})", "logaddexp": "np.logaddexp({0}, {1})", "copysign": "math.copysign({0}, {1})",
    "xlogy": "xlogy({0}, {1})", "nextafter": "np.nextafter({0}, {1})",
}  # fmt: skip
_UNSIGNED = {
    "neg": "{W}(0) - {0}", "abs": "{0}", "sign": "{0} > {T}(0)", "relu": "{0}", "floor": "{0}", "ceil": "{0}", "round": "{0}", "trunc": "{0}",
    "isnan": "False", "isinf": "False", "isfinite": "True", "signbit": "False", "floor_divide": "{W}({0}) // {W}({1})",
    "remainder": "{W}({0}) % {W}({1})", "pow": "uint_pow(np.uint64({0}), np.uint64({1}))",
    "maximum": "max({0}, {1})", "minimum": "min({0}, {1})", "fmax": "max({0}, {1})", "fmin": "min({0}, {1})", "clip": "min(max({0}, {1}), {2})",
    "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} ^ {1}", "bitwise_invert": "~{0}",
    "shift_left": "{W}({0}) << {W}({1}) if {1} < {T}({bits}) else {W}(0)", "shift_right": "{W}({0}) >> {W}({1}) if {1} < {T}({bits}) else {W}(0)",
}  # fmt: skip
_SIGNED = _UNSIGNED | {
    "abs": "abs({0})", "sign": "np.int64({0} > 0) - np.int64({0} < 0)", "relu": "max({0}, {T}(0))", "signbit": "{0} < 0",
    "floor_divide": "-{W}({0}) if {1} == -1 else {W}({0}) // {W}({1})",  # where that overflows, Numba's is 0
    "pow": "np.int64(0) if {1} < 0 else np.int64(uint_pow(np.uint64({0}), np.uint64({1})))",
    "shift_left": "{W}({0}) << {W}({1}) if 0 <= {1} < {bits} else {W}(0)",
    "shift_right": "{W}({0}) >> ({W}({1}) if 0 <= {1} < {bits} else {W}({bits} - 1))",
}  # fmt: skip
_BOOL = {
    "bitwise_and": "{0} & {1}", "bitwise_or": "{0} | {1}", "bitwise_xor": "{0} != {1}", "bitwise_invert": "not {0}", "maximum": "{0} | {1}",
    "minimum": "{0} & {1}", "fmax": "{0} | {1}", "fmin": "{0} & {1}", "isnan": "False", "isinf": "False", "isfinite": "True",
    "add": "{0} | {1}", "mul": "{0} & {1}", "lt": "(not {0}) & {1}", "gt": "{0} & (not {1})", "le": "(not {0}) | {1}",
    "ge": "{0} | (not {1})",
}  # fmt: skip
_COMPLEX = {
    "round": "complex(np.rint({0}.real), np.rint({0}.imag))", "log2": "np.log2({W}({0}))", "log10": "np.log10({W}({0}))",
    "real": "{0}.real", "imag": "{0}.imag", "conj": "{0}.conjugate()",
    "neg": "-{0}", "abs": "math.hypot({0}.real, {0}.imag)", "sigmoid": "complex_sigmoid({W}({0}))",
    "rsqrt": "np.divide({W}(1), np.sqrt({W}({0})))", "sign": "complex_sign({W}({0}))", "div": "np.divide({W}({0}), {W}({1}))",
    "pow": "complex_pow({W}({0}), {W}({1}))", "isnan": "({0}.real != {0}.real) | ({0}.imag != {0}.imag)",
    **{n: f"complex_{n}({{W}}({{0}}))" for n in complex_values.TABLE},
    "isinf": "(abs({0}.real) == np.inf) | (abs({0}.imag) == np.inf)", "isfinite": "(abs({0}.real) < np.inf) & (abs({0}.imag) < np.inf)",
}  # fmt: skip
_TABLES = {"float": _ANY | _FLOAT, "int": _ANY | _SIGNED, "uint": _ANY | _UNSIGNED, "bool": _ANY | _BOOL, "complex": _ANY | _COMPLEX}
_EXACT = frozenset("where broadcast_to copy alias full real imag conj neg abs relu maximum minimum fmax fmin clip copysign nextafter floor".split())
_WIDE = {"float": "np.float64", "int": "np.int64", "uint": "np.uint64", "bool": "bool", "complex": "np.complex128"}
#: What an element costs, in additions, where it is more than one.
_COST = dict.fromkeys(_MATH, 40) | dict.fromkeys(_VECTOR, 10) | {"div": 4, "sqrt": 6, "rsqrt": 8, "sigmoid": 14, "softplus": 20, "clip": 2}
_COST |= dict.fromkeys("pow erfinv root atan2 hypot logaddexp xlogy".split(), 40)
#: What libraries bring: the scalar expression, of several results a tuple of their dtypes, from the operands and params. The functions in it are in
#: BROUGHT of numba_kernels.
ELEMENTWISE: dict[str, Callable[..., str]] = {}


def is_half(dtype: DType) -> bool:
    """Whether numba has no arithmetic for this dtype, so that float32 computes it."""
    return dtype is float16 or dtype is bfloat16


def stored(dtype: DType) -> str:
    """The type of an element in memory."""
    return "np.uint16" if is_half(dtype) else "np.uint8" if dtype is bool_ else f"np.{dtype.name}"


def computed(dtype: DType) -> str:
    """The type of an element in a register."""
    return "np.float32" if is_half(dtype) else "bool" if dtype is bool_ else stored(dtype)


def in_vector(dtype: DType) -> str:
    """The suffix of the functions of numba_vector."""
    return "f64" if dtype is float64 else "f32"


def loaded(dtype: DType, text: str) -> str:
    """From memory to register."""
    return f"load_{dtype.short}({text})" if is_half(dtype) else f"({text} != 0)" if dtype is bool_ else text


def packed(dtype: DType, text: str) -> str:
    """From register to memory."""
    return f"store_{dtype.short}({text})" if is_half(dtype) else f"np.uint8({text})" if dtype is bool_ else text


def cast_text(source: DType, target: DType, x: str) -> str:
    """The conversion of a register: floats saturate to integers and nan becomes 0."""
    if source.is_complex and not target.is_complex:
        if target is bool_:
            return f"({x}.real != 0) | ({x}.imag != 0)"
        source, x = source.real, f"{x}.real"
    if target is bool_:
        return x if source is bool_ else f"{x} != {computed(source)}(0)"
    if target.is_integer and source.is_float:
        info, kind = np.iinfo(target.numpy), computed(target)
        high, low = 2.0 ** (target.bits - (target.kind == "int")), float(info.min)
        x = f"np.float64({x})"
        below = f"{kind}({info.min}) if {x} <= {low} else {kind}(0)"
        return f"({below}) if not {x} > {low} else ({kind}({info.max}) if {x} >= {high} else {kind}({x}))"
    if target is float16 and source is float64:
        x = f"to_odd({x})"
    if target.is_complex and not source.is_complex:
        x = f"{computed(target.real)}({x})"
    x = f"{computed(target)}({x})"
    return f"round_{target.short}({x})" if is_half(target) and target is not source else x


def expression(equation: Equation, operands: Sequence[str]) -> str | None:
    """The scalar expression of an elementwise equation, or None where there is none for its dtypes."""
    name, out, params = equation.primitive.name, equation.outputs[0].dtype, equation.params
    source = equation.inputs[-1].dtype if equation.inputs else out
    if name == "cast":
        return cast_text(source, out, operands[0])
    if name in ELEMENTWISE:
        text = ELEMENTWISE[name](*operands, **params)
        if equation.primitive.multiple:
            return text
    elif name == "root":
        text = f"math.sqrt({operands[0]})" if params["p"] == 2 else f"math.pow({operands[0]}, {computed(source)}({1.0 / params['p']!r}))"
    elif name == "nextafter" and is_half(source):
        x, y = operands
        text = f"load_{source.short}(next_half({x}, {y}, store_{source.short}({x}), store_{source.short}({y})))"
    elif name == "clip" and source.is_float and all(isinstance(a, Literal) and a.value == a.value for a in equation.inputs[1:]):
        text, low, high = operands
        text = text if equation.inputs[1].value == -math.inf else f"at_least({text}, {low})"  # type: ignore[union-attr]
        text = text if equation.inputs[2].value == math.inf else f"at_most({text}, {high})"  # type: ignore[union-attr]
    else:
        template = _TABLES[source.kind].get(name)
        if template is None:
            return None
        text = template.format(*operands, T=computed(source), W=_WIDE[source.kind], S=in_vector(source), bits=source.bits)
    text = text if out is bool_ else f"{computed(out)}({text})"
    return f"round_{out.short}({text})" if is_half(out) and name not in _EXACT else text


def cost(equation: Equation) -> int:
    """About what one element of an equation costs, in additions."""
    name, dtype = equation.primitive.name, equation.outputs[0].dtype
    return (40 if name in ELEMENTWISE else _COST.get(name, 1)) * (4 if dtype.is_complex or is_half(dtype) else 1)


def is_elementwise(equation: Equation) -> bool:
    """Whether the generator below can put this equation into a loop."""
    name = equation.primitive.name
    known = getattr(equation.primitive, "elementwise", False) or name in ("broadcast_to", "full", "copy")
    return known and name != "bitcast" and expression(equation, ["x"] * max(1, len(equation.inputs))) is not None


def collapse(shape: Sequence[int], flags: Sequence[Sequence[bool]]) -> tuple[list[int], list[tuple[bool, ...]]]:
    """Drop axes of size one and merge neighbours on which every operand has the same flag."""
    sizes: list[int] = []
    columns: list[tuple[bool, ...]] = []
    for axis, n in enumerate(shape):
        column = tuple(f[axis] for f in flags)
        if n == 1:
            continue
        if columns and columns[-1] == column:
            sizes[-1] *= n
        else:
            sizes.append(n)
            columns.append(column)
    if not sizes:
        sizes, columns = [1], [(True,) * len(flags)]
    return sizes, [tuple(c[i] for c in columns) for i in range(len(flags))]


def wide(dtype: DType) -> str:
    """The type that sums and products accumulate in."""
    return {"float": "np.float64", "complex": "np.complex128", "int": "np.int64", "uint": "np.uint64"}.get(dtype.kind, "np.uint8")


def lowest(dtype: DType, sign: int = -1) -> str:
    """The start of a maximum (sign -1) or a minimum (+1)."""
    if dtype is bool_:
        return f"np.uint8({int(sign > 0)})"
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        return f"{computed(dtype)}({info.min if sign < 0 else info.max})"
    return f"{computed(dtype)}({sign}*np.inf)"


def extreme(dtype: DType, name: str) -> str:
    """`f({0}, {1})`, the larger or smaller of two."""
    if dtype is bool_:
        return "{0} | {1}" if name == "max" else "{0} & {1}"
    return f"v{name}({{0}}, {{1}})" if dtype.is_float else f"{computed(dtype)}({name}({{0}}, {{1}}))"
