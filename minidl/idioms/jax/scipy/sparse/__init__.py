"""jax.scipy.sparse: linalg."""

from minidl.idioms.jax.scipy.sparse import linalg

__all__ = ["linalg"]
