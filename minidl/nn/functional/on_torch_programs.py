"""PyTorch: the equations of programs that its kernels compute, see minidl.nn.functional.kernels.

Where a program calls a kernel and its backward pass, the second has what the first kept (`together`): a value of the program that no other equation
reads. Promises: what a kernel declines when it sees the values is computed by the program of the body; nobody writes to what a backward pass reads
while it may still run, since its equation reads the arguments and the results, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch

from minidl import dtypes
from minidl.backends import get
from minidl.backends.torch_linear import unseen
from minidl.backends.torch_rewrite import EMITTED, REWRITES
from minidl.graph import Emitted, Equation, Graph, Var, told

Tensor = torch.Tensor
_REFUSED = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


def _run(body: Graph, operands: Sequence[Tensor]) -> tuple[Tensor, ...]:
    xp = get("torch", str(operands[0].device))
    return (xp.callable(body) if unseen(operands[0]) else xp.compile(body))(*operands)


def _found(tracked: bool, operands: Sequence[Tensor], kernel: str, static: tuple[Any, ...], there: Sequence[bool]) -> tuple[Any, Any] | None:
    """The results of a kernel and its backward pass; None where it declines."""
    if unseen(operands[0]):
        return None
    left = iter(operands)
    try:
        found = getattr(sys.modules[f"{__package__}.on_torch"], kernel)(tracked, *(next(left) if t else None for t in there), *static)
    except _REFUSED:
        return None
    return found and (found[0] if isinstance(found[0], tuple) else (found[0],), found[2])


def _pulled(back: Any, ins: Sequence[Tensor], cts: Sequence[Tensor], body: Graph, there: Sequence[bool], wanted: Any, used: Any) -> tuple[Any, ...]:
    """The cotangents that are wanted, by a kernel's backward pass unless that is None or declines."""
    n = sum(there)
    if back is not None and not any(wanted[n:]):
        given, asked = iter(cts), iter(wanted)
        found = back([t and next(asked) for t in there], *(next(given) if u else None for u in used))
        if found is not None:
            those = compress(compress(found, there), wanted)
            return tuple(torch.zeros_like(x) if d is None else d for d, x in zip(those, compress(ins, wanted), strict=True))
    return _run(body, (*ins, *cts))


def by_kernel(*operands: Tensor, body: Graph, **how: Any) -> tuple[Tensor, ...]:
    found = _found(False, operands, **how)
    return _run(body, operands) if found is None else found[0]


def by_kernel_dx(
    *operands: Tensor, body: Graph, kernel: str, static: tuple[Any, ...], there: Sequence[bool], wanted: Any, used: Any
) -> tuple[Any, ...]:
    n = len(operands) - sum(used)
    ins, found = operands[:n], _found(True, operands, kernel, static, there)
    return _pulled(found and found[1], ins, operands[n:], body, there, wanted, used)


# ---- forwards and backwards in one program ------------------------------------------------------------------------------------------------------
#: by_kernel_kept(...) → what by_kernel gives, and what the backward pass of the kernel is. by_kernel_back(operands, results, cotangents, that).
Kept, Back = Emitted("by_kernel_kept", True), Emitted("by_kernel_back", True)


def _by_kernel_kept(*operands: Tensor, body: Graph, **how: Any) -> tuple[Any, ...]:
    found = _found(True, operands, **how)
    return (*_run(body, operands), None) if found is None else (*found[0], found[1])


def _by_kernel_back(*operands: Any, body: Graph, there: Sequence[bool], wanted: Any, used: Any) -> tuple[Any, ...]:
    n, m = len(wanted), len(used)
    return _pulled(operands[-1], operands[:n], operands[n + m : -1], body, there, wanted, used)


def together(graph: Graph, cpu: bool) -> Graph:
    """The graph with calls whose backward pass it has, too, in the form that keeps what that needs."""
    if not cpu:
        return graph
    key = lambda e, n: (e.params["kernel"], told(e.params["static"]), e.params["there"], e.inputs[:n])
    calls, kept, equations = dict[Any, Equation](), dict[Any, Var](), list[Equation]()
    for e in graph.equations:
        if e.primitive.name == "by_kernel":
            calls.setdefault(key(e, len(e.inputs)), e)
        elif e.primitive.name == "by_kernel_dx" and (call := calls.get(key(e, len(e.params["wanted"])))):
            kept.setdefault(call, Var((0,), dtypes.uint16))  # of no element, in a dtype that nobody computes in: no place for another result
    for e in graph.equations:
        if e in kept:
            e = Equation(Kept, e.inputs, e.params, (*e.outputs, kept[e]), e.where)
        elif e.primitive.name == "by_kernel_dx" and (call := calls.get(key(e, n := len(e.params["wanted"])))) in kept:
            assert call is not None
            how = {k: e.params[k] for k in ("body", "there", "wanted", "used")}
            e = Equation(Back, (*e.inputs[:n], *call.outputs, *e.inputs[n:], kept[call]), how, e.outputs, e.where)
        equations.append(e)
    return Graph(graph.inputs, equations, graph.outputs, graph.name) if kept else graph


EMITTED.update(by_kernel_kept=_by_kernel_kept, by_kernel_back=_by_kernel_back)
REWRITES.append(together)
