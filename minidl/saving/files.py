"""Files: written whole or not at all, and read with errors that name the file.

The format is safetensors' (https://github.com/huggingface/safetensors), read and written by its library: a header of JSON with dtypes, shapes and
offsets, then the bytes. Nothing in it is executable.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  so that NumPy knows the name bfloat16
import numpy as np

_numbers = itertools.count()
_DTYPES = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64"}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _swept(folder: Path, host: str) -> None:
    """Remove what processes of this host that no longer live left in a folder, of whichever file: the next checkpoint has another name."""
    if os.name == "nt":  # no way to ask whether a process lives without disturbing it
        return
    for left in folder.glob(".*.partial"):
        found = re.fullmatch(r"\..+\." + re.escape(host) + r"-(\d+)-\d+\.partial", left.name)
        if found:
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                shutil.rmtree(left, ignore_errors=True)
            except OSError:
                pass


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    file = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file whole or not at all: the block writes to the path that it is given, beside `path`, and its end puts that in place.

    The data is on the disk before the name is (fsync of the file, rename, fsync of the folder), so that a crash at any moment leaves the old file or
    the new one. A block that raises changes nothing. Raises FileNotFoundError where the folder does not exist.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/notes.txt"
    >>> with atomic(path) as partial:
    ...     _ = partial.write_text("done")
    >>> Path(path).read_text()
    'done'
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {target.parent} does not exist")
    name, host = target.name[:100], re.sub(r"[^\w.]", "_", platform.node())[:50]
    _swept(target.parent, host)
    # A folder of its own, for the temporary files of whoever writes as well.
    folder = target.parent / f".{name}.{host}-{os.getpid()}-{next(_numbers)}.partial"
    folder.mkdir()
    partial = folder / target.name
    try:
        partial.touch()
        mode = partial.stat().st_mode  # what the user's umask leaves, where a library would make it private
        yield partial
        partial.chmod(mode)
        _sync(partial)
        os.replace(partial, target)
        if os.name != "nt":
            _sync(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays by name, atomically. Raises ValueError for more than 100 MB of names and texts, which the library would not read again."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with atomic(path) as partial:
        try:
            save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, str(partial), metadata=dict(metadata) or None)
        except SafetensorError as error:
            raise ValueError(f"{path}: not written: {error}; long lists of numbers belong in arrays") from None


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The library's reader of a safetensors file; whatever it finds wrong is a ValueError."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:  # errors of the system come as Python knows them
        start = file.read(4)
    try:
        with safe_open(os.fspath(path), framework="numpy") as reader:
            _unambiguous(path)
            yield reader
    except SafetensorError as error:
        if start.startswith(_PICKLES):  # asked last, as the length of a header may begin with the same bytes
            raise ValueError(
                f"{path}: a pickle, as torch.save writes, which can run any code when it is read; convert it with safetensors.torch.save_file"
            ) from None
        raise ValueError(f"{path}: damaged, truncated or no safetensors file: {error}") from None


def _unambiguous(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for a name that the header gives twice, of which the library takes the last and other readers the first."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(k for i, (k, _) in enumerate(pairs) if k in {other for other, _ in pairs[:i]})
            raise ValueError(f"{path}: damaged or hostile: the header gives {twice!r} twice")
        return found

    with open(path, "rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=once)


def array(path: str | os.PathLike[str], reader: Any, name: str) -> np.ndarray:
    """One array of an open file. Raises ValueError for a dtype that minidl does not have."""
    dtype = reader.get_slice(name).get_dtype()
    if dtype not in _DTYPES:
        raise ValueError(f"{path}: {name!r} has the dtype {dtype}, which minidl does not have; convert it to F16, BF16 or F32")
    try:
        found = reader.get_tensor(name)
    except ValueError as error:  # more axes than NumPy can have
        raise ValueError(f"{path}: damaged or hostile: {name!r} is no array: {error}") from None
    return np.asarray(found.view(np.uint8) != 0) if found.dtype == np.bool_ else found  # other bytes than 0 and 1 are no Booleans to NumPy
