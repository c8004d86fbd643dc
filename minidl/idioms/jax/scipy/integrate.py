"""jax.scipy.integrate: the rule of trapezoids, as in jax.numpy."""

from minidl.idioms.jax.numpy import trapezoid

__all__ = ["trapezoid"]
