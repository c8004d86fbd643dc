"""The bar on the terminal for what takes longer than two seconds."""

from __future__ import annotations

import threading
from typing import Any


def bar(*args: Any, **options: Any) -> Any:
    """A bar of tqdm that leaves the process as it is.

    tqdm's own starts a thread that stays, and a lock between processes, after which multiprocessing.set_start_method raises; its lock is taken
    where it is there already.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        monitor_interval = 0

    Bar.set_lock(tqdm.__dict__.get("_lock") or _lock)
    return Bar(*args, **options)


_lock = threading.RLock()
