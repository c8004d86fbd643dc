"""PyTorch: scan as a loop in Python, over rows that are views; on the CPU its stacks lie in memory that is used again (torch_memory). Branches, and
loops whose end values decide, are NumPy's plain Python."""

from __future__ import annotations

from typing import Any

import torch

from minidl.backends.torch_elementwise import NATIVE
from minidl.backends.torch_memory import LARGE, Result
from minidl.graph import Graph

Tensor = torch.Tensor


def scan(xp: Any, *operands: Tensor, body: Graph, length: int, n_consts: int, n_carry: int, reverse: bool, how: str = "open") -> tuple:
    """Carry' and y of body(consts, carry, x) for each x; the ys are stacked in the order of the xs. how: as for TorchBackend.callable."""
    step = xp.callable(body, how)
    consts, carry = operands[:n_consts], operands[n_consts : n_consts + n_carry]
    rows = [x.unbind(0) for x in operands[n_consts + n_carry :]]
    ys: list[tuple] = []
    for row in zip(*(r[::-1] if reverse else r for r in rows), strict=True) if rows else [()] * length:
        out = step(*consts, *carry, *row)
        carry = out[:n_carry]
        ys.append(out[n_carry:])
    if not length:
        empty = [torch.empty((0, *v.shape), dtype=NATIVE[v.dtype], device=xp.torch_device) for v in body.outputs[n_carry:]]
        return (*carry, *empty)
    stacks = zip(*(reversed(ys) if reverse else ys), strict=True)
    if how == "traced" or xp.torch_device.type != "cpu":
        return (*carry, *map(torch.stack, stacks))
    key = "stacks", n_carry, length
    if key not in body.cache:
        body.cache[key] = [Result((length, *v.shape), NATIVE[v.dtype]) if length * v.nbytes >= LARGE else None for v in body.outputs[n_carry:]]
    return (*carry, *(torch.stack(rows, out=block and block()) for rows, block in zip(stacks, body.cache[key], strict=True)))
