"""Where arrays live: backends are found by name, imported when first asked for, and chosen by MINIDL_BACKEND, set_backend or use_backend.

A third party adds one by an entry point in the group `minidl.backends` that names a function `make(device) -> Backend`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from _thread import RLock, _local  # as in minidl.context
from collections.abc import Callable, Iterator
from typing import Any

BUILTIN = ("numpy", "numba", "torch", "jax")
_instances: dict[tuple[str, str | None], Any] = {}
_lock = RLock()


class _Choice(_local):
    stack: tuple[Any, ...] = ()
    auto: bool | None = None  # what use_backend says of it in this thread


_choice = _Choice()
_default: list[Any] = [None]
_auto = [os.environ.get("MINIDL_BACKEND") == "auto"]


def _builtin(name: str) -> Callable[[str | None], Any]:
    random: Any = sys.modules.get("numpy.random")
    state = random and random.get_state(legacy=False)
    try:
        return importlib.import_module(f"minidl.backends.{name}_backend").make
    finally:
        if random is not None:
            random.set_state(state)  # importing jax draws from NumPy's global generator


def _makers() -> dict[str, Callable[[], Callable[[str | None], Any]]]:
    import importlib.metadata  # 20 ms that `import minidl` does not pay

    found: dict[str, Callable[[], Any]] = {n: functools.partial(_builtin, n) for n in BUILTIN}
    for point in importlib.metadata.entry_points(group="minidl.backends"):
        if point.name not in found:
            found[point.name] = point.load
    return found


def names() -> list[str]:
    """The names of all backends that minidl knows, installed or not."""
    return list(_makers())


def get(name: str, device: str | None = None) -> Any:
    """The backend of that name on that device, e.g. get("torch", "cuda:0").

    Raises ValueError for an unknown name and ImportError for one whose library is missing; both list what there is.

    >>> get("numpy")
    <backend numpy on cpu>
    """
    key = (name, device)
    with _lock:
        if key not in _instances:
            makers = _makers()
            if name not in makers:
                raise ValueError(f"backend {name!r} is unknown; there are {', '.join(makers)} (MINIDL_BACKEND or md.set_backend chooses one)")
            try:
                backend = makers[name]()(device)
            except ImportError as error:
                usable = [n for n, why in available().items() if why is True and n != name]
                hint = f"pip install 'minidl[{name}]'" if name in BUILTIN else f"install what provides {name}"
                raise ImportError(f"backend {name!r} cannot be loaded ({error}); {hint}, or use one of {', '.join(usable)}") from error
            same = [b for b in _instances.values() if b.name == backend.name and b.device == backend.device]
            _instances[key] = same[0] if same else backend
        return _instances[key]


def loaded() -> list[Any]:
    """The backends that are in use in this process."""
    return list(dict.fromkeys(_instances.values()))


def available() -> dict[str, bool | str]:
    """Which backends can be used here: True, or why not. Looks for the libraries without importing them.

    >>> md.backends()["numpy"]
    True
    """
    import importlib.util

    out: dict[str, bool | str] = {}
    for name in _makers():
        needs = {"numpy": ["numpy"], "numba": ["numba"], "torch": ["torch"], "jax": ["jax", "jaxlib"]}.get(name, [])
        missing = [n for n in needs if importlib.util.find_spec(n) is None]
        out[name] = f"{', '.join(missing)} not installed: pip install 'minidl[{name}]'" if missing else True
    return out


def default() -> Any:
    """The backend that new tensors are made on."""
    if _choice.stack:
        return _choice.stack[-1]
    if _default[0] is None:
        _default[0] = _named(os.environ.get("MINIDL_BACKEND") or "numpy", os.environ.get("MINIDL_DEVICE") or None)
    return _default[0]


def _named(name: str, device: str | None) -> Any:
    return get("numpy" if name == "auto" else name, device)


def automatic() -> bool:
    """Whether a jitted function that names no backend chooses one by measuring: MINIDL_BACKEND, set_backend or use_backend says "auto"."""
    return _auto[0] if _choice.auto is None else _choice.auto


def set_backend(name: str, device: str | None = None) -> None:
    """Make new tensors on this backend from now on. "auto": on numpy, and md.jit chooses for each graph who runs it.

    >>> set_backend("numpy")
    """
    _default[0] = _named(name, device)
    _auto[0] = name == "auto"


@contextlib.contextmanager
def use_backend(name: str, device: str | None = None) -> Iterator[Any]:
    """Make new tensors on this backend inside the block, in this thread. Raises ValueError for a backend or a device that is not here.

    >>> with md.use_backend("numpy"):
    ...     md.ones(2).backend
    'numpy'
    """
    before = _choice.auto
    with using(_named(name, device)) as backend:
        _choice.auto = name == "auto"
        try:
            yield backend
        finally:
            _choice.auto = before


@contextlib.contextmanager
def using(backend: Any) -> Iterator[Any]:
    """Make new tensors on this backend instance inside the block, in this thread.

    >>> with md.extend.using(md.extend.get_backend("numpy")):
    ...     md.ones(2).backend
    'numpy'
    """
    before = _choice.stack
    _choice.stack = (*before, backend)
    try:
        yield backend
    finally:
        _choice.stack = before
