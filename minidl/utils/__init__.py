"""torch.utils: `minidl.utils.data` is md.data, and `minidl.utils.checkpoint` md.checkpoint as PyTorch calls it."""

from __future__ import annotations

from minidl.utils import checkpoint, data  # noqa: F401  (data: its page is that of md.data)

__all__ = ["checkpoint"]
