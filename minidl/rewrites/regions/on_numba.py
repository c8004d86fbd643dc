"""numba: as on NumPy."""

from minidl.rewrites.regions.on_numpy import products, recompute

__all__ = ["products", "recompute"]
