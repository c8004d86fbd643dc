"""Making tensors: from data, from shapes, from ranges.

`backend` and `device` say where ("torch", "cuda:0"); by default it is where `md.set_backend` or `md.use_backend` says, and for the `*_like`
functions where the model tensor is. While tracing, constants become part of the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import shapes
from minidl.backends import BUILTIN, get
from minidl.dtypes import DType, canonical
from minidl.ops.common import (
    Tensor,
    cast,
    choose,
    constant,
    create,
    deciding,
    dtypes,
    from_numpy,
    home,
    ns,
    operand,
    scalar_type,
    traced,
)

__all__ = [
    "arange", "asarray", "empty", "empty_like", "from_dlpack", "full", "full_like", "ones", "ones_like", "tensor", "zeros", "zeros_like",
]  # fmt: skip


def tensor(data: Any, dtype: Any = None, *, requires_grad: bool = False, backend: str | None = None, device: str | None = None) -> Tensor:
    """A new tensor with a copy of the data: numbers, nested lists, NumPy arrays, tensors.

    Python floats get the default float dtype, integers int64; NumPy data keeps its dtype.

    >>> md.tensor([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    out = _asarray(data, dtype, copy=True, backend=backend, device=device)
    if isinstance(data, Tensor):
        out = out.detach()
    return out.requires_grad_() if requires_grad else out


def asarray(data: Any, dtype: Any = None, *, copy: bool | None = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """A tensor of the data; a tensor that is already as asked for is returned itself.

    copy: True always copies; None copies NumPy data but not tensors; False never does: the tensor then shows the memory of NumPy or DLPack data
    (do not write to it afterwards), and ValueError is raised where that is impossible.

    >>> md.asarray(3.0).dtype
    minidl.float32
    """
    want = None if dtype is None else canonical(dtype)
    if isinstance(data, Tensor):
        out = data if backend is None and device is None else data.to(backend=backend, device=device)  # type: ignore[attr-defined]
        if want is not None and out.dtype is not want:
            if copy is False:
                raise ValueError(f"asarray: {out.dtype.short} as {want.short} needs a copy, but copy=False")
            return ns.cast(out, dtype=want)
        return _copied(out) if copy else out
    xp = choose(backend, device)
    kind = scalar_type(data)
    if kind is not None and not isinstance(data, np.generic):
        if copy is False:
            raise ValueError("asarray: a Python number needs a copy, but copy=False")
        return constant(xp, (), data, want or dtypes.of_scalar_type(kind))
    if isinstance(data, (list, tuple)):
        if copy is False:
            raise ValueError("asarray: a list needs a copy, but copy=False")
        return _from_list(data, want, xp)
    if copy is False:
        return _shared(data, want, xp, False)
    if isinstance(data, (np.ndarray, np.generic)):
        return from_numpy(data, xp, want)
    library = type(data).__module__.partition(".")[0]
    for owner in (xp, get(library)) if library in BUILTIN else (xp,):  # which knows more of its library's arrays than NumPy does
        if owner.is_native(data):
            return from_numpy(owner.to_numpy(data), xp, want)
    if hasattr(data, "__array__") or hasattr(data, "__array_interface__") or hasattr(data, "__buffer__") or isinstance(data, memoryview):
        return from_numpy(np.asarray(data), xp, want)
    if hasattr(data, "__dlpack__"):
        return _copied(cast(_shared(data, None, xp), want) if want else _shared(data, None, xp))
    raise TypeError(f"asarray: cannot make a tensor of {type(data).__name__}; numbers, lists, NumPy arrays and DLPack objects work")


def _copied(x: Tensor) -> Tensor:
    from minidl.ops.common import fresh

    if x.node is not None or traced():
        return fresh(x)
    import copy  # when first needed, as `import minidl` shall be light

    with x.xp.scope():
        return Tensor(copy.deepcopy(x.payload), x.xp, x.dtype)


def _leaf(data: Any) -> Any:
    while isinstance(data, (list, tuple)) and len(data):
        data = data[0]
    return data


def _holds_tensor(data: Any) -> bool:
    return isinstance(data, Tensor) or (isinstance(data, (list, tuple)) and any(map(_holds_tensor, data)))


def _from_list(data: Any, want: DType | None, xp: Any) -> Tensor:
    if _holds_tensor(data):
        from minidl.ops.manipulation import stack

        out = stack([operand(d) if not isinstance(d, (list, tuple)) else _from_list(d, None, xp) for d in data])
        return cast(out, want) if want else out
    try:
        array = np.asarray(data, None if want is None or want.is_integer or want.bits == 16 else want.numpy)
    except ValueError:
        raise ValueError("asarray: the nested lists are ragged: all lists of one depth must have the same length") from None
    if array.dtype == object:
        raise TypeError("asarray: the lists hold something that is no number, or integers beyond 64 bits")
    if array.dtype.kind == "f" and (want is None or want.is_integer) and np.abs(array).max(initial=0.0) >= 2.0**63:
        exact = np.asarray(data, object)
        if all(isinstance(v, (int, np.integer)) for v in exact.flat):  # of which NumPy made floats, for want of a type that holds them
            array, want = exact, want or dtypes.uint64
    leaf = _leaf(data)
    if want is None and (scalar_type(leaf) is not None or not array.size):
        kind = {"b": bool, "i": int, "f": float, "c": complex}.get(array.dtype.kind)
        want = dtypes.uint64 if kind is None else dtypes.of_scalar_type(kind)  # only integers beyond int64 come as uint64
    if want is not None and want.is_integer and array.dtype.kind in "iuO" and array.size:
        info = np.iinfo(want.numpy)
        if int(array.min()) < info.min or int(array.max()) > info.max:
            raise OverflowError(f"asarray: a value does not fit {want.name}")
    return from_numpy(array.astype(want.numpy) if want is not None and array.dtype == object else array, xp, want)


def _shared(data: Any, want: DType | None, xp: Any, copy: bool | None = None) -> Tensor:
    try:
        if np.ma.is_masked(data) or getattr(data, "is_neg", bool)():
            raise BufferError("it has masked elements, or torch negates it when it is read")
        with xp.scope():
            native = xp.from_dlpack(data, False if copy is False else None)
    except (AttributeError, TypeError, BufferError, RuntimeError, ValueError) as error:
        what = type(data).__name__
        raise ValueError(f"asarray: the {xp.name} backend cannot share memory with this {what} ({error}); use copy=True") from error
    dtype = xp.dtype_of(native)
    if want is not None and want is not dtype:
        raise ValueError(f"asarray: {dtype.short} as {want.short} needs a copy, but copy=False")
    return Tensor(native, xp, dtype)


def from_dlpack(x: Any, /, *, device: str | None = None, copy: bool | None = None, backend: str | None = None) -> Tensor:
    """A tensor of anything with `__dlpack__` (arrays of NumPy, PyTorch, JAX, CuPy …), sharing its memory where the backend can.

    Raises ValueError where the memory cannot be shared and copy is False.

    >>> import numpy as np
    >>> md.from_dlpack(np.arange(3.0)).tolist()
    [0.0, 1.0, 2.0]
    """
    xp = choose(backend, device)
    try:
        out = _shared(x, None, xp, copy)
    except ValueError:
        if copy is False:
            raise
        return asarray(x, copy=True, backend=xp.name, device=xp.device)
    return _copied(out) if copy else out


def full(shape: Any, fill_value: Any, dtype: Any = None, *, backend: str | None = None, device: str | None = None) -> Tensor:
    """A tensor of one value. dtype: by default that of the value (float → the default float).

    >>> md.full((2,), 7).tolist()
    [7, 7]
    """
    return _full(shape, fill_value, dtype, backend, device)


def _full(shape: Any, fill_value: Any, dtype: Any, backend: str | None, device: str | None, name: str = "full") -> Tensor:
    size = shapes.size_tuple(name, shape)
    if isinstance(fill_value, Tensor):
        return ns.broadcast_to(fill_value if dtype is None else cast(fill_value, canonical(dtype)), shape=size)
    kind = scalar_type(fill_value)
    if kind is None:
        fill_value = np.asarray(fill_value).item()
        kind = type(fill_value)
    return constant(choose(backend, device), size, fill_value, canonical(dtype) if dtype is not None else dtypes.of_scalar_type(kind))


def _sized(shape: Any, more: tuple[Any, ...], dtype: Any) -> tuple[Any, Any]:
    """Shape and dtype of zeros(2, 3), and of NumPy's zeros((2, 3), dtype)."""
    if len(more) == 1 and dtype is None and (isinstance(shape, (tuple, list)) or isinstance(more[0], DType)):
        return shape, more[0]
    return (shape, *more) if more else shape, dtype


def zeros(shape: Any, *more: int, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """A tensor of zeros, of the default float dtype unless told otherwise: zeros((2, 3)), zeros((2, 3), md.int64) or zeros(2, 3).

    >>> md.zeros((2, 3)).shape
    (2, 3)
    """
    shape, dtype = _sized(shape, more, dtype)
    return _full(shape, 0, dtype or dtypes.Defaults.floating, backend, device, "zeros")


def ones(shape: Any, *more: int, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """A tensor of ones, of the default float dtype unless told otherwise: ones((2, 3)), ones((2, 3), md.int64) or ones(2, 3).

    >>> md.ones(2, 2).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    shape, dtype = _sized(shape, more, dtype)
    return _full(shape, 1, dtype or dtypes.Defaults.floating, backend, device, "ones")


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """A constant with the shape, dtype and backend of x.

    >>> md.full_like(md.zeros(2), 7.0).tolist()
    [7.0, 7.0]
    """
    x = operand(x)
    want = x.dtype if dtype is None else canonical(dtype)
    if isinstance(fill_value, Tensor):
        return _full(x.shape, fill_value, want, backend, device, "full_like")
    xp = home(x.xp) if backend is None and device is None else get(backend or home(x.xp).name, device)
    return constant(xp, x.shape, fill_value, want)


def zeros_like(x: Any, /, dtype: Any = None, *, backend: str | None = None, device: str | None = None) -> Tensor:
    """Zeros with the shape, dtype and backend of x.

    >>> md.zeros_like(md.ones(2)).tolist()
    [0.0, 0.0]
    """
    return _full_like(x, 0, dtype=dtype, backend=backend, device=device)


def ones_like(x: Any, /, dtype: Any = None, *, backend: str | None = None, device: str | None = None) -> Tensor:
    """Ones with the shape, dtype and backend of x.

    >>> md.ones_like(md.arange(2)).tolist()
    [1, 1]
    """
    return _full_like(x, 1, dtype=dtype, backend=backend, device=device)


_asarray, _full_like = asarray, full_like  # as they stand here: the functions that call them have the error contract themselves
empty, empty_like = zeros, zeros_like  # minidl shows no uninitialised memory


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, backend: str | None = None, device: str | None = None) -> Tensor:
    """start, start + step, … up to but without stop; arange(n) counts from 0. int64 for integers, else the default float.

    Tensors of no axes do as bounds where their values are known, since the size of the result depends on them. Raises ValueError for a step of 0,
    TypeError for a tensor under jit and vmap.

    >>> md.arange(2, 8, 3).tolist()
    [2, 5]
    """
    start, stop, step = (v if not isinstance(v, Tensor) else deciding(v, "arange", "give Python numbers").item() for v in (start, stop, step))
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ValueError("arange: step is 0")
    whole = all(isinstance(v, (int, np.integer)) for v in (start, stop, step))
    want = canonical(dtype) if dtype is not None else dtypes.int64 if whole else dtypes.Defaults.floating
    size = max(0, -((start - stop) // step)) if whole else max(0, int(np.ceil((stop - start) / step)))
    xp = choose(backend, device)
    if whole and start == 0 and step == 1 and want.is_integer:
        return create("iota", xp, want, size=size)
    work = dtypes.int64 if whole else dtypes.float64
    steps = cast(create("iota", xp, dtypes.int64, size=size), work)
    return cast(ns.add(ns.mul(steps, step), start), want)
