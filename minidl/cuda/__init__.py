"""torch.cuda: what PyTorch's programs ask of CUDA, answered by the default backend; `minidl.cuda.amp` is PyTorch's older room of mixed precision.

Where there is no CUDA device, what would change one does nothing, and numbers of bytes are 0.
"""

from __future__ import annotations

import sys
from typing import Any

import minidl as md
from minidl.cuda import amp  # noqa: F401  (its page is its own)

__all__ = [
    "current_device", "device_count", "empty_cache", "get_device_name", "is_available", "is_bf16_supported", "is_initialized", "manual_seed",
    "manual_seed_all", "max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved", "reset_peak_memory_stats",
    "set_device", "synchronize",
]  # fmt: skip


def device_count() -> int:
    """The number of CUDA devices.

    >>> md.cuda.device_count()  # on the numpy backend
    0
    """
    return sum(d.startswith("cuda") for d in md.zeros(()).__array_namespace__().__array_namespace_info__().devices())


def is_available() -> bool:
    """Whether there is a CUDA device.

    >>> md.cuda.is_available() == (md.cuda.device_count() > 0)
    True
    """
    return device_count() > 0


is_initialized = is_bf16_supported = is_available


def manual_seed_all(seed: int) -> None:
    """md.manual_seed: there is one stream for all devices.

    >>> md.cuda.manual_seed_all(0)
    """
    md.manual_seed(seed)


manual_seed = manual_seed_all


def current_device() -> int:
    """The number of the CUDA device on which the default backend computes. Raises RuntimeError where it computes on another.

    >>> md.cuda.current_device() if md.cuda.is_available() else "cpu"
    'cpu'
    """
    device = str(md.zeros(()).device)
    if not device.startswith("cuda"):
        raise RuntimeError(f"cuda.current_device: the default backend computes on {device!r}; MINIDL_DEVICE or md.set_backend says where")
    return int(device.partition(":")[2] or 0)


def set_device(device: Any) -> None:
    """Compute on this CUDA device from now on: md.set_backend. Nothing happens for a negative number or where there is no CUDA.

    >>> md.cuda.set_device(0)
    """
    number = device if isinstance(device, int) else int(str(device).partition(":")[2] or 0)
    if number >= 0 and is_available():
        md.set_backend(md.zeros(()).backend, f"cuda:{number}")


def get_device_name(device: Any = None) -> str:
    """The name of a CUDA device. Raises RuntimeError where there is none.

    >>> md.cuda.get_device_name() if md.cuda.is_available() else "cpu"
    'cpu'
    """
    at = _native(device)
    if at is None:
        raise RuntimeError("cuda.get_device_name: the default backend has no CUDA device")
    return at.device_kind if hasattr(at, "device_kind") else sys.modules["torch"].cuda.get_device_name(at)  # type: ignore[no-any-return]


def synchronize(device: Any = None) -> None:
    """Wait until what was asked of the default backend's device is computed, which a clock should do.

    >>> md.cuda.synchronize()
    """
    md.block_until_ready(md.zeros(()) + 1)


def empty_cache() -> None:
    """Give memory that is kept for later back to the device, where the backend's library can.

    >>> md.cuda.empty_cache()
    """
    if _native() is not None and md.zeros(()).backend == "torch":
        sys.modules["torch"].cuda.empty_cache()


def _native(device: Any = None) -> Any:
    """What the default backend's library calls a CUDA device; None where there is none."""
    if not is_available():
        return None
    where = md.zeros(())
    number = device if isinstance(device, int) else int(str(where.device if device is None else device).partition(":")[2] or 0)
    return sys.modules["jax"].devices("gpu")[number] if where.backend == "jax" else number


def _bytes(what: str, jax: str, device: Any) -> int:
    at = _native(device)
    if at is None:
        return 0
    return int((at.memory_stats() or {}).get(jax, 0)) if hasattr(at, "memory_stats") else getattr(sys.modules["torch"].cuda, what)(at)


def memory_allocated(device: Any = None) -> int:
    """Bytes of the arrays that are alive on a CUDA device.

    >>> md.cuda.memory_allocated()  # on the numpy backend
    0
    """
    return _bytes("memory_allocated", "bytes_in_use", device)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that arrays had on a CUDA device.

    >>> md.cuda.max_memory_allocated()  # on the numpy backend
    0
    """
    return _bytes("max_memory_allocated", "peak_bytes_in_use", device)


def memory_reserved(device: Any = None) -> int:
    """Bytes that the backend's library keeps on a CUDA device.

    >>> md.cuda.memory_reserved()  # on the numpy backend
    0
    """
    return _bytes("memory_reserved", "pool_bytes", device)


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes that the backend's library kept on a CUDA device.

    >>> md.cuda.max_memory_reserved()  # on the numpy backend
    0
    """
    return _bytes("max_memory_reserved", "peak_pool_bytes", device)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let max_memory_allocated begin again from now, where the backend's library can: jax cannot.

    >>> md.cuda.reset_peak_memory_stats()
    """
    at = _native(device)
    if isinstance(at, int):
        sys.modules["torch"].cuda.reset_peak_memory_stats(at)


_ORDER = "what is asked of a device runs in order; md.cuda.synchronize() before a clock is read"
#: Names of PyTorch that are not here, and what there is for them.
ABSENT = {
    **dict.fromkeys(("Stream", "Event", "stream", "current_stream", "default_stream"), _ORDER),
    **dict.fromkeys(("CUDAGraph", "graph", "make_graphed_callables"), 'md.jit(f, mode="cudagraph")'),
    **dict.fromkeys(("get_device_properties", "get_device_capability", "mem_get_info", "memory_summary"), "the backend's own library has it"),
}


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'minidl.cuda' has no attribute {name!r}" + (f"; {ABSENT[name]}" if name in ABSENT else ""))
