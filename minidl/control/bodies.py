"""The functions of loops and branches as graphs, and what they are called with.

Promises: a body is traced once; what each step would compute alike is computed in front of the loop, where that takes no more memory. What a body
stores in its operands in place stays in the body, eager and traced; what it stores in a tensor from outside is stored there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import minidl as md
from minidl.extend import Body, Equation, Var, describe, operand, scalar_type, twin

Aval = tuple[tuple[int, ...], md.DType]


def tensor(v: Any) -> Any:
    """A Tensor of a number or an array, in the current context."""
    return v if isinstance(v, md.Tensor) else operand(v) if scalar_type(v) is not None else md.asarray(v)


def tensors(x: Any) -> tuple[list[md.Tensor], md.tree.Structure]:
    """The leaves of a pytree as Tensors of the current context, and its structure."""
    leaves, structure = md.tree.flatten(x)
    return [tensor(v) for v in leaves], structure


def own(x: Any) -> Any:
    """A pytree with Tensors of their own, as a trace has them: what a body stores in its operands reaches nobody else, nor what is stored in its
    results."""
    if x.__class__ is tuple:
        return tuple([own(v) for v in x])
    return twin(x) if isinstance(x, md.Tensor) else md.tree.map(twin, x)


def widened(call: Any, size: int, x: Any, batched: bool) -> Any:
    """An operand with a batch axis, which it may have had."""
    return x if batched else call("broadcast_to", x, shape=(size, *x.shape))


def same(name: str, before: Sequence[md.Tensor], after: Sequence[Any]) -> None:
    """Raise TypeError unless a carry keeps its number of tensors, their shapes and dtypes."""
    if len(before) != len(after):
        raise TypeError(f"{name}: the carry has {len(before)} tensors going in and {len(after)} coming out")
    for a, b in zip(before, after, strict=True):
        if tuple(a.shape) != tuple(b.shape) or a.dtype is not b.dtype:
            raise TypeError(f"{name}: the carry changes from {describe(a)} to {describe(b)}; it must keep its shape and dtype")


def _shortens(e: Equation) -> bool:
    return e.primitive.name == "cast" and e.outputs[0].dtype.inexact and e.outputs[0].dtype.bits < e.inputs[0].dtype.bits


class Traced:
    """A traced body: its graph, what it read from outside, and the outside tensors that it changed, which become part of the carry."""

    def __init__(self, name: str, f: Callable[..., Any], avals: Sequence[Aval], carry: Sequence[md.Tensor], loop: bool = True):
        self.body = body = Body(f, avals)
        self.graph, self.extra, self.structure, self.written = body.graph, body.read, body.structure, body.written
        n, w = len(avals), len(self.written)
        self.written_vars = self.graph.inputs[n : n + w]
        self.extra_vars = self.graph.inputs[n + w :]
        outs = self.graph.outputs
        split = len(outs) - w
        self.outputs = [*outs[split:], *outs[:split]]
        same(name, carry, outs[: len(carry)])
        if loop:
            self._hoist()

    def _hoist(self) -> None:
        """Compute before the loop what every step would compute alike, unless it is larger than what it is made from: a step's residuals then
        hold no copies of it. Not the cast to a shorter float: the steps' cotangents are added up in the dtype of what they share."""
        fixed, moved, kept = set(self.extra_vars), [], []
        for e in self.graph.equations:
            reads = {a for a in e.inputs if isinstance(a, Var)}
            if reads and reads <= fixed and not _shortens(e) and sum(v.nbytes for v in e.outputs) <= sum(v.nbytes for v in reads):
                fixed.update(e.outputs)
                moved.append(e)
            else:
                kept.append(e)
        if not moved:
            return
        used = {a for e in kept for a in e.inputs} | set(self.outputs)
        needed = [v for v in (*self.extra_vars, *(v for e in moved for v in e.outputs)) if v in used]
        self.extra = list(md.Graph(self.extra_vars, moved, needed)(*self.extra))
        self.extra_vars = tuple(needed)
        self.graph = md.Graph([*(v for v in self.graph.inputs if v not in fixed), *needed], kept, self.graph.outputs, "body")


def one_bool(what: str, x: md.Tensor, integers: bool = False) -> None:
    """Raise TypeError unless a condition is one bool (or integer)."""
    if x.shape != () or not (x.dtype is md.bool or (integers and x.dtype.is_integer)):
        raise TypeError(f"{what} must be one bool, not {describe(x)}")


def holds(what: str, x: Any, integers: bool = False) -> bool:
    """Eager: whether a condition holds; it is refused where a trace would refuse it."""
    if isinstance(x, md.Tensor):
        one_bool(what, x, integers)
    return bool(x)
