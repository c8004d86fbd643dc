"""How each primitive is written in ONNX: a function (writer, equation, names of the inputs) to the names of the outputs.

Promises: operations of the operator set 18 alone; what the program computes, with the exceptions that `export_onnx` states.
Source: the operator schemas of the ONNX standard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl as md
from minidl.deploy.onnx_writer import Writer

OPERATIONS: dict[str, Callable[..., Any]] = {}
#: Integers for which runtimes have no arithmetic; it is done in int64 then, and what is too large wraps.
_NARROW = (md.int8, md.int16, md.uint8, md.uint16, md.uint32)


def _named(**ops: str) -> None:
    """Primitives that are one operation of the same arguments."""
    for name, op in ops.items():
        OPERATIONS[name] = lambda w, e, *xs, op=op: w.node(op, *xs)


_named(
    exp="Exp", log="Log", sqrt="Sqrt", sin="Sin", cos="Cos", tan="Tan", asin="Asin", acos="Acos", atan="Atan", sinh="Sinh", cosh="Cosh", tanh="Tanh",
    asinh="Asinh", acosh="Acosh", atanh="Atanh", sigmoid="Sigmoid", softplus="Softplus", erf="Erf", relu="Relu", floor="Floor",
    ceil="Ceil", round="Round", abs="Abs", sign="Sign", isnan="IsNaN", isinf="IsInf", logical_not="Not", div="Div", pow="Pow", maximum="Max",
    minimum="Min", eq="Equal", lt="Less", le="LessOrEqual", gt="Greater", ge="GreaterOrEqual", logical_and="And", logical_or="Or",
    logical_xor="Xor",
)  # fmt: skip
for _name, _op, _bool in (("and", "BitwiseAnd", "And"), ("or", "BitwiseOr", "Or"), ("xor", "BitwiseXor", "Xor"), ("invert", "BitwiseNot", "Not")):
    OPERATIONS[f"bitwise_{_name}"] = lambda w, e, *xs, ops=(_op, _bool): w.node(ops[e.inputs[0].dtype is md.bool], *xs)


def _operation(f: Callable[..., Any]) -> Callable[..., Any]:
    """Note a function under its name, without the underscores."""
    OPERATIONS[f.__name__.strip("_")] = f
    return f


# ---- arithmetic -----------------------------------------------------------------------------------------------------------------------------
def _wrapping(op: str) -> Callable[..., Any]:
    def write(w: Writer, e: Any, x: str, y: str) -> str:
        dtype = e.outputs[0].dtype
        if dtype not in _NARROW:
            return w.node(op, x, y)
        wide = w.node(op, w.cast(x, md.int64), w.cast(y, md.int64))
        wide = w.node("BitwiseAnd", wide, w.scalar(2**dtype.bits - 1, md.int64))
        if dtype.kind == "int":  # the upper half stands for the negative ones
            low = w.node("Sub", wide, w.scalar(2**dtype.bits, md.int64))
            wide = w.node("Where", w.node("Less", wide, w.scalar(2 ** (dtype.bits - 1), md.int64)), wide, low)
        return w.cast(wide, dtype)

    return write


for _name, _op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul")):
    OPERATIONS[_name] = _wrapping(_op)


def _number(w: Writer, e: Any, value: float) -> str:
    return w.scalar(value, e.inputs[0].dtype)


@_operation
def _neg(w: Writer, e: Any, x: str) -> str:
    dtype = e.outputs[0].dtype
    return OPERATIONS["sub"](w, e, w.scalar(0, dtype), x) if dtype in _NARROW or dtype.kind == "uint" else w.node("Neg", x)


@_operation
def _square(w: Writer, e: Any, x: str) -> str:
    return OPERATIONS["mul"](w, e, x, x)


@_operation
def _rsqrt(w: Writer, e: Any, x: str) -> str:
    return w.node("Reciprocal", w.node("Sqrt", x))


@_operation
def _expm1(w: Writer, e: Any, x: str) -> str:
    """tanh(x / 2) (exp(x) + 1), which keeps its digits near 0; the other form where that is inf."""
    half = w.node("Tanh", w.node("Mul", x, _number(w, e, 0.5)))
    grown = w.node("Exp", x)
    near = w.node("Mul", half, w.node("Add", grown, _number(w, e, 1)))
    return w.node("Where", w.node("Less", w.node("Abs", x), _number(w, e, 1)), near, w.node("Sub", grown, _number(w, e, 1)))


@_operation
def _log1p(w: Writer, e: Any, x: str) -> str:
    """log(u) x / (u - 1) with u = 1 + x as rounded: the digits that u lost come back (W. Kahan's form)."""
    one = _number(w, e, 1)
    u = w.node("Add", x, one)
    lost = w.node("Mul", w.node("Log", u), w.node("Div", x, w.node("Sub", u, one)))
    large = w.node("Greater", u, w.scalar(float(np.finfo(e.inputs[0].dtype.numpy).max) / 4, e.inputs[0].dtype))
    return w.node("Where", w.node("Equal", u, one), x, w.node("Where", large, w.node("Log", u), lost))


@_operation
def _log2(w: Writer, e: Any, x: str) -> str:
    return w.node("Mul", w.node("Log", x), _number(w, e, 1 / math.log(2)))


@_operation
def _log10(w: Writer, e: Any, x: str) -> str:
    return w.node("Mul", w.node("Log", x), _number(w, e, 1 / math.log(10)))


@_operation
def _trunc(w: Writer, e: Any, x: str) -> str:
    return w.node("Mul", w.node("Sign", x), w.node("Floor", w.node("Abs", x)))


@_operation
def _isfinite(w: Writer, e: Any, x: str) -> str:
    return w.node("Not", w.node("Or", w.node("IsNaN", x), w.node("IsInf", x)))


@_operation
def _signbit(w: Writer, e: Any, x: str) -> str:
    zero = _number(w, e, 0)
    return w.node("Or", w.node("Less", x, zero), w.node("Less", w.node("Reciprocal", x), zero))


@_operation
def _copysign(w: Writer, e: Any, x: str, y: str) -> str:
    size = w.node("Abs", x)
    return w.node("Where", _signbit(w, e, y), w.node("Neg", size), size)


@_operation
def _ne(w: Writer, e: Any, x: str, y: str) -> str:
    return w.node("Not", w.node("Equal", x, y))


@_operation
def _remainder(w: Writer, e: Any, x: str, y: str) -> str:
    if not e.outputs[0].dtype.is_float:
        return w.node("Mod", x, y)
    rest, zero = w.node("Mod", x, y, fmod=1), _number(w, e, 0)
    other = w.node("Xor", w.node("Less", rest, zero), w.node("Less", y, zero))
    wrong = w.node("And", other, _ne(w, e, rest, zero))
    return w.node("Where", wrong, w.node("Add", rest, y), rest)


@_operation
def _floor_divide(w: Writer, e: Any, x: str, y: str) -> str:
    whole = w.node("Div", w.node("Sub", x, _remainder(w, e, x, y)), y)
    if not e.outputs[0].dtype.is_float:
        return whole
    plain = w.node("Floor", w.node("Div", x, y))  # the other form is nan for an x or y that is inf, and for y = 0
    return w.node("Where", w.node("IsNaN", whole), plain, w.node("Round", whole))


def _shifts(direction: str) -> Callable[..., Any]:
    """BitShift is for unsigned numbers; others are shifted as the 64 bits they have there, negative ones to the right as their complements."""

    def write(w: Writer, e: Any, x: str, y: str) -> str:
        dtype = e.outputs[0].dtype
        if dtype in (md.uint8, md.uint32, md.uint64):
            return w.node("BitShift", x, y, direction=direction)
        x, by = w.cast(x, md.int64), w.cast(y, md.uint64)
        signed = dtype.kind == "int" and direction == "RIGHT"
        zero, ones = w.scalar(0, md.int64), w.scalar(-1, md.int64)
        flips = w.node("Where", w.node("Less", x, zero), ones, zero) if signed else ""
        bits = w.cast(w.node("BitwiseXor", x, flips) if signed else x, md.uint64)
        moved = w.cast(w.node("BitShift", bits, by, direction=direction), md.int64)
        return w.cast(w.node("BitwiseXor", moved, flips) if signed else moved, dtype)

    return write


OPERATIONS["shift_left"], OPERATIONS["shift_right"] = _shifts("LEFT"), _shifts("RIGHT")


@_operation
def _where(w: Writer, e: Any, c: str, x: str, y: str) -> str:
    dtype = e.outputs[0].dtype
    if dtype is md.bool:
        return w.node("Or", w.node("And", c, x), w.node("And", w.node("Not", c), y))
    if dtype in _NARROW:
        return w.cast(w.node("Where", c, w.cast(x, md.int64), w.cast(y, md.int64)), dtype)
    return w.node("Where", c, x, y)


@_operation
def _clip(w: Writer, e: Any, x: str, low: str, high: str) -> str:
    ends = ["" if getattr(a, "value", 0.0) in (-math.inf, math.inf) else name for a, name in zip(e.inputs[1:], (low, high), strict=True)]
    return w.node("Clip", x, *ends)


@_operation
def _cast(w: Writer, e: Any, x: str, /) -> str:
    return w.cast(x, e.params["dtype"])


@_operation
def _gelu(w: Writer, e: Any, x: str) -> str:
    if e.params["tanh"]:
        cube = w.node("Mul", w.node("Mul", w.node("Mul", x, x), x), _number(w, e, 0.044715))
        inner = w.node("Tanh", w.node("Mul", w.node("Add", x, cube), _number(w, e, math.sqrt(2 / math.pi))))
    else:
        inner = w.node("Erf", w.node("Div", x, _number(w, e, math.sqrt(2))))
    return w.node("Mul", w.node("Mul", x, w.node("Add", inner, _number(w, e, 1))), _number(w, e, 0.5))


# ---- creation and rearrangement -------------------------------------------------------------------------------------------------------------
@_operation
def _full(w: Writer, e: Any) -> str:
    shape, value = e.params["shape"], w.scalar(e.params["value"], e.params["dtype"])
    return value if shape == () else w.node("Expand", value, w.sizes(shape))


@_operation
def _iota(w: Writer, e: Any) -> str:
    size, dtype = e.params["size"], e.params["dtype"]
    if not hasattr(size, "per"):
        return w.constant(np.arange(size).astype(dtype.numpy))
    zero, one = w.scalar(0, md.int64), w.scalar(1, md.int64)
    out = w.node("Range", zero, w.node("Squeeze", w.sizes((size,))), one)
    return out if dtype is md.int64 else w.cast(out, dtype)


@_operation
def _reshape(w: Writer, e: Any, x: str) -> str:
    shape = e.params["shape"]
    return w.node("Reshape", x, w.sizes(shape, free=True), **({"allowzero": 1} if 0 in shape else {}))


@_operation
def _permute(w: Writer, e: Any, x: str) -> str:
    return w.node("Transpose", x, perm=list(e.params["axes"]))


@_operation
def _broadcast_to(w: Writer, e: Any, x: str) -> str:
    return w.node("Expand", x, w.sizes(e.params["shape"]))


@_operation
def _flip(w: Writer, e: Any, x: str) -> str:
    axes = e.params["axes"]
    n = len(axes)
    return w.node("Slice", x, w.ints([-1] * n), w.ints([-(2**63)] * n), w.ints(axes), w.ints([-1] * n)) if n else x


@_operation
def _slice(w: Writer, e: Any, x: str) -> str:
    p, shape = e.params, e.inputs[0].shape
    rows = list(zip(p["start"], p["stop"], p["step"], strict=True))
    axes = [i for i, (a, b, s) in enumerate(rows) if (a, s) != (0, 1) or not _same(b, shape[i])]
    if not axes:
        return x
    start, stop, step = (w.sizes([rows[i][k] for i in axes]) for k in range(3))
    return w.node("Slice", x, start, stop, w.ints(axes), step)


def _same(a: Any, b: Any) -> bool:
    return (getattr(a, "per", 0), getattr(a, "rest", a)) == (getattr(b, "per", 0), getattr(b, "rest", b))


@_operation
def _pad(w: Writer, e: Any, x: str) -> str:
    widths = e.params["widths"]
    pads = w.sizes([lo for lo, _ in widths] + [hi for _, hi in widths])
    return w.node("Pad", x, pads, w.scalar(e.params["value"], e.inputs[0].dtype))


@_operation
def _unslice(w: Writer, e: Any, x: str) -> str:
    p = e.params
    if any(s != 1 for s in p["step"]):
        raise NotImplementedError("export_onnx: ONNX has no operation that writes every other element, as x.at[::2] does; write at positions instead")
    after = [0 if _same(stop, n) else n - stop for stop, n in zip(p["stop"], p["shape"], strict=True)]
    return w.node("Pad", x, w.sizes([*p["start"], *after]), w.scalar(0, e.inputs[0].dtype))


@_operation
def _tril(w: Writer, e: Any, x: str) -> str:
    return w.node("Trilu", x, w.scalar(e.params["k"], md.int64), upper=0)


@_operation
def _triu(w: Writer, e: Any, x: str) -> str:
    return w.node("Trilu", x, w.scalar(e.params["k"], md.int64), upper=1)


@_operation
def _concat(w: Writer, e: Any, *xs: str) -> str:
    return w.node("Concat", *xs, axis=e.params["axis"])


# ---- products and windows -------------------------------------------------------------------------------------------------------------------
@_operation
def _dot_general(w: Writer, e: Any, x: str, y: str) -> str:
    (cx, cy), (bx, by) = e.params["contract"], e.params["batch"]
    a, b = e.inputs
    fx = [i for i in range(a.ndim) if i not in cx and i not in bx]
    fy = [i for i in range(b.ndim) if i not in cy and i not in by]
    if not bx and len(cx) == 1 and b.ndim == 2 and cx[0] == a.ndim - 1:  # what a layer computes
        return w.node("MatMul", x, y if cy == (0,) else w.node("Transpose", y, perm=[1, 0]))
    left, right = _moved(w, x, (*bx, *fx, *cx)), _moved(w, y, (*by, *cy, *fy))
    lead = [a.shape[i] for i in bx]
    if len(fx) == len(cx) == len(fy) == 1:
        return w.node("MatMul", left, right)
    rows, inner, columns = (w.count(v.shape[i] for i in axes) for v, axes in ((a, fx), (a, cx), (b, fy)))
    left = w.node("Reshape", left, w.sizes([*lead, rows, inner], free=True))
    right = w.node("Reshape", right, w.sizes([*lead, inner, columns], free=True))
    return w.node("Reshape", w.node("MatMul", left, right), w.sizes(e.outputs[0].shape, free=True))


def _moved(w: Writer, x: str, axes: tuple[int, ...]) -> str:
    return x if axes == tuple(range(len(axes))) else w.node("Transpose", x, perm=list(axes))


@_operation
def _dot_int8(w: Writer, e: Any, x: str, y: str) -> str:
    return w.node("MatMulInteger", x, w.node("Transpose", y, perm=[1, 0]))


def _windows(p: dict[str, Any]) -> dict[str, Any]:
    low, high = zip(*p["padding"], strict=True)
    return {"strides": list(p["stride"]), "pads": [*low, *high], "dilations": list(p["dilation"])}


@_operation
def _conv(w: Writer, e: Any, x: str, y: str) -> str:
    return w.node("Conv", x, y, group=e.params["groups"], **_windows(e.params))


@_operation
def _conv_dx(w: Writer, e: Any, g: str, y: str) -> str:
    p = e.params
    sizes = zip(e.inputs[0].shape[2:], e.inputs[1].shape[2:], p["x_shape"][2:], p["stride"], p["padding"], p["dilation"], strict=True)
    more = [n - (s * (m - 1) + d * (k - 1) + 1 - lo - hi) for m, k, n, s, (lo, hi), d in sizes]
    return w.node("ConvTranspose", g, y, group=p["groups"], output_padding=more, **_windows(p))


@_operation
def _max_pool(w: Writer, e: Any, x: str) -> list[str]:
    p, shape = e.params, e.inputs[0].shape
    if e.outputs[1] in w.wanted:
        raise NotImplementedError("export_onnx: ONNX counts the places of maxima otherwise than minidl; return the maxima alone")
    lead = len(shape) - len(p["window"])
    flat = x if lead == 2 else w.node("Reshape", x, w.sizes([w.count(shape[:lead]), 1, *shape[lead:]], free=True))
    out = w.node("MaxPool", flat, kernel_shape=list(p["window"]), **_windows(p))
    return [out if lead == 2 else w.node("Reshape", out, w.sizes(e.outputs[0].shape, free=True))]


# ---- reductions -----------------------------------------------------------------------------------------------------------------------------
def _reduces(op: str) -> Callable[..., Any]:
    def write(w: Writer, e: Any, x: str) -> str:
        p, dtype = e.params, e.inputs[0].dtype
        if not p["axis"]:
            return x
        narrow = dtype in (*_NARROW, md.bool)
        out = w.node(op, w.cast(x, md.int64) if narrow else x, w.ints(p["axis"]), keepdims=int(p["keepdims"]))
        return w.cast(out, e.outputs[0].dtype) if narrow else out

    return write


for _name, _op in (("sum", "Sum"), ("max", "Max"), ("min", "Min"), ("prod", "Prod"), ("any", "Max"), ("all", "Min")):
    OPERATIONS[_name] = _reduces(f"Reduce{_op}")


def _places(op: str) -> Callable[..., Any]:
    def write(w: Writer, e: Any, x: str) -> str:
        x = w.cast(x, md.int64) if e.inputs[0].dtype in (*_NARROW, md.bool) else x
        return w.node(op, x, axis=e.params["axis"], keepdims=int(e.params["keepdims"]))

    return write


OPERATIONS["argmax"], OPERATIONS["argmin"] = _places("ArgMax"), _places("ArgMin")


@_operation
def _argsort(w: Writer, e: Any, x: str) -> str:
    p = e.params
    return w.node("TopK", x, w.sizes((e.inputs[0].shape[p["axis"]],)), axis=p["axis"], largest=int(p["descending"]), outputs=2)[1]


@_operation
def _cumsum(w: Writer, e: Any, x: str) -> str:
    return w.node("CumSum", x, w.scalar(e.params["axis"], md.int64), reverse=int(e.params["reverse"]))


def _rows(op: str, empty: float) -> Callable[..., Any]:
    """softmax and its logarithm; ONNX makes nan of a row of -inf alone, as a mask can give."""

    def write(w: Writer, e: Any, x: str) -> str:
        axis = e.params["axis"]
        high = w.node("ReduceMax", x, w.ints([axis]), keepdims=1)
        return w.node("Where", w.node("Equal", high, _number(w, e, -math.inf)), _number(w, e, empty), w.node(op, x, axis=axis))

    return write


OPERATIONS["softmax"], OPERATIONS["log_softmax"] = _rows("Softmax", 0.0), _rows("LogSoftmax", -math.inf)


@_operation
def _layer_norm(w: Writer, e: Any, x: str, scale: str, shift: str) -> Any:
    many = 3 if w.wanted.intersection(e.outputs[1:]) else 1
    made = w.node("LayerNormalization", x, scale, shift, outputs=many, axis=-len(e.inputs[1].shape), epsilon=e.params["eps"])
    return [made] if many == 1 else made


# ---- positions ------------------------------------------------------------------------------------------------------------------------------
def _index(w: Writer, atom: Any, i: str) -> str:
    return i if atom.dtype in (md.int32, md.int64) else w.cast(i, md.int64)


@_operation
def _gather(w: Writer, e: Any, x: str, i: str) -> str:
    return w.node("Gather", x, _index(w, e.inputs[1], i), axis=0)


@_operation
def _take_along(w: Writer, e: Any, x: str, i: str) -> str:
    return w.node("GatherElements", x, _index(w, e.inputs[1], i), axis=e.params["axis"])


_MODES = {"set": "none", "add": "add", "mul": "mul", "min": "min", "max": "max"}


@_operation
def _scatter(w: Writer, e: Any, x: str, u: str, i: str) -> str:
    places = w.node("Unsqueeze", w.cast(i, md.int64), w.ints([-1]))
    return w.node("ScatterND", x, places, u, reduction=_MODES[e.params["mode"]])


# ---- loops and branches ---------------------------------------------------------------------------------------------------------------------
@_operation
def _scan(w: Writer, e: Any, *operands: str) -> Any:
    p = e.params
    n, c, body = p["n_consts"], p["n_carry"], p["body"]
    rows = list(operands[n + c :])
    graph = w.inner(body, operands[:n], body.inputs[n:], "turn")
    if not rows:  # ONNX counts the turns by the rows
        rows = [w.constant(np.zeros(p["length"], np.int64))]
        graph.input.append(w.info(w.fresh("turn"), md.int64, ()))
    outs, backwards = len(body.outputs), int(p["reverse"])
    made = w.node(
        "Scan", *operands[n : n + c], *rows, outputs=outs, body=graph, num_scan_inputs=len(rows), scan_input_directions=[backwards] * len(rows),
        **({"scan_output_directions": [backwards] * (outs - c)} if outs > c else {}),
    )  # fmt: skip
    return [made] if outs == 1 else made


@_operation
def _cond(w: Writer, e: Any, which: str, *operands: str) -> Any:
    """If for the first branch or the others, which are one If or the last branch."""
    branches = e.params["branches"]
    outs = len(branches[0].outputs)

    def choose(at: Writer, i: int) -> list[str]:
        if i == len(branches) - 1:
            return at.write(branches[i], operands)
        first = at.inner(branches[i], operands, (), "branch")
        inside = Writer(at.onnx, at)
        rest = [inside.node("Identity", o) for o in choose(inside, i + 1)]
        infos = [inside.info(o, v.dtype, v.shape) for o, v in zip(rest, branches[0].outputs, strict=True)]
        others = at.onnx.helper.make_graph(inside.nodes, inside.fresh("branches"), [], infos)
        mine = at.node("LessOrEqual", which, at.scalar(i, e.inputs[0].dtype))  # what is out of range is the nearest branch
        made = at.node("If", mine, outputs=outs, then_branch=first, else_branch=others)
        return [made] if outs == 1 else made

    return choose(w, 0)


@_operation
def _while_loop(w: Writer, e: Any, *operands: str) -> Any:
    p = e.params
    tests, steps, state = operands[: p["n_cond"]], operands[p["n_cond"] :][: p["n_body"]], operands[p["n_cond"] + p["n_body"] :]
    check, body = p["cond"], p["body"]
    (start,) = w.write(check, [*tests, *state])
    first = [w.info(w.fresh("turn"), md.int64, ()), w.info(w.fresh("going"), md.bool, ())]
    graph = w.inner(body, steps, body.inputs[p["n_body"] :], "turn", first=first, ahead=lambda at, outs: at.write(check, [*tests, *outs])[0])
    outs = len(state)
    made = w.node("Loop", "", start, *state, outputs=outs, body=graph)
    return [made] if outs == 1 else made
