"""JAX: loops and branches are lax's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from minidl.graph import Graph


def scan(xp: Any, *operands: Any, body: Graph, length: int, n_consts: int, n_carry: int, reverse: bool) -> tuple:
    """lax.scan; the outputs lie in the order of xs, also when it runs in reverse."""
    f = xp.callable(body)
    consts, carry, xs = operands[:n_consts], operands[n_consts : n_consts + n_carry], operands[n_consts + n_carry :]

    def step(state: tuple, x: tuple) -> tuple[tuple, tuple]:
        out = f(*consts, *state, *x)
        return out[:n_carry], out[n_carry:]

    carry, ys = lax.scan(step, carry, xs, length=length, reverse=reverse)
    return (*carry, *ys)


def while_loop(xp: Any, *operands: Any, cond: Graph, body: Graph, n_cond: int, n_body: int) -> tuple:
    """lax.while_loop."""
    test, f = xp.callable(cond), xp.callable(body)
    first, second, carry = operands[:n_cond], operands[n_cond : n_cond + n_body], operands[n_cond + n_body :]
    return tuple(lax.while_loop(lambda s: test(*first, *s)[0], lambda s: f(*second, *s), carry))


def cond(xp: Any, index: Any, *operands: Any, branches: tuple[Graph, ...]) -> tuple:
    """lax.switch with the index clipped."""
    place = lax.convert_element_type(lax.clamp(np.int64(0), index, np.int64(len(branches) - 1)), np.int32)
    return tuple(lax.switch(place, [xp.callable(b) for b in branches], *operands))
