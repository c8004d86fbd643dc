"""jax.numpy.fft: md.fft with JAX's word for its first argument."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.idioms.jax.spelling import room, spelled

_LINE = "fft hfft ifft ihfft irfft rfft"
_ALL = "fft2 fftn ifft2 ifftn irfft2 irfftn rfft2 rfftn"
NAMES: dict[str, Any] = {
    **{name: spelled(getattr(md.fft, name), "a / n axis norm", name) for name in _LINE.split()},
    **{name: spelled(getattr(md.fft, name), "a / s axes norm", name) for name in _ALL.split()},
}  # fmt: skip
_SAME = "fftfreq fftshift ifftshift rfftfreq"
__getattr__ = room(__name__, NAMES, (md.fft,), _SAME)


def __dir__() -> list[str]:
    return sorted({*NAMES, *_SAME.split()})
