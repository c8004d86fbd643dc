"""Handover: an array of one backend as one of another, without a copy where the libraries allow it, and only when somebody reads it.

A program may run on another backend than the one its tensors belong to. What it returns or writes is resident: the slot of the payload holds the
engine's own array, and the tensor's class is a twin of its class whose `payload` converts on first reading and gives the class back. Programs of
the same engine take the array as it lies there.

Promises: dtypes and bits are exact; a resident tensor is the same object, and everything that reads `payload` sees its own backend's array; arrays
may share memory, which nobody notices, because payloads are never written to; no update is lost when one thread reads while another writes. A
program that writes over the memory of state holds those tensors meanwhile: other threads wait when they read one, and Ctrl-C waits until the new
state is stored.
"""

from __future__ import annotations

import functools
from _thread import RLock, allocate_lock, get_ident  # what threading makes public; importing that, or signal, would be a thirtieth of `import minidl`
from typing import Any

import numpy as np

from minidl.backends import get, loaded
from minidl.dtypes import float32
from minidl.tensors import Tensor

lock = RLock()  # between reading a resident tensor and writing it
#: What the payload's slot holds, whoever's array it is; how to set it; and how to set the class of a tensor, resident or not.
_payload: Any = vars(Tensor)["payload"]
slot, store = _payload.__get__, _payload.__set__
Tensor._lies = _payload  # type: ignore[attr-defined]  # the slot's other name, which no twin hides: quicker in generated code than the functions
change_class: Any = object.__dict__["__class__"].__set__


def handed(native: Any, have: Any, want: Any) -> Any:
    """A native array of one backend as one of another; on one accelerator by DLPack, else through NumPy, whose view of CPU memory is free.

    >>> x, xp = md.ones(2), md.extend.home()
    >>> md.extend.handed(x.payload, xp, xp) is x.payload
    True
    """
    if have is want:
        return native
    if have.device != "cpu" and have.device == want.device:
        with want.scope():
            return want.from_dlpack(native)
    return want.adopt(have.to_numpy(native))


_owners: dict[type, Any] = {}
#: Calls with one array after which it stays with the engine.
OFTEN = 8


def owner(native: Any) -> Any:
    """A backend whose library made this array, for `handed`."""
    found = _owners.get(native.__class__)
    if found is None:
        found = next((b for b in (get("numpy"), *loaded()) if b.is_native(native)), None)
        if found is None:
            raise TypeError(f"handover: no backend in use has arrays of type {type(native).__name__}")
        _owners[native.__class__] = found
    return found


class Ways:
    """How arrays reach the programs of one backend: `classes` are passed as they are, anything else through `put`."""

    def __init__(self, engine: Any):
        self.engine = engine
        with engine.scope():
            self.native = type(engine.scalar(0.0, float32))
        self.classes = frozenset((self.native, np.ndarray)) if engine.takes_numpy else frozenset((self.native,))
        self.twins: set[type] = set()  # the classes of tensors that are resident there

    def put(self, native: Any) -> Any:
        """An array of any library as one that a program of this backend takes."""
        if native.__class__ in self.classes:
            return native
        have = owner(native)
        if self.engine.takes_numpy and have.device == "cpu":
            return np.asarray(have.to_numpy(native))
        return handed(native, have, self.engine)


class Stay:
    """The arguments of one program that come again and again: after OFTEN calls with the same array a tensor's value lies with the engine, as state
    does, and is handed over no more; after twice as many next time, if it was read at home meanwhile. Only where the engine's array shares the
    memory: what somebody writes there from outside must be seen."""

    __slots__ = ("engine", "last", "left", "put", "wait")

    def __init__(self, engine: Any, count: int):
        self.engine, self.put = engine, ways(engine).put
        self.last, self.left, self.wait = [0] * count, [OFTEN] * count, [OFTEN] * count

    def __call__(self, k: int, tensor: Tensor, native: Any) -> Any:
        """What a program takes for a tensor, its argument number k, and what the slot of that holds."""
        if id(native) != self.last[k]:
            self.last[k], self.left[k] = id(native), self.wait[k]
            return self.put(native)
        self.left[k] -= 1
        if self.left[k]:
            return self.put(native)
        self.wait[k] *= 2
        have, engine = owner(native), self.engine
        made = handed(native, have, engine)
        if engine.device != "cpu" or engine.to_numpy(made).ctypes.data != have.to_numpy(native).ctypes.data:
            return self.put(native)
        with lock:
            kind: Any = tensor.__class__  # its own, also where it is resident
            twin = resident(kind, engine)
            if twin is not None and slot(tensor) is native and id(tensor) not in _held:
                store(tensor, made)
                change_class(tensor, twin)
        return made


@functools.cache
def ways(engine: Any) -> Ways:
    """The ways to a backend."""
    return Ways(engine)


@functools.cache
def resident(kind: type, engine: Any) -> Any:
    """The twin of a tensor class for values that lie with `engine`. None for a class that counts or changes its subclasses."""
    if type(kind) is not type or "__init_subclass__" in {n for c in kind.__mro__[:-1] for n in vars(c)}:
        return None

    def read(self: Tensor) -> Any:
        with lock:
            if type(self) is twin:
                native = handed(slot(self), engine, self.xp)
                store(self, native)
                change_class(self, kind)
                return native
        return self.payload  # another thread was here meanwhile

    def write(self: Tensor, native: Any) -> None:
        with lock:
            store(self, native)
            change_class(self, kind)

    def init(self: Tensor, payload: Any, xp: Any, dtype: Any, node: Any = None) -> None:
        store(self, payload)
        self.xp, self.dtype, self.node, self.of = xp, dtype, node, None

    def reduce(self: Any, protocol: Any) -> Any:
        self.payload  # noqa: B018  the class is its own again when it is written down
        return self.__reduce_ex__(protocol)

    shapes = {"shape": property(lambda self: tuple(slot(self).shape)), "ndim": property(lambda self: len(slot(self).shape))}
    twin = _twin(kind, payload=property(read, write), __init__=init, __reduce_ex__=reduce, **shapes)
    ways(engine).twins.add(twin)
    return twin


def _twin(kind: type, **body: Any) -> type:
    """A class that nobody can tell from `kind`, but for these members."""
    same = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {**same, "__class__": property(lambda self: kind, change_class), **body})


def place(target: Tensor, native: Any, engine: Any) -> None:
    """Give a tensor a value that lies with `engine`; it is handed over when it is read."""
    kind: Any = target.__class__  # its own, also where it is resident
    twin = resident(kind, engine)
    with lock:
        if twin is None:
            target.payload = handed(native, engine, target.xp)
        else:
            store(target, native)
            change_class(target, twin)


def place_all(targets: tuple[Tensor, ...], natives: tuple, engine: Any) -> None:
    """`place` of each."""
    with lock:
        for target, native in zip(targets, natives, strict=True):
            place(target, native, engine)


# ---- tensors whose memory a program writes over -------------------------------------------------------------------------------------------
#: By the id of a tensor: the lock that is free again when the program is done, and the thread that runs it.
_held: dict[int, tuple[Any, int]] = {}
#: How often tensors were held so far; who reads slots looks at it before and after.
turns = [0]


def _settled(t: Tensor, twin: type) -> bool:
    """Wait until no program of another thread holds a tensor. False: one of this thread does."""
    while type(t) is twin:
        done, owner = _held.get(id(t), (None, 0))
        if owner == get_ident():
            return False
        if done is not None:
            with done:
                continue
    return True


@functools.cache
def _away(kind: type) -> Any:
    """The twin of a tensor class for values that a program is writing over: who reads the payload waits for the new one."""

    def read(self: Tensor) -> Any:
        return self.payload if _settled(self, twin) else slot(self)

    def write(self: Tensor, native: Any) -> None:
        if _settled(self, twin):
            self.payload = native
        else:
            store(self, native)
            change_class(self, kind)

    def reduce(self: Any, protocol: Any) -> Any:
        _settled(self, twin)
        return self.__reduce_ex__(protocol)

    twin = _twin(kind, payload=property(read, write), __reduce_ex__=reduce)
    return twin


def hold(tensors: tuple[Tensor, ...]) -> Any:
    """Let other threads wait that read one of these tensors, until `release` of what is returned; False, and nothing done, where one is held already
    or has a class that cannot be changed."""
    with lock:
        kinds: list[Any] = [t.__class__ for t in tensors]
        if any(id(t) in _held or resident(kind, t.xp) is None for t, kind in zip(tensors, kinds, strict=True)):
            return False
        before = [(t, type(t), _away(kind)) for t, kind in zip(tensors, kinds, strict=True)]
        done = allocate_lock()
        done.acquire()
        for t, _, twin in before:
            _held[id(t)] = done, get_ident()
            change_class(t, twin)
    return done, before


def release(held: Any) -> None:
    """The end of `hold`: what was not written is what it was."""
    done, before = held
    with lock:
        for t, kind, twin in before:
            if type(t) is twin:
                change_class(t, kind)
            del _held[id(t)]
        turns[0] += 1
    done.release()


def look(t: Tensor) -> Any:
    """What a tensor's slot holds, once no program of another thread writes over it."""
    while True:
        native = slot(t)
        done, owner = _held.get(id(t), (None, 0))
        if (done is None and slot(t) is native) or owner == get_ident():
            return native
        if done is not None:
            with done:
                pass


def shield() -> Any:
    """Let Ctrl-C wait until `unshield` of what is returned: between the writing over old state and the storing of new state there is neither."""
    import threading

    if get_ident() != threading.main_thread().ident:
        return None
    signals = _signals()
    before = signals.getsignal(signals.SIGINT)
    if not callable(before):
        return None
    seen: list[Any] = []
    signals.signal(signals.SIGINT, lambda *came: seen.append(came))
    return before, seen


@functools.cache
def _signals() -> Any:
    """The module signal, without its search for names, which takes ten times as long."""
    try:
        import _signal as found
    except ImportError:
        import signal as found  # type: ignore[no-redef]
    return found


def unshield(shielded: Any) -> None:
    """The end of `shield`: a Ctrl-C that came meanwhile comes now."""
    if shielded is not None:
        before, seen = shielded
        _signals().signal(_signals().SIGINT, before)
        if seen:
            before(*seen[0])
