"""The table of primitives: the one place that says what can be computed and how it differentiates.

`table[name]` is the primitive of that name. Everything else (tape, tracing, batching, backends, tests) reads the table.
"""

from minidl.primitives import (
    contraction,
    custom,
    elementwise,
    indexing,
    reductions,
    structural,
)
from minidl.primitives.core import Primitive, table

__all__ = [
    "Primitive", "contraction", "custom", "elementwise", "indexing", "reductions",
    "structural", "table",
]  # fmt: skip
