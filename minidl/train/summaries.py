"""md.summary: the modules of a model with the shapes of their outputs, their parameters and floating-point operations; nothing is computed for it.

The shapes come from one trace of the model with a hook on every module, the operations from the equations of graphs, so that they are right for
whatever a model does between its modules too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import minidl as md
from minidl.columns import columns
from minidl.train.steps import evaluating

#: What is counted: 2 for each multiply-add of matrix products, convolutions and attention, as torch.utils.flop_counter does.
_COUNTS: dict[str, Callable[[Any], int]] = {
    "dot_general": lambda e: 2 * e.outputs[0].size * math.prod(e.inputs[0].shape[a] for a in e.params["contract"][0]),
    "conv": lambda e: 2 * e.outputs[0].size * math.prod(e.inputs[1].shape[1:]),
    "conv_dx": lambda e: 2 * e.inputs[0].size * math.prod(e.inputs[1].shape[1:]),
    "conv_dw": lambda e: 2 * e.inputs[1].size * math.prod(e.params["w_shape"][1:]),
    "attention": lambda e: _attention(e.inputs[:3], 1, 1),
    "attention_grad": lambda e: _attention(e.inputs[1:4], 3, 2),
}


def _attention(operands: list[Any], scores: int, values: int) -> int:
    """Products of the width of q and k, and of the width of v, for each pair of places; a causal mask is not taken off."""
    q, k, v = (x.shape for x in operands)
    return 2 * math.prod(q[:-1]) * k[-2] * (scores * q[-1] + values * v[-1])


class _Sized:
    """An equation whose operands have a size."""

    def __init__(self, equation: Any):
        self.params = equation.params
        self.inputs, self.outputs = ([_Array(v.shape) for v in side] for side in (equation.inputs, equation.outputs))


class _Array:
    def __init__(self, shape: tuple[int, ...]):
        self.shape, self.size = shape, math.prod(shape)


def flops(graph: md.Graph) -> int:
    """The floating-point operations of a traced program: two for each multiply-add of matrix products, convolutions and attention, none for the rest.

    Equal equations are merged by tracing, and count once. A scan counts its body as often as it runs, a branch its dearest side, and a while loop,
    whose number of steps is not known, one step.

    >>> flops(md.trace(lambda a, b: a @ b)(md.ones((2, 3)), md.ones((3, 4))))
    48
    """
    total = 0
    for e in graph.equations:
        name, params = e.primitive.name, e.params
        if name in _COUNTS:
            total += _COUNTS[name](_Sized(e))
        elif name == "cond":
            total += max(map(flops, params["branches"]))
        elif name == "scan":
            total += params["length"] * flops(params["body"])
        else:
            total += sum(flops(g) for g in params.values() if isinstance(g, md.Graph))
    return total


@dataclasses.dataclass
class Row:
    """A module: its dotted name ("" is the model), class, the shapes of its outputs, parameters and operations, those of its children included."""

    name: str
    kind: str
    outputs: list[tuple[int, ...]]
    parameters: int
    flops: int | None


@dataclasses.dataclass
class Summary:
    """What md.summary found; print it. flops is for the input that was given, None without one; bytes is the size of parameters and buffers.

    >>> print(md.train.summary(md.nn.Linear(4, 2), (1, 4)).parameters)
    10
    """

    rows: list[Row]
    parameters: int
    trainable: int
    buffers: int
    bytes: int
    flops: int | None

    def __str__(self) -> str:
        last = {r.name.rpartition(".")[0]: r.name for r in self.rows}  # the last child of each module
        cells = [["module", "output", "parameters", "FLOPs"]]
        cells += [[_indented(r, set(last.values())), _shapes(r.outputs), _count(r.parameters), _count(r.flops)] for r in self.rows]
        lines = columns([(row[0], row[2]) for row in cells], left=1) if self.flops is None else columns(cells, left=2)
        rule = "─" * max(map(len, lines))
        size = _scaled(self.bytes, "B")
        feet = [f"parameters: {self.parameters:,}, of which {self.trainable:,} are trained; elements of buffers: {self.buffers:,}; {size}"]
        if self.flops is not None:
            scaled = f" ({_scaled(self.flops)})" if self.flops >= 1000 else ""
            feet.append(f"FLOPs of this input, forward: {self.flops:,}{scaled}; a multiply-add counts as two")
        return "\n".join([lines[0], rule, *lines[1:], rule, *feet])

    __repr__ = __str__


def summary(model: Any, *inputs: Any, **keywords: Any) -> Summary:
    """The modules of a model as a table: class, output shape, parameters and FLOPs for these inputs, in evaluation mode.

    inputs, keywords: what the model is called with: Tensors, arrays, pytrees of them; a tuple of integers stands for zeros of that shape in the dtype
    of the parameters. Without inputs only parameters are counted. The model is traced, not run: nothing changes, and hooks of its modules are called
    with symbolic tensors. A module inside a traced loop shows the operations of one step. Raises TypeError for what is no Module.

    >>> print(summary(md.nn.Sequential(md.nn.Linear(4, 8), md.nn.ReLU(), md.nn.Linear(8, 3)), (16, 4)))
    module        output   parameters  FLOPs
    ────────────────────────────────────────
    Sequential    [16, 3]          67  1,792
    ├ 0 (Linear)  [16, 8]          40  1,024
    ├ 1 (ReLU)    [16, 8]           -      -
    └ 2 (Linear)  [16, 3]          27    768
    ────────────────────────────────────────
    parameters: 67, of which 67 are trained; elements of buffers: 0; 268 B
    FLOPs of this input, forward: 1,792 (1.79 k); a multiply-add counts as two
    """
    if not isinstance(model, md.nn.Module):
        raise TypeError(f"summary: a Module is wanted, not {type(model).__name__}")
    first = next(model.parameters(), None)
    where: dict[str, Any] = {} if first is None else {"backend": first.backend, "device": first.device}

    def made(x: Any) -> Any:
        if type(x) in (tuple, list) and x and all(type(n) is int for n in x):
            return md.zeros(tuple(x), dtype=None if first is None else first.dtype, **where)
        if type(x) in (tuple, list):
            return type(x)(map(made, x))
        return md.tree.map(lambda v: md.asarray(v, **where) if hasattr(v, "__array__") else v, x)

    outputs: dict[int, list[tuple[int, ...]]] = {}
    counts: dict[int, int] = {}
    if inputs or keywords:
        with evaluating(model):
            known: dict[str, int] = {}
            for module, a, k, out in _calls(model, tuple(map(made, inputs)), {name: made(x) for name, x in keywords.items()}):
                outputs.setdefault(id(module), [v.shape for v in md.tree.leaves(out) if isinstance(v, _Shape)])
                key = f"{id(module)} {a} {k}"
                if key not in known:
                    a, k = md.tree.map(lambda v: md.zeros(v.shape, dtype=v.dtype, **where) if isinstance(v, _Shape) else v, (a, k))
                    known[key] = flops(md.trace(module)(*a, **k))
                counts[id(module)] = counts.get(id(module), 0) + known[key]
    rows = []
    for name, m in model.named_modules():
        rows.append(Row(name, type(m).__name__, outputs.get(id(m), []), sum(p.size for p in m.parameters()), counts.get(id(m))))
    parameters, buffers = list(model.parameters()), list(model.buffers())
    size = sum(t.size * t.dtype.itemsize for t in (*parameters, *buffers))
    trainable = sum(p.size for p in parameters if p.requires_grad)
    return Summary(rows, sum(p.size for p in parameters), trainable, sum(b.size for b in buffers), size, counts.get(id(model)))



class _Shape:
    """What is left of a symbolic tensor."""

    def __init__(self, tensor: md.Tensor):
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype

    def __repr__(self) -> str:
        return f"{self.dtype}{self.shape}"


def _calls(model: Any, args: tuple, named: dict[str, Any]) -> list[tuple[Any, Any, Any, Any]]:
    """(module, arguments, keywords, output) of each call of a module in one trace, with shapes in place of tensors."""
    calls: list[tuple[Any, Any, Any, Any]] = []

    def note(module: Any, a: Any, k: Any, out: Any) -> None:
        calls.append((module, *(md.tree.map(lambda v: _Shape(v) if isinstance(v, md.Tensor) else v, x) for x in (a, k, out))))

    handles = [m.register_forward_hook(note, with_kwargs=True) for m in model.modules()]
    try:
        md.trace(model)(*args, **named)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _indented(row: Row, last: set[str]) -> str:
    """The name and class, with the branches of the tree of modules in front."""
    if not row.name:
        return row.kind
    parts = row.name.split(".")
    above = [".".join(parts[: i + 1]) for i in range(len(parts) - 1)]
    bars = "".join("  " if name in last else "│ " for name in above)
    return f"{bars}{'└ ' if row.name in last else '├ '}{parts[-1]} ({row.kind})"


def _shapes(outputs: list[tuple[int, ...]]) -> str:
    return ", ".join(str(list(s)) for s in outputs) or "-"


def _count(n: int | None) -> str:
    return f"{n:,}" if n else "-"


def _scaled(n: float, unit: str = "") -> str:
    for prefix in ("", "k", "M", "G", "T"):
        if n < 1000 or prefix == "T":
            return f"{n:.3g} {prefix}{unit}".rstrip() if n < 1000 else f"{n:,.0f} {prefix}{unit}"
        n /= 1000
    raise AssertionError
