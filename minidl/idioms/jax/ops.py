"""jax.ops."""

from minidl.idioms.of_jax import segment_sum
from minidl.idioms.of_lax import segment_max, segment_min, segment_prod

__all__ = ["segment_max", "segment_min", "segment_prod", "segment_sum"]
