"""NumPy: loops and branches as plain Python around the functions of their bodies, which exported files contain as it stands.

A backend that has none of its own takes these, too: what they ask of it is `callable`, `to_numpy` and `adopt`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.backends.numpy_memory import empty
from minidl.graph import Graph

Array = np.ndarray
Body = Callable[..., tuple]


def scan(xp: Any, *operands: Any, body: Graph, n_carry: int, length: int, **params: Any) -> tuple:
    """Carry' and y of body(consts, carry, x) for each x; the ys are stacked in the order of the xs."""
    stacks = [empty((length, *v.shape), v.dtype.numpy, length * v.nbytes) for v in body.outputs[n_carry:]]
    step = xp.callable(body)
    if xp.is_native(np.empty(0)):
        return scanned(*operands, body=step, n_carry=n_carry, length=length, stacks=stacks, **params)

    def known(*args: Any) -> tuple:
        out = step(*args)
        return (*out[:n_carry], *map(xp.to_numpy, out[n_carry:]))

    found = scanned(*operands, body=known, n_carry=n_carry, length=length, stacks=stacks, **params)
    return (*found[:n_carry], *map(xp.adopt, found[n_carry:]))


def while_loop(xp: Any, *operands: Any, cond: Graph, body: Graph, **params: Any) -> tuple:
    """body(consts, carry) → carry, as long as cond(consts, carry)."""
    return repeated(*operands, cond=xp.callable(cond), body=xp.callable(body), **params)


def cond(xp: Any, index: Any, *operands: Any, branches: tuple[Graph, ...]) -> tuple:
    """The results of the branch that index (clipped) names."""
    return chosen(index, *operands, branches=[*map(xp.callable, branches)])


def scanned(*operands: Array, body: Body, length: int, n_consts: int, n_carry: int, reverse: bool, stacks: Sequence[Array]) -> tuple:
    """Carry' and y of body(consts, carry, x) for each x; the ys are stacked in the order of the xs, in `stacks`."""
    consts, carry, xs = operands[:n_consts], operands[n_consts : n_consts + n_carry], operands[n_consts + n_carry :]
    for i in reversed(range(length)) if reverse else range(length):
        out = body(*consts, *carry, *[x[i] for x in xs])
        carry = out[:n_carry]
        for stack, y in zip(stacks, out[n_carry:], strict=True):
            stack[i] = y
    return (*carry, *stacks)


def repeated(*operands: Array, cond: Body, body: Body, n_cond: int, n_body: int) -> tuple:
    """body(consts, carry) → carry, as long as cond(consts, carry)."""
    test_consts, consts, carry = operands[:n_cond], operands[n_cond : n_cond + n_body], operands[n_cond + n_body :]
    while cond(*test_consts, *carry)[0]:
        carry = body(*consts, *carry)
    return tuple(carry)


def chosen(index: Any, *operands: Array, branches: Sequence[Body]) -> tuple:
    """The results of the branch that index (clipped) names."""
    return branches[min(max(int(index), 0), len(branches) - 1)](*operands)
