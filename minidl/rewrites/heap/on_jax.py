"""jax on a CPU: how XLA asks for the temporary memory of a program."""

from __future__ import annotations

from typing import Any

import jax

#: Bytes of a block: XLA else takes all of it at once, and glibc maps what is larger than 32 MB anew in each call, which faults in every page.
HEAPS = {"xla_multiheap_size_constraint_per_heap": 24 << 20}


def compiled(lowered: Any) -> Any:
    """What XLA makes of a program; without the blocks where this XLA does not know the option."""
    try:
        return lowered.compile(HEAPS)
    except jax.errors.JaxRuntimeError as error:
        if "compile option" not in str(error):
            raise
    return lowered.compile()
