"""How each primitive is written in ONNX: a function (writer, equation, names of the inputs) to the names of the outputs.

Promises: operations of the operator set 18 alone; what the program computes, with the exceptions that `export_onnx` states.
Source: the operator schemas of the ONNX standard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import minidl as md
from minidl.deploy.onnx_compositions import COMPOSITIONS, number
from minidl.deploy.onnx_special import SPECIAL
from minidl.deploy.onnx_writer import Writer

OPERATIONS: dict[str, Callable[..., Any]] = {**COMPOSITIONS, **SPECIAL}
#: Integers for which runtimes have no arithmetic; it is done in int64 then, and what is too large wraps.
_NARROW = (md.int8, md.int16, md.uint8, md.uint16, md.uint32)


def _named(**ops: str) -> None:
    """Primitives that are one operation of the same arguments."""
    for name, op in ops.items():
        OPERATIONS[name] = lambda w, e, *xs, op=op: w.node(op, *xs)


_named(
    exp="Exp", log="Log", sqrt="Sqrt", sin="Sin", cos="Cos", tan="Tan", asin="Asin", acos="Acos", atan="Atan", sinh="Sinh", cosh="Cosh", tanh="Tanh",
    asinh="Asinh", acosh="Acosh", atanh="Atanh", sigmoid="Sigmoid", erf="Erf", floor="Floor",
    ceil="Ceil", round="Round", abs="Abs", sign="Sign", logical_not="Not", div="Div", pow="Pow", maximum="Max", minimum="Min", eq="Equal", lt="Less",
    le="LessOrEqual", gt="Greater", ge="GreaterOrEqual", logical_and="And", logical_or="Or", logical_xor="Xor",
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
        return _wrapped(w, w.node(op, w.cast(x, md.int64), w.cast(y, md.int64)), dtype)

    return write


def _wrapped(w: Writer, wide: str, dtype: md.DType) -> str:
    """Integers of 64 bits in a dtype, whose lower bits they keep."""
    if dtype not in _NARROW:
        return w.cast(wide, dtype)
    wide = w.node("BitwiseAnd", wide, w.scalar(2**dtype.bits - 1, md.int64))
    if dtype.kind == "int":  # the upper half stands for the negative ones
        low = w.node("Sub", wide, w.scalar(2**dtype.bits, md.int64))
        wide = w.node("Where", w.node("Less", wide, w.scalar(2 ** (dtype.bits - 1), md.int64)), wide, low)
    return w.cast(wide, dtype)


for _name, _op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul")):
    OPERATIONS[_name] = _wrapping(_op)


@_operation
def _neg(w: Writer, e: Any, x: str) -> str:
    dtype = e.outputs[0].dtype
    return OPERATIONS["sub"](w, e, w.scalar(0, dtype), x) if dtype in _NARROW or dtype.kind == "uint" else w.node("Neg", x)


@_operation
def _relu(w: Writer, e: Any, x: str) -> str:
    return x if e.inputs[0].dtype.kind == "uint" else w.node("Relu", x)


@_operation
def _square(w: Writer, e: Any, x: str) -> str:
    return OPERATIONS["mul"](w, e, x, x)


def _number_of_two(name: str) -> Callable[..., Any]:
    """The larger or smaller of two numbers, and of a number and nan the number."""

    def write(w: Writer, e: Any, x: str, y: str) -> str:
        either = OPERATIONS[name](w, e, x, y)
        if not e.outputs[0].dtype.is_float:
            return either
        return w.node("Where", w.node("Equal", x, x), w.node("Where", w.node("Equal", y, y), either, x), y)

    return write


OPERATIONS["fmax"], OPERATIONS["fmin"] = _number_of_two("maximum"), _number_of_two("minimum")


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
    if dtype in (*_NARROW, md.uint64):
        return w.cast(w.node("Where", c, w.cast(x, md.int64), w.cast(y, md.int64)), dtype)
    return w.node("Where", c, x, y)


@_operation
def _clip(w: Writer, e: Any, x: str, low: str, high: str) -> str:
    ends = ["" if getattr(a, "value", 0.0) in (-math.inf, math.inf) else name for a, name in zip(e.inputs[1:], (low, high), strict=True)]
    return w.node("Clip", x, *ends)


@_operation
def _cast(w: Writer, e: Any, x: str, /) -> str:
    source, dtype = e.inputs[0].dtype, e.params["dtype"]
    return _saturated(w, x, dtype) if source.is_float and dtype.is_integer else w.cast(x, dtype)


def _saturated(w: Writer, x: str, dtype: md.DType) -> str:
    """Floats as integers: the nearest one there is, and 0 for nan; what Cast makes of either is each runtime's own."""
    info, source = md.iinfo(dtype), md.float32 if dtype.bits <= 16 else md.float64
    x = w.cast(x, source)
    x = w.node("Where", w.node("Equal", x, x), x, w.scalar(0, source))
    top = int(math.nextafter(info.max + 1, 0))  # the largest that a float reaches
    out = w.cast(w.node("Clip", x, w.scalar(info.min, source), w.scalar(top, source)), dtype)
    if top == info.max:
        return out
    more = w.cast(w.node("Greater", x, w.scalar(top, source)), dtype)
    return w.node("Add", out, w.node("Mul", more, w.scalar(info.max - top, dtype)))


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
    after = [w.difference(n, stop) for stop, n in zip(p["stop"], p["shape"], strict=True)]
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
        if op == "ReduceMax" and dtype is md.bool:  # the largest of no numbers is the lowest, which is none of 0 and 1
            return w.node("Greater", w.node("ReduceSum", w.cast(x, md.int64), w.ints(p["axis"]), keepdims=int(p["keepdims"])), w.scalar(0, md.int64))
        narrow = dtype in (*_NARROW, md.bool) or (dtype is md.uint64 and op in ("ReduceSum", "ReduceProd"))  # of which the lower bits are the same
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
    unsigned = e.inputs[0].dtype is md.uint64
    out = w.node("CumSum", w.cast(x, md.int64) if unsigned else x, w.scalar(e.params["axis"], md.int64), reverse=int(e.params["reverse"]))
    return w.cast(out, md.uint64) if unsigned else out


def _rows(op: str, empty: float) -> Callable[..., Any]:
    """softmax and its logarithm; ONNX makes nan of a row of -inf alone, as a mask can give."""

    def write(w: Writer, e: Any, x: str) -> str:
        axis = e.params["axis"]
        high = w.node("ReduceMax", x, w.ints([axis]), keepdims=1)
        return w.node("Where", w.node("Equal", high, number(w, e, -math.inf)), number(w, e, empty), w.node(op, x, axis=axis))

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


@_operation
def _put_along(w: Writer, e: Any, x: str, i: str, u: str) -> str:
    return w.node("ScatterElements", x, _index(w, e.inputs[1], i), u, axis=e.params["axis"], reduction=e.params["mode"])


_MODES = {"set": "none", "add": "add", "mul": "mul", "min": "min", "max": "max"}


@_operation
def _scatter(w: Writer, e: Any, x: str, u: str, i: str) -> str:
    places = w.node("Unsqueeze", w.cast(i, md.int64), w.ints([-1]))
    return w.node("ScatterND", x, places, u, reduction=_MODES[e.params["mode"]])


# ---- running values -------------------------------------------------------------------------------------------------------------------------
def _running(name: str, start: float) -> Callable[..., Any]:
    """A value that each element along an axis changes: Scan, whose body is the primitive of two operands."""

    def write(w: Writer, e: Any, x: str) -> str:
        axis, backwards, v = e.params["axis"], int(e.params["reverse"]), e.inputs[0]
        shape = [*v.shape[:axis], *v.shape[axis + 1 :]]
        inside = Writer(w.onnx, w)
        before, now = inside.fresh("before"), inside.fresh("now")
        ends = {math.inf: md.iinfo(v.dtype).max, -math.inf: md.iinfo(v.dtype).min} if v.dtype.kind in ("int", "uint") else {}
        after = OPERATIONS[name](inside, SimpleNamespace(inputs=(v, v), outputs=(v,), params={}), before, now)
        body = w.onnx.helper.make_graph(
            [*inside.nodes, w.onnx.helper.make_node("Identity", [after], [each := inside.fresh("each")])], inside.fresh("turn"),
            [inside.info(n, v.dtype, shape) for n in (before, now)], [inside.info(n, v.dtype, shape) for n in (after, each)],
        )  # fmt: skip
        first = w.scalar(ends.get(start, start), v.dtype)
        first = w.node("Expand", first, w.sizes(shape)) if shape else first
        ways = {f"scan_{k}_directions": [backwards] for k in ("input", "output")}
        order = (axis, *range(axis), *range(axis + 1, v.ndim))  # Scan along another axis ends the process where there are no examples
        made = w.node("Scan", first, _moved(w, x, order), outputs=2, body=body, num_scan_inputs=1, **ways)[1]
        return _moved(w, made, tuple(sorted(range(v.ndim), key=order.__getitem__)))

    return write


for _name, _each, _start in (
    ("cumprod", "mul", 1.0), ("cummax", "maximum", -math.inf), ("cummin", "minimum", math.inf), ("cumlogsumexp", "logaddexp", -math.inf),
):  # fmt: skip
    OPERATIONS[_name] = _running(_each, _start)


# ---- dtypes that runtimes have no kernels for -----------------------------------------------------------------------------------------------
class _In64:
    """A variable or number of an equation, as if it were one of 64 bits."""

    dtype = md.int64

    def __init__(self, atom: Any):
        self.atom = atom

    def __getattr__(self, name: str) -> Any:
        return getattr(self.atom, name)


def _widened(name: str, *dtypes: md.DType) -> None:
    """These dtypes in int64; what has their dtype again keeps the lower bits."""
    plain = OPERATIONS[name]

    def write(w: Writer, e: Any, *xs: str) -> str:
        dtype = e.inputs[0].dtype
        if dtype not in dtypes:
            return plain(w, e, *xs)
        ins, outs = ([_In64(a) if a.dtype is dtype else a for a in atoms] for atoms in (e.inputs, e.outputs))
        xs = tuple(w.cast(x, md.int64) if a.dtype is dtype else x for x, a in zip(xs, e.inputs, strict=True))
        out = plain(w, SimpleNamespace(inputs=ins, outputs=outs, params=e.params), *xs)
        return _wrapped(w, out, dtype) if e.outputs[0].dtype is dtype else out

    OPERATIONS[name] = write


for _name in ("maximum", "minimum", "floor_divide", "remainder"):
    _widened(_name, md.int16, md.uint16)
_widened("relu", md.int16)
_widened("pow", md.int8, md.int16, md.uint8, md.uint16, md.uint32, md.uint64)
_widened("argsort", md.bool, md.uint16, md.uint32)
_widened("dot_general", md.bool, md.int8, md.int16, md.uint8, md.uint16)


def _of_bools(name: str, op: str, negated: int | None = None) -> None:
    """An operation of two Booleans as one of logic, the first or second of them negated."""
    plain = OPERATIONS[name]

    def write(w: Writer, e: Any, *xs: str) -> str:
        if e.inputs[0].dtype is not md.bool:
            return plain(w, e, *xs)
        return w.node(op, *(w.node("Not", x) if i == negated else x for i, x in enumerate(xs)))

    OPERATIONS[name] = write


for _name, _op in (("add", "Or"), ("mul", "And"), ("maximum", "Or"), ("minimum", "And")):
    _of_bools(_name, _op)
for _name, _op, _negated in (("lt", "And", 0), ("le", "Or", 0), ("gt", "And", 1), ("ge", "Or", 1)):
    _of_bools(_name, _op, _negated)


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
