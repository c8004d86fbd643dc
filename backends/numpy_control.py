"""Loops and branches: plain Python around the functions of the bodies. For NumPy's programs and exported files; while_loop for any other backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Body = Callable[..., tuple]


def scan(*operands: Array, body: Body, length: int, n_consts: int, n_carry: int, reverse: bool, stacks: Sequence[Array]) -> tuple:
    """Carry' and y of body(consts, carry, x) for each x; the ys are stacked in the order of the xs, in `stacks`."""
    consts, carry, xs = operands[:n_consts], operands[n_consts : n_consts + n_carry], operands[n_consts + n_carry :]
    for i in reversed(range(length)) if reverse else range(length):
        out = body(*consts, *carry, *[x[i] for x in xs])
        carry = out[:n_carry]
        for stack, y in zip(stacks, out[n_carry:], strict=True):
            stack[i] = y
    return (*carry, *stacks)


def while_loop(*operands: Array, cond: Body, body: Body, n_cond: int, n_body: int) -> tuple:
    """body(consts, carry) → carry, as long as cond(consts, carry)."""
    test_consts, consts, carry = operands[:n_cond], operands[n_cond : n_cond + n_body], operands[n_cond + n_body :]
    while cond(*test_consts, *carry)[0]:
        carry = body(*consts, *carry)
    return tuple(carry)


def cond(index: Any, *operands: Array, branches: Sequence[Body]) -> tuple:
    """The results of the branch that index (clipped) names."""
    return branches[min(max(int(index), 0), len(branches) - 1)](*operands)
