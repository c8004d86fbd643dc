"""torch.cuda: what PyTorch's programs ask of CUDA, answered by the default backend; `minidl.cuda.amp` is PyTorch's older room of mixed precision."""

from __future__ import annotations

import minidl as md
from minidl.cuda import amp  # noqa: F401  (its page is its own)

__all__ = ["device_count", "is_available", "manual_seed", "manual_seed_all"]


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


def manual_seed_all(seed: int) -> None:
    """md.manual_seed: there is one stream for all devices.

    >>> md.cuda.manual_seed_all(0)
    """
    md.manual_seed(seed)


manual_seed = manual_seed_all
