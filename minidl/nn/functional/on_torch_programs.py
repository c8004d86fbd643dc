"""PyTorch: the equations of programs that its kernels compute, see minidl.nn.functional.kernels.

In a compiled program a backward pass has what the kernel's call kept (`together`): a value of the program that no other equation reads. Promises:
what a kernel declines when it sees the values is computed by the program of the body; nobody writes to what a backward pass reads while it may still
run, since its equation reads the arguments and the results, too.
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


def _run(body: Graph, operands: Sequence[Tensor], how: str) -> tuple[Tensor, ...]:
    xp = get("torch", str(operands[0].device))
    return (xp.callable(body, how) if unseen(operands[0]) else xp.compile(body))(*operands)


def _called(
    tracked: bool, operands: Sequence[Tensor], kernel: str, static: tuple[Any, ...], there: Sequence[bool]
) -> tuple[tuple[Tensor, ...], Any] | None:
    """The results of a kernel and its backward pass; None where it declines."""
    if unseen(operands[0]):
        return None
    left = iter(operands)
    try:
        found = getattr(sys.modules[f"{__package__}.on_torch"], kernel)(tracked, *(next(left) if t else None for t in there), *static)
    except _REFUSED:
        return None
    return found and (found[0] if isinstance(found[0], tuple) else (found[0],), found[2])


def _pulled(back: Any, ins: Sequence[Tensor], cts: Sequence[Tensor], body: Graph, there: Sequence[bool], wanted: Any, used: Any, how: str) -> Any:
    """The cotangents that are wanted, by a kernel's backward pass unless that is None or declines."""
    if back is not None and not any(wanted[sum(there) :]):
        given, asked = iter(cts), iter(wanted)
        found = back([t and next(asked) for t in there], *(next(given) if u else None for u in used))
        if found is not None:
            those = compress(compress(found, there), wanted)
            return tuple(torch.zeros_like(x) if d is None else d for d, x in zip(those, compress(ins, wanted), strict=True))
    return _run(body, (*ins, *cts), how)


def by_kernel(xp: Any, *operands: Tensor, body: Graph, how: str = "open", **call: Any) -> tuple[Tensor, ...]:
    found = _called(False, operands, **call)
    return _run(body, operands, how) if found is None else found[0]


def by_kernel_dx(
    xp: Any, *operands: Tensor, body: Graph, kernel: str, static: Any, there: Sequence[bool], wanted: Any, used: Any, how: str = "open"
) -> tuple[Any, ...]:
    n = len(wanted)
    found = _called(True, operands[:n], kernel, static, there)
    return _pulled(found and found[1], operands[:n], operands[n:], body, there, wanted, used, how)


# ---- in compiled programs -----------------------------------------------------------------------------------------------------------------------
#: by_kernel_kept(...; tracked) → what by_kernel gives, and what the backward pass of the kernel is, for by_kernel_back(operands, results, cotangents,
#: that). by_kernel_again(...) → what by_kernel_dx gives, where the program has not called the kernel.
Kept, Back, Again = (Emitted(f"by_kernel_{what}", True) for what in ("kept", "back", "again"))


def _by_kernel_kept(*operands: Tensor, body: Graph, tracked: bool, **call: Any) -> tuple[Any, ...]:
    found = _called(tracked, operands, **call)
    return (*_run(body, operands, "open"), None) if found is None else (*found[0], found[1])


def _by_kernel_back(*operands: Any, body: Graph, there: Sequence[bool], wanted: Any, used: Any) -> tuple[Any, ...]:
    n, m = len(wanted), len(used)
    return _pulled(operands[-1], operands[:n], operands[n + m : -1], body, there, wanted, used, "open")


def _by_kernel_again(*operands: Tensor, **call: Any) -> tuple[Any, ...]:
    return by_kernel_dx(None, *operands, **call)


def together(graph: Graph, place: str) -> Graph:
    """The graph with its calls in the form that keeps what their backward passes need."""
    if not (place == "cpu" and any("kernel" in e.params for e in graph.equations)):
        return graph
    key = lambda e, n: (e.params["kernel"], told(e.params["static"]), e.params["there"], e.inputs[:n])
    calls: dict[Any, Equation] = {}
    new: dict[Equation, Equation] = {}
    for e in graph.equations:
        if e.primitive.name == "by_kernel":
            kept = Var((0,), dtypes.uint16)  # of no element, in a dtype that nobody computes in: no place for another result
            new[e] = Equation(Kept, e.inputs, e.params | {"tracked": False}, (*e.outputs, kept), e.where)
            calls.setdefault(key(e, len(e.inputs)), new[e])
        elif e.primitive.name == "by_kernel_dx":
            call, n = calls.get(key(e, len(e.params["wanted"]))), len(e.params["wanted"])
            if call is None:
                new[e] = Equation(Again, e.inputs, e.params, e.outputs, e.where)
                continue
            call.params["tracked"] = True
            *results, kept = call.outputs
            how = {k: e.params[k] for k in ("body", "there", "wanted", "used")}
            new[e] = Equation(Back, (*e.inputs[:n], *results, *e.inputs[n:], kept), how, e.outputs, e.where)
    return Graph(graph.inputs, [new.get(e, e) for e in graph.equations], graph.outputs, graph.name)


EMITTED.update(by_kernel_kept=_by_kernel_kept, by_kernel_back=_by_kernel_back, by_kernel_again=_by_kernel_again)
REWRITES.append(together)
