"""JAX: threefry2x32."""

from __future__ import annotations

from typing import Any

from jax.extend.random import threefry2x32_p

from minidl.backends.jax_helpers import spread
from minidl.primitives import table


def threefry2x32(k0: Any, k1: Any, x0: Any, x1: Any) -> Any:
    words = spread(k0, k1, x0, x1)
    if words[0].size < 16:
        return tuple(threefry2x32_p.bind(*words))
    rounds: Any = table["threefry2x32"].decompose
    return rounds(None, *words)  # which XLA fuses with what reads it; jax's own is a subroutine, so the many draws of keys are compiled once
