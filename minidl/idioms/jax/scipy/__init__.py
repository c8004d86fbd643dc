"""jax.scipy: fft, integrate, linalg, ndimage, optimize, signal, sparse.linalg, special and stats under SciPy's names, with JAX's arguments."""

import importlib
from typing import Any

_ROOMS = ("fft", "integrate", "linalg", "ndimage", "optimize", "signal", "sparse", "special", "stats")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'jax.scipy' of minidl.idioms has no attribute {name!r}; it has {', '.join(_ROOMS)}")
