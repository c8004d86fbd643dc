"""Where minidl keeps what it would have to work out again: MINIDL_CACHE, by default ~/.cache/minidl.

Promises: files appear whole or not at all, also when several processes write them; where nothing can be written nothing is kept, which is no error.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any


@functools.cache
def _usable(setting: str | None) -> Path | None:
    try:
        path = Path(setting) if setting else Path.home() / ".cache" / "minidl"
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except (OSError, RuntimeError):
        return None


def directory() -> Path | None:
    """The cache directory, created; None where it cannot be written."""
    return _usable(os.environ.get("MINIDL_CACHE"))


def read(name: str) -> Any:
    """What was kept as JSON under this name; None where there is nothing, or nothing that can be read."""
    path = directory()
    try:
        return json.loads((path / name).read_text()) if path else None
    except (OSError, ValueError):
        return None


def write(name: str, value: Any) -> None:
    """Keep a value as JSON."""
    path = directory()
    if path is None:
        return
    try:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path, suffix=".tmp", delete=False) as file:
            json.dump(value, file)
        os.replace(file.name, path / name)
    except OSError:
        return
