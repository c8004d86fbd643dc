"""jax.flatten_util."""

from minidl.idioms.of_lax import ravel_pytree

__all__ = ["ravel_pytree"]
