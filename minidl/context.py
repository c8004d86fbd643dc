"""Which interpreter, which grad mode and which other settings are in force in this thread, and the one counter that tells the happy path to look.

Promises: while no interpreter, no no_grad block and no other setting is alive in any thread, `busy[0]` is 0 and nobody reads a thread-local.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from _thread import _local, allocate_lock  # what threading makes public; importing that would be a thirtieth of `import minidl`
from collections.abc import Iterator
from typing import Any


class _State(_local):
    interpreter: Any = None  # the innermost trace or vmap of this thread; None when eager
    grad: bool = True  # whether operations are recorded on the tape
    lasting: bool = False  # whether they are not, by a statement that no block ends
    autocast: Any = None  # what says in which dtype an operation computes, see autocasting
    strong: bool = False  # whether a cotangent of 0 annihilates infinities and NaN
    bounds: str = "clip"  # what data outside an operation's domain does where it cannot be looked at
    transposing: bool | None = False  # whether tangents of a rule are, so that what is met is linear; None while they are recorded for that
    journal: Any = None  # where in-place operations note what they change, while checkpoint looks


state = _State()
DEFAULTS = {name: value for name, value in vars(_State).items() if not name.startswith("_")}  # what holds where nothing was set
busy = [0]
_lock = allocate_lock()


def _count(step: int) -> None:
    with _lock:
        busy[0] += step


def levels() -> Iterator[Any]:
    """The interpreters at work in this thread, the innermost first."""
    level = state.interpreter
    while level is not None:
        yield level
        level = level.parent


def at_once() -> bool:
    """Whether operations of this thread run eagerly and in their operands' dtypes, as they do while nothing is busy.

    >>> md.extend.at_once(), md.jit(lambda x: x * md.extend.at_once())(md.tensor(1.0)).item()
    (True, 0.0)
    """
    return state.interpreter is None and state.autocast is None


@functools.cache
def satellite(name: str) -> Any:
    """A room above the core, which works without it; None where it is not there."""
    try:
        return importlib.import_module(f"minidl.{name}")
    except ModuleNotFoundError as error:
        if not f"minidl.{name}".startswith(str(error.name)):
            raise
    return None


class setting:
    """Another value for a setting of this thread inside the block. Raises RuntimeError where what a trace runs leaves a grad mode behind."""

    __slots__ = ("before", "grad", "lasting", "name", "value")

    def __init__(self, name: str, value: Any):
        self.name, self.value = name, value

    def __enter__(self) -> Any:
        self.before, self.lasting, self.grad = getattr(state, self.name), state.lasting, state.grad
        setattr(state, self.name, self.value)
        _count(1)
        return self.value

    def __exit__(self, *error: Any) -> None:
        setattr(state, self.name, self.before)
        if self.name == "grad" and state.lasting is not self.lasting:  # a statement in the block ends with it
            record_from_now(self.before, self.lasting)
        _count(-1)
        if self.name == "interpreter" and (left := state.grad) is not self.grad and hasattr(self.value, "quiet"):
            record_from_now(self.grad, self.lasting)
            if error[0] is None:
                raise RuntimeError(
                    f"jit: the traced function left md.set_grad_enabled({left}) behind, which would happen only once; use it as a block,"
                    " with md.set_grad_enabled(...):"
                )


def record_from_now(on: bool, lasting: bool, step: int = 0) -> None:
    """Record operations of this thread, or not, without an end; lasting: whether that is no block's doing. step: of blocks that begin or end."""
    _count(lasting - state.lasting + step)
    state.grad, state.lasting = on, lasting


def interpreting(interpreter: Any) -> contextlib.AbstractContextManager[Any]:
    """Make `interpreter` (a trace, a vmap level, or None for eager) the current one in this thread.

    >>> def f(x):
    ...     with md.extend.interpreting(None):  # what md.eagerly does
    ...         two = md.ones(2).sum().item()
    ...     return x * two
    >>> md.jit(f)(md.tensor(3.0)).item()
    6.0
    """
    return setting("interpreter", interpreter)


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """A context in which operations run at once, also inside md.jit, md.trace and md.vmap: for constants that are worked out while tracing.

    Inside it a symbolic tensor of the trace cannot be used. Its counterpart is jax.ensure_compile_time_eval.

    >>> table = md.arange(4)
    >>> def f(x):
    ...     with md.eagerly():
    ...         largest = int(table.max())  # a number of Python
    ...     return x[:largest]
    >>> md.jit(f)(md.zeros((5,))).shape
    (3,)
    """
    return interpreting(None)


def grad_mode(on: bool) -> contextlib.AbstractContextManager[Any]:
    """Record operations on the tape, or not, in this thread."""
    return setting("grad", on)


def hush(on: bool) -> tuple[Any, Any] | None:
    """Tell the trace at work whether what its user computes from here on is recorded: who differentiates it when it is over must know. Returns the
    trace and what it was told before."""
    level = next((level for level in levels() if hasattr(level, "quiet")), None)
    if level is None:
        return None
    before = level.quiet
    level.quiet = None if on else {} if before is None and state.grad else before
    return level, before


def autocasting(block: Any) -> contextlib.AbstractContextManager[Any]:
    """Compute under what md.autocast sets (None: in the operands' own dtypes), in this thread.

    >>> with md.autocast(), md.extend.autocasting(None):
    ...     md.is_autocast_enabled()
    False
    """
    return setting("autocast", block)


def cast_by() -> Any:
    """What autocasting was given for the innermost block of this thread, whose `wanted(name, operands)` says in which dtype a primitive computes.

    >>> with md.autocast(dtype=md.float16):
    ...     md.extend.cast_by()
    autocast(float16)
    """
    return state.autocast if busy[0] else None


def ask(name: str) -> Any:
    """A setting of this thread. A trace that asks becomes a program for the settings that it began with, whatever it sets on the way."""
    value, level = getattr(state, name), state.interpreter
    while level is not None:
        if hasattr(level, "asked"):
            level.root.asked.add(name)
            break
        level = level.parent
    return value


class Symbolic:
    """Operators for payloads that are not arrays (Var, Batched), so that a rule's text reads the same on all of them."""

    __slots__ = ()
    __array_ufunc__ = None
    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


def _operator(name: str, reverse: bool = False) -> Any:
    def method(self: Any, other: Any) -> Any:
        function = getattr(state.interpreter, name)
        return function(other, self) if reverse else function(self, other)

    return method


for _symbol, _name in {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "pow": "pow", "floordiv": "floor_divide", "mod": "remainder",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "shift_left", "rshift": "shift_right",
}.items():  # fmt: skip
    setattr(Symbolic, f"__{_symbol}__", _operator(_name))
    setattr(Symbolic, f"__r{_symbol}__", _operator(_name, reverse=True))
for _name in ("lt", "le", "gt", "ge"):  # no == here: payloads are kept in dicts, which must compare them by identity
    setattr(Symbolic, f"__{_name}__", _operator(_name))
Symbolic.__neg__ = lambda self: state.interpreter.neg(self)  # type: ignore[operator]
Symbolic.__invert__ = lambda self: state.interpreter.bitwise_invert(self)  # type: ignore[operator]
