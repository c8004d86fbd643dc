"""JAX: products of 8-bit integers, in lax."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax


def dot_int8(x: Any, y: Any) -> Any:
    return lax.dot_general(x, y, (((1,), (1,)), ((), ())), preferred_element_type=np.dtype(np.int32))
