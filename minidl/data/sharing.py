"""Objects sent between a loader and its workers, with their arrays in shared memory.

A message is a pickle (protocol 5) whose large buffers lie outside it. Where the system has memory without a name (Linux: memfd), a message above
INLINE bytes is written into such memory and only its file descriptor is sent: the receiver maps it and its arrays show it, without a copy. It is
freed with the last array, and nothing is left behind, whoever is killed. Elsewhere the bytes go through the pipe.

Only a loader and the workers that it started talk in this way; nothing is ever unpickled that came from outside.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import socket
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import minidl as md

SHARED = hasattr(os, "memfd_create") and hasattr(socket, "send_fds")
INLINE = 16 * 1024  # messages up to this size are sent as they are: a few of them fit the buffer of a pipe, so that sending never blocks
ALIGN = 64  # what every library takes without a copy


def _reopen(filename: str, dtype: Any, mode: Any, offset: int, shape: tuple[int, ...]) -> np.memmap:
    return np.memmap(filename, dtype=dtype, mode=mode, offset=offset, shape=shape)


def _tensor(array: np.ndarray) -> md.Tensor:
    return md.asarray(array, backend="numpy")


def _torch(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array if array.flags.writeable else array.copy())


class _Pickler(pickle.Pickler):
    """Tensors arrive on the numpy backend; maps of files are opened again instead of read."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is np.memmap:
            return _of_memmap(obj)
        if isinstance(obj, md.Tensor) and kind is md.Tensor and not obj.requires_grad:
            return _tensor, (np.asarray(obj, copy=False),)
        if kind.__module__ == "torch" and kind.__name__ == "Tensor" and not obj.requires_grad and obj.layout is sys.modules["torch"].strided:
            try:
                return _torch, (obj.cpu().numpy(),)
            except TypeError:  # a dtype that NumPy does not have
                return NotImplemented
        return NotImplemented


def _of_memmap(array: np.memmap) -> Any:
    """How to open the part of the file that the array shows; NotImplemented, which means a copy, where that is not one contiguous piece."""
    base: Any = getattr(array, "_mmap", None)
    if base is None or array.filename is None or array.mode == "c" or not array.flags.c_contiguous or not array.size:
        return NotImplemented
    start = np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    offset = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY + array.__array_interface__["data"][0] - start
    if not 0 <= offset <= os.path.getsize(array.filename) - array.nbytes:
        return NotImplemented
    return _reopen, (os.fspath(array.filename), array.dtype, "r" if array.mode == "r" else "c", offset, array.shape)


class Packet:
    """A pickled object, ready to be sent once or several times. Raises what pickling raises."""

    def __init__(self, obj: Any):
        buffers: list[pickle.PickleBuffer] = []
        body = io.BytesIO()
        _Pickler(body, protocol=5, buffer_callback=buffers.append).dump(obj)
        self.parts = [memoryview(body.getbuffer()), *(b.raw() for b in buffers)]
        self.sizes = [p.nbytes for p in self.parts]
        self.fd: int | None = None
        if SHARED and sum(self.sizes) > INLINE:
            self.fd = os.memfd_create("minidl-data", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, _places(self.sizes)[-1])
            with mmap.mmap(self.fd, 0) as memory:
                for start, part in zip(_places(self.sizes), self.parts, strict=False):
                    memory[start : start + part.nbytes] = part
            self.parts = []

    def send(self, connection: Connection) -> None:
        """Send it. Raises BrokenPipeError where the other side is gone."""
        connection.send_bytes(pickle.dumps((self.sizes, None if self.fd is not None else b"".join(self.parts))))
        if self.fd is not None:
            with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as wire:
                socket.send_fds(wire, [b"m"], [self.fd])

    def close(self) -> None:
        """Give back the sender's side of the memory."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def send(connection: Connection, obj: Any) -> None:
    """Send one object once."""
    packet = Packet(obj)
    try:
        packet.send(connection)
    finally:
        packet.close()


def receive(connection: Connection) -> Any:
    """The next object; its arrays can be written to, and no other process sees that. Raises EOFError where the other side is gone."""
    sizes, inside = pickle.loads(connection.recv_bytes())
    if inside is not None:
        ends = np.cumsum(sizes).tolist()
        body, *buffers = (bytearray(inside[e - n : e]) for n, e in zip(sizes, ends, strict=True))
        return pickle.loads(body, buffers=buffers)
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        data, fds, *_ = socket.recv_fds(wire, 1, 1)
    if not data or not fds:
        raise EOFError("the connection ended inside a message")
    try:
        memory = memoryview(mmap.mmap(fds[0], 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(fds[0])
    pieces = [memory[start : start + size] for start, size in zip(_places(sizes), sizes, strict=False)]
    return pickle.loads(pieces[0], buffers=pieces[1:])


def _places(sizes: list[int]) -> list[int]:
    """Where each part begins, aligned, and where the last one ends."""
    out = [0]
    for size in sizes:
        out.append(out[-1] + -(-size // ALIGN) * ALIGN)
    out[-1] = max(out[-1], 1)
    return out


def sendable(what: str, obj: Any, way_out: str) -> Packet:
    """obj as a Packet. Raises TypeError that says what cannot be pickled, and the way out."""
    try:
        return Packet(obj)
    except Exception as cause:
        raise TypeError(f"{what} cannot be sent to another process: {type(cause).__name__}: {cause}. {way_out}") from cause
