"""Errors that only values can show, where values cannot be looked at: in a traced program, under vmap, on an accelerator.

Eager on a CPU an index out of range, a singular matrix or an integer to a negative power raises at once. Elsewhere `md.out_of_bounds` says what
happens; its "raise-later" writes the number of the first error, and the index that made it, into a flag on the device, which is state like any other:
a compiled program, a loop or a branch carries it, and `.numpy()`, `.item()` and the next call of a compiled program read it and raise.

A flag belongs to its device, not to a thread: as with an accelerator's own errors, whichever thread synchronises first is told, once. The note on the
exception says whose line it was.

Promises: without that policy nothing is computed, kept or read; no policy lets a library see an index that is out of range; the words are those that
the same error has where it is raised at once.
"""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock  # as in minidl.context
from typing import Any

from minidl.context import ask, grad_mode, interpreting, state
from minidl.dtypes import int64
from minidl.tensors import Tensor, home, ns

_HERE = os.path.dirname(__file__)
#: The flag of each backend and device that ever had an error to expect: 0, or the number of an entry of `errors` plus 1, in front of the index.
flags: dict[Any, Tensor] = {}
errors: list[tuple[type[Exception], str, str]] = []
_PLACE = 40  # so many bits of the flag are the index
_MOST = 2 ** (_PLACE - 1) - 1
_FINE = -(2**62)  # the code of an element that is no error
_lock = allocate_lock()  # an error has one number and is told once, whichever threads make it and look


def policy() -> str:
    """What `md.out_of_bounds` says in this thread. A trace that asks becomes a program for this answer."""
    return ask("bounds")


def _line() -> tuple[str, str]:
    """The public function that asks, and the user's line."""
    frame = sys._getframe(2)
    while frame.f_code.co_name.startswith("_") and frame.f_back is not None:
        frame = frame.f_back
    name = frame.f_code.co_name
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_HERE, "<minidl")):
        frame = frame.f_back
    return name, f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _flag(xp: Any) -> Tensor:
    if (xp := home(xp)) not in flags:
        with xp.scope():
            flags.setdefault(xp, Tensor(xp.full(shape=(), value=0, dtype=int64), xp, int64))
    return flags[xp]


def _worst(codes: Tensor) -> Tensor:
    """Of several the code to show: the lowest index below zero, else the largest."""
    axes = tuple(range(codes.ndim))
    low = ns.min(ns.where(ns.eq(codes, _FINE), 0, codes), axis=axes, keepdims=False)
    return ns.where(ns.lt(low, 0), low, ns.max(codes, axis=axes, keepdims=False))


def _anywhere(codes: Tensor) -> Any:
    """The code of all elements in all lanes of all vmaps: a Tensor of the innermost trace (or none), and that interpreter."""
    level, codes = state.interpreter, _worst(codes)
    while hasattr(level, "size"):  # a vmap
        payload = level.lift(codes)[0]
        codes, level = payload.inner, level.parent
        with interpreting(level):
            codes = _worst(codes)
    return codes, level


def expect(bad: Tensor, kind: type[Exception], text: str, index: Tensor | None = None) -> None:
    """Raise kind(text) at the next synchronisation if `bad` holds anywhere, with the user's line in a note. For the policy "raise-later".

    index: what "{}" in the text stands for, for each element of bad. A text without a name is given that of the operation.
    """
    if 0 in bad.shape:
        return
    shown = ns.clip(index, -_MOST, _MOST) if index is not None else ns.full(shape=(), value=0, dtype=int64)
    codes = ns.where(bad, shown, _FINE)
    name, line = _line()
    entry = kind, text if ": " in text else f"{name}: {text}", line
    code, level = _anywhere(codes)
    with _lock, interpreting(level), grad_mode(False):
        if entry not in errors:
            errors.append(entry)
        number = errors.index(entry) + 1
        flag = _flag(level or code.xp)
        raised = ns.logical_and(ns.ne(code, _FINE), ns.eq(flag, 0))
        flag.assign(ns.where(raised, ns.add(code, (number << _PLACE) + _MOST), flag))


def check() -> None:
    """Raise the first error that a flag has seen since the last check."""
    for xp, flag in list(flags.items()):  # another thread may add one
        if not int(xp.to_numpy(flag.payload)):
            continue
        with _lock, xp.scope():
            found, flag.payload = int(xp.to_numpy(flag.payload)), xp.full(shape=(), value=0, dtype=int64)
        if found:
            kind, text, line = errors[(found >> _PLACE) - 1]
            error = kind(text.replace("{}", str((found & (1 << _PLACE) - 1) - _MOST)))
            error.add_note(f"raise-later: at {line}")
            raise error
