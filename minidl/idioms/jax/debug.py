"""jax.debug."""

from minidl.idioms.jax.callbacks import callback, print

__all__ = ["callback", "print"]
