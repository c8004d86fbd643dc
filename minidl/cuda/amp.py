"""torch.cuda.amp: autocast and GradScaler with the arguments that they have there, which are md.autocast("cuda") and md.amp.GradScaler.

>>> from minidl.cuda.amp import GradScaler, autocast
>>> with autocast(enabled=False):
...     (md.ones(1) + 1).dtype
minidl.float32
"""

from __future__ import annotations

from typing import Any

import minidl as md

__all__ = ["GradScaler", "autocast"]


class autocast(md.autocast):
    """md.autocast of tensors on CUDA devices, in float16 by default; others are left alone. cache_enabled is accepted and changes nothing."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True):
        super().__init__("cuda", dtype, enabled)


class GradScaler(md.amp.GradScaler):
    """md.amp.GradScaler, whose first argument is init_scale."""

    def __init__(
        self, init_scale: float = 65536.0, growth_factor: float = 2.0, backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True
    ):
        super().__init__(None, init_scale, growth_factor, backoff_factor, growth_interval, enabled)
