"""Files from the network: nothing is kept whose checksum is not the published one, and nothing half-written is ever taken for a file."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from minidl.data.bars import bar

TIMEOUT = 30  # seconds without a byte after which a server counts as gone


def checksum_of(path: str | os.PathLike[str], kind: str) -> str:
    """The hexadecimal checksum of a file; kind: "md5", "sha256" or another name of hashlib."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _split(checksum: str) -> tuple[str, str]:
    kind, _, value = checksum.partition(":")
    if kind not in hashlib.algorithms_available or not value:
        raise ValueError(f"checksum {checksum!r}: 'md5:…' or 'sha256:…' is wanted")
    return kind, value.lower()


def is_intact(path: str | os.PathLike[str], checksum: str) -> bool:
    """Whether a file is there and has this checksum ("md5:…", "sha256:…")."""
    kind, value = _split(checksum)
    return os.path.isfile(path) and checksum_of(path, kind) == value


def download(urls: str | Sequence[str], path: str | os.PathLike[str], checksum: str, *, progress: bool = True) -> Path:
    """Fetch a file from the first of some URLs that has it, with a progress bar; a file that is there and intact is left as it is.

    The bytes go to a temporary file beside `path`, which takes its name when the checksum ("md5:…", "sha256:…") is right. Raises RuntimeError that
    says what happened at each URL.
    """
    kind, wanted = _split(checksum)
    path = Path(path)
    if is_intact(path, checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    for url in [urls] if isinstance(urls, str) else urls:
        handle, part = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                found = _fetch(url, file, path.name, kind, progress)
            if found == wanted:
                os.replace(part, path)
                return path
            problems.append(f"{url}: the {kind} of what came is {found}, not {wanted}")
        except OSError as error:  # urllib's errors and timeouts are among them
            problems.append(f"{url}: {error}")
        finally:
            if os.path.exists(part):
                os.unlink(part)
    raise RuntimeError(f"download: {path.name} could not be had:\n  " + "\n  ".join(problems) + f"\nPut the file at {path} by hand, or name a mirror")


def _fetch(url: str, file: Any, name: str, kind: str, progress: bool) -> str:
    """Write what a URL gives to a file; the checksum of it."""
    import urllib.request

    found = hashlib.new(kind, usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "minidl"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        with bar(total=total or None, desc=name, unit="B", unit_scale=True, disable=not progress) as shown:
            while block := answer.read(1 << 16):
                file.write(block)
                found.update(block)
                shown.update(len(block))
    return found.hexdigest()


def gunzip(path: Path, target: Path) -> None:
    """Unpack a .gz file. Raises RuntimeError for a damaged one; target appears whole or not at all."""
    part = target.with_name(target.name + ".part")
    try:
        with gzip.open(path, "rb") as packed, open(part, "wb") as file:
            shutil.copyfileobj(packed, file)
        os.replace(part, target)
    except (OSError, EOFError) as error:
        raise RuntimeError(f"{path} cannot be unpacked: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def extract(archive: Path, names: Iterable[str], folder: Path) -> None:
    """Take the named plain files, and nothing else, out of a tar archive into a folder, under the last part of their names.

    Raises RuntimeError for a damaged archive or one that lacks a file. Paths, links and owners that the archive states are not followed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for name in names:
                source = tar.extractfile(tar.getmember(name))
                if source is None:
                    raise KeyError(f"{name} is no plain file")
                target = folder / name.rpartition("/")[2]
                part = target.with_name(target.name + ".part")
                with source, open(part, "wb") as file:
                    shutil.copyfileobj(source, file)
                os.replace(part, target)
    except (KeyError, tarfile.TarError, OSError, EOFError) as error:
        raise RuntimeError(f"{archive} cannot be unpacked: {error}") from error
