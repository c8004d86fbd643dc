"""What leaves a Tensor, and where it goes: Python's numbers, NumPy's arrays, copies, pickles, DLPack, other dtypes, devices and backends.

Promises: what needs values raises TypeError on a traced or batched tensor, and names the alternatives; a move is differentiable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl import dtypes, ops
from minidl.backends import BUILTIN, default, get, names
from minidl.dtypes import DType
from minidl.kinds import Node, deposit
from minidl.ops.common import cast, describe, fresh, from_numpy, home, ns, state, traced, values
from minidl.tape import count, crossed
from minidl.tensors import Tensor

Method = Callable[..., Any]
#: Of the Array API; minidl follows the newest, and `x.__array_namespace__(api_version=...)` takes the older ones as well.
VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")


def attach(name: str) -> Callable[[Method], Method]:
    """Make the function a method of Tensor under this name."""

    def decorate(f: Method) -> Method:
        setattr(Tensor, name, f)
        return f

    return decorate


# ---- values -----------------------------------------------------------------------------------------------------------------------------
@attach("numpy")
def numpy(self: Tensor) -> np.ndarray:
    """A NumPy copy of the values. Raises RuntimeError for a tensor that requires grad, TypeError for a traced one."""
    if self.node is not None:
        raise RuntimeError("numpy: this tensor requires grad, which NumPy would lose; use .detach().numpy()")
    return np.array(values(self, "numpy"))


@attach("__array__")
def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    if self.node is not None:
        raise RuntimeError("__array__: this tensor requires grad, which NumPy would lose; use .detach()")
    data = values(self, "conversion to a NumPy array")
    if copy is False:
        if dtype is not None and np.dtype(dtype) != data.dtype:
            raise ValueError(f"__array__: {data.dtype} as {dtype} needs a copy, but copy=False")
        data = data.view()
        data.flags.writeable = False
        return data
    return np.array(data, dtype)


def _one(self: Tensor, what: str, hint: str) -> Any:
    if self.size != 1:
        raise ValueError(f"{what}: {describe(self)} has {self.size} elements; {hint}")
    return values(self, what).reshape(()).item()


@attach("item")
def item(self: Tensor) -> bool | int | float | complex:
    """The only element as a Python number. Raises ValueError for another number of elements, TypeError for a traced tensor."""
    return _one(self, "item", "exactly one is wanted; use .tolist()")


@attach("tolist")
def tolist(self: Tensor) -> Any:
    """The values as nested lists of Python numbers (a number for a 0-d tensor)."""
    data = values(self, "tolist")
    return (data.astype(np.float32) if self.dtype is dtypes.bfloat16 else data).tolist()


Tensor.__bool__ = lambda self: bool(_one(self, "bool", "use .any() or .all()"))  # type: ignore[attr-defined]
Tensor.__int__ = lambda self: int(_one(self, "int", "exactly one is wanted"))  # type: ignore[attr-defined]
Tensor.__float__ = lambda self: float(_one(self, "float", "exactly one is wanted"))  # type: ignore[attr-defined]
Tensor.__complex__ = lambda self: complex(_one(self, "complex", "exactly one is wanted"))  # type: ignore[attr-defined]


@attach("__index__")
def _index(self: Tensor) -> int:
    if not self.dtype.is_integer or self.ndim:
        raise TypeError(f"index: only a 0-d integer tensor can be a Python index, not {describe(self)}")
    return int(_one(self, "index", ""))


@attach("__len__")
def _len(self: Tensor) -> int:
    if not self.ndim:
        raise TypeError("len: a 0-d tensor has no length")
    return self.shape[0]


@attach("__iter__")
def _iter(self: Tensor) -> Iterator[Tensor]:
    if not self.ndim:
        raise TypeError("iteration over a 0-d tensor")
    return iter(ops.unstack(self))


@attach("__contains__")
def _contains(self: Tensor, value: Any) -> bool:
    return bool(ops.any(ns.eq(self, value)))


@attach("__format__")
def _format(self: Tensor, spec: str) -> str:
    return format(_one(self, "format", "a format is for one number"), spec) if spec else str(self)


@attach("__repr__")
def _repr(self: Tensor) -> str:
    if traced() or not hasattr(self.xp, "asarray"):
        return f"tensor({describe(self)}, {getattr(self.xp, 'name', 'traced')})"
    data = self.xp.to_numpy(self.payload)
    if self.dtype is dtypes.bfloat16:
        data = data.astype(np.float32)
    text = np.array2string(np.asarray(data), separator=", ", prefix="tensor(", threshold=1000)
    where = self.backend if self.device == "cpu" else f"{self.backend} {self.device}"
    size = f", shape={self.shape}" if 0 in self.shape else ""
    return f"tensor({text}{size}, dtype={self.dtype.name}, backend={where}{', requires_grad=True' if self.node is not None else ''})"


# ---- copies, pickles, exchange ----------------------------------------------------------------------------------------------------------
def _twin(self: Tensor, payload: Any) -> Tensor:
    """Another object of the same class and attributes, with its own place on the tape if this is a leaf."""
    out = type(self).__new__(type(self))
    Tensor.__init__(out, payload, self.xp, self.dtype)
    out.__dict__.update(self.__dict__) if hasattr(self, "__dict__") else None
    return out.requires_grad_() if self.leaf is not None else out


@attach("__copy__")
def _copy(self: Tensor) -> Tensor:
    if traced() or (self.node is not None and self.leaf is None):
        return fresh(self)
    return _twin(self, self.payload)


@attach("__deepcopy__")
def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    if self.node is not None and self.leaf is None:
        raise RuntimeError("deepcopy: this tensor is the result of a recorded operation; only leaves can be copied, use .detach()")
    import copy  # when first needed, as `import minidl` shall be light

    values(self, "deepcopy")
    with self.xp.scope():
        out = memo[id(self)] = _twin(self, copy.deepcopy(self.payload, {}))
    if hasattr(self, "__dict__"):
        out.__dict__.update(copy.deepcopy(self.__dict__, memo))
    if self.of is not None:
        from minidl.ops.views import tie

        tie(out, self, memo)
    if (gradient := self.grad) is not None:
        out.grad = copy.deepcopy(gradient, memo)
    return out


@attach("__reduce_ex__")
def _reduce(self: Tensor, protocol: Any) -> tuple:
    if self.node is not None and self.leaf is None:
        raise RuntimeError("pickle: this tensor is the result of a recorded operation; use .detach()")
    data = np.array(values(self, "pickle"))
    return _rebuild, (type(self), data, self.dtype, self.xp.name, self.xp.device, self.leaf is not None), getattr(self, "__dict__", None) or None


def _rebuild(cls: type, data: np.ndarray, dtype: DType, backend: str, device: str, tracked: bool) -> Tensor:
    """A pickled tensor on its backend, or on the default one where that is not to be had."""
    try:
        xp = get(backend, device)
    except (ImportError, ValueError, RuntimeError):
        xp = default()
    made = from_numpy(data, xp, dtype)
    out: Any = object.__new__(cls)
    Tensor.__init__(out, made.payload, xp, dtype)
    return out.requires_grad_() if tracked else out


def _native(self: Tensor, what: str) -> Any:
    """The native array. Raises TypeError for a tensor without values."""
    if traced() or not hasattr(self.xp, "asarray"):
        values(self, what)
    return np.asarray(self.payload) if isinstance(self.payload, np.generic) else self.payload


@attach("__dlpack__")
def _dlpack(
    self: Tensor, /, *, stream: Any = None, max_version: tuple[int, int] | None = None, dl_device: tuple[Any, int] | None = None,
    copy: bool | None = None,
) -> Any:  # fmt: skip
    """A DLPack capsule of the native array, which shows its memory unless copy is True: do not write to it."""
    if self.node is not None:
        raise BufferError("__dlpack__: this tensor requires grad; use .detach()")
    if max_version is not None and max_version < (1, 0):
        max_version = None  # the capsule from before versions, which is what a consumer of an old one reads
    given = {"stream": stream, "max_version": max_version, "dl_device": dl_device, "copy": copy}
    return _native(self, "__dlpack__").__dlpack__(**{k: v for k, v in given.items() if v is not None})


@attach("__dlpack_device__")
def _dlpack_device(self: Tensor, /) -> tuple[int, int]:
    """The kind and number of the device in DLPack's terms: (1, 0) is the CPU."""
    return _native(self, "__dlpack_device__").__dlpack_device__()


@attach("__array_namespace__")
def _namespace(self: Tensor, *, api_version: str | None = None) -> Any:
    if api_version is not None and api_version not in VERSIONS:
        raise ValueError(f"__array_namespace__: version {api_version} of the Array API; minidl follows {', '.join(VERSIONS)}")
    return sys.modules["minidl"]


# ---- moving ---------------------------------------------------------------------------------------------------------------------------
def _handed(native: Any, have: Any, want: Any) -> Any:
    """minidl.handover.handed, which is imported when somebody moves a tensor."""
    from minidl.handover import handed

    return handed(native, have, want)


class _Crossing:
    """The kind of node where a value changes its backend: cotangents cross back, tangents forward."""

    n = 1
    name = "to"
    one = None

    def pull(self, node: Node, g: Any, pending: dict, heap: list) -> None:
        parent = node[3]
        deposit(parent, _handed(g, node[2], parent[2]), pending, heap, parent[2])

    def pull_tensors(self, node: Node, g: Tensor, xp: Any, wrap: Any) -> list[Tensor]:
        return [to(g, backend=node[3][2].name, device=node[3][2].device)]

    def push(self, node: Node, tangents: Any, xp: Any, wrap: Any) -> Any:
        t = tangents[0]
        if t is None:
            return None
        return _handed(t, node[3][2], node[2]) if wrap is None else to(t, backend=node[2].name, device=node[2].device)


_CROSSING = _Crossing()


@attach("to")
def to(
    self: Tensor, target: Any = None, /, *more: Any, dtype: Any = None, device: str | None = None, backend: str | None = None, copy: bool = False,
    non_blocking: bool = False, memory_format: Any = None,
) -> Tensor:
    """This tensor as another dtype, on another device or on another backend, differentiably; itself where nothing changes (unless copy).
    non_blocking and memory_format are accepted: no copy is waited for until its values are looked at, and a backend chooses how arrays lie in memory.

    target: a dtype or its name, a backend ("torch"), a device ("cuda:0"), or a tensor to follow in all three. Raises RuntimeError for a move inside
    a trace, ImportError for a backend that is not installed.

    >>> ops.tensor([1.5]).to("int32").tolist()
    [1]
    """
    for t in (target, *more):
        if isinstance(t, Tensor):
            dtype, backend, device = t.dtype, home(t.xp).name, home(t.xp).device
        elif isinstance(t, str) and t not in dtypes.by_name:
            if t in BUILTIN or (":" not in t and t in names()):
                backend = t
            else:
                device = t
        elif t is not None:
            dtype = t
    have = home(self.xp)
    want = have
    if backend is not None or device is not None:
        want = get(backend or have.name, device if device is not None or backend not in (None, have.name) else have.device)
    out = self
    if want is not have:
        if not hasattr(self.xp, "asarray") or traced():
            raise RuntimeError(
                f"to: inside md.jit, md.vmap or a loop's body a tensor stays where it is, on {have.name} ({have.device}); move it to {want.name} "
                f"({want.device}) before the call"
            )
        node = None
        if self.node is not None and state.grad:
            crossed.update((have, want))
            node = [next(count), _CROSSING, want, self.node]
        out = Tensor(_handed(self.payload, have, want), want, self.dtype, node)
    if dtype is not None:
        out = cast(out, dtypes.canonical(dtype))
    return fresh(out) if copy and out is self else out


@attach("to_device")
def to_device(self: Tensor, device: str, /, *, stream: Any = None) -> Tensor:
    """This tensor on another device of its backend, differentiably; itself where it is there already. Raises ValueError for a stream."""
    if stream is not None:
        raise ValueError("to_device: minidl has no streams; leave stream out")
    return to(self, device=device)


def _converter(name: str, **where: Any) -> None:
    @attach(name)
    def convert(self: Tensor) -> Tensor:
        return to(self, **where)

    convert.__name__, convert.__doc__ = name, f"The tensor as {next(iter(where.values()))}; itself if it is that already."


for _name, _dtype in {
    "float": dtypes.float32, "double": dtypes.float64, "half": dtypes.float16, "bfloat16": dtypes.bfloat16, "long": dtypes.int64, "int": dtypes.int32,
    "bool": dtypes.bool_,
}.items():  # fmt: skip
    _converter(_name, dtype=_dtype)
_converter("cpu", device="cpu")


@attach("cuda")
def cuda(self: Tensor, index: int = 0) -> Tensor:
    """The tensor on a CUDA device. Raises ValueError where its backend has none."""
    return to(self, device=f"cuda:{index}")
