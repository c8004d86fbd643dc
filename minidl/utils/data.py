"""torch.utils.data: the names of md.data.

>>> from minidl.utils.data import DataLoader
>>> DataLoader is md.data.DataLoader
True
"""

from __future__ import annotations

from minidl import data
from minidl.data import *  # noqa: F403

__all__ = [*data.__all__]
