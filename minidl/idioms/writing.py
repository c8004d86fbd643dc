"""Methods of Tensor alone: new tensors like one, its data, what is asked of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl as md
from minidl.extend import store, storing
from minidl.idioms.creating import key, shape_of


def _set_data(self: md.Tensor, value: md.Tensor) -> None:
    md.extend.sever(self, cut=value)
    with md.no_grad():
        self.assign(value.detach())


def new_zeros(self: md.Tensor, *size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
    """Zeros of another shape, of this tensor's dtype and on its backend."""
    return new_full(self, shape_of(size), 0, dtype=dtype, device=device, requires_grad=requires_grad)


def new_ones(self: md.Tensor, *size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
    """Ones of another shape, of this tensor's dtype and on its backend."""
    return new_full(self, shape_of(size), 1, dtype=dtype, device=device, requires_grad=requires_grad)


def new_empty(self: md.Tensor, *size: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
    """A tensor of another shape, of this tensor's dtype and on its backend, of any values."""
    return new_zeros(self, *size, dtype=dtype, device=device, requires_grad=requires_grad)


def new_full(self: md.Tensor, size: Any, fill_value: Any, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
    """One value in another shape, of this tensor's dtype and on its backend.

    >>> md.ones(2, dtype="float64").new_full((1,), 3).dtype
    minidl.float64
    """
    out = md.full(tuple(size), fill_value, dtype=dtype or self.dtype, backend=self.backend, device=device or self.device)
    return out.requires_grad_() if requires_grad else out


def new_tensor(self: md.Tensor, data: Any, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
    """The data as a tensor of this one's dtype and on its backend."""
    out = md.tensor(data, dtype or self.dtype, backend=self.backend, device=device or self.device)
    return out.requires_grad_() if requires_grad else out


def new(self: md.Tensor, *args: Any) -> md.Tensor:
    """A tensor of this one's dtype and on its backend, of data or, from sizes, of any values."""
    if not args:
        return new_empty(self, 0)
    return new_empty(self, *args) if all(isinstance(n, int) for n in args) or isinstance(args[0], tuple) else new_tensor(self, *args)


def type_as(self: md.Tensor, other: md.Tensor) -> md.Tensor:
    """This tensor in the dtype of another."""
    return self.to(other.dtype)


def type_(self: md.Tensor, dtype: Any = None) -> Any:
    """This tensor in a dtype; the name of its dtype without one."""
    return self.dtype.name if dtype is None else self.to(dtype)


def where(self: md.Tensor, condition: md.Tensor, other: Any) -> md.Tensor:
    """This tensor where the condition holds, elsewhere the other."""
    return md.where(condition, self, other)


@storing
def fill_diagonal_(self: md.Tensor, fill_value: Any, wrap: bool = False) -> md.Tensor:
    """One value on the diagonal of a matrix, in place. Raises ValueError for other numbers of axes, NotImplementedError for wrap."""
    if self.ndim != 2 or wrap:
        raise (NotImplementedError("fill_diagonal_: wrap") if wrap else ValueError(f"fill_diagonal_: a matrix is wanted, not shape {self.shape}"))
    rows, columns = (md.arange(n, backend=self.backend, device=self.device) for n in self.shape)
    return md.where(md.expand_dims(rows, 1) == columns, fill_value, self)


def normal_(self: md.Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> md.Tensor:
    """Normal draws, in place."""
    return store(self, (mean + std * md.random.normal(key(self, generator), self.shape, self.dtype)).to(self.dtype))


def uniform_(self: md.Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> md.Tensor:
    """Uniform draws from [a, b), in place."""
    return store(self, md.random.uniform(key(self, generator), self.shape, self.dtype, a, b))


def bernoulli_(self: md.Tensor, p: Any = 0.5, *, generator: Any = None) -> md.Tensor:
    """Ones with this probability, else zeros, in place."""
    return store(self, md.random.bernoulli(key(self, generator), p, self.shape).to(self.dtype))


def exponential_(self: md.Tensor, lambd: float = 1.0, *, generator: Any = None) -> md.Tensor:
    """Exponential draws of this rate, in place."""
    return store(self, (md.random.exponential(key(self, generator), self.shape, self.dtype) / lambd).to(self.dtype))


def random_(self: md.Tensor, from_: int | None = None, to: int | None = None, *, generator: Any = None) -> md.Tensor:
    """Integers from 0, or from the first number, to below the last, in place; without numbers all from 0 that the dtype has, of a float's those up to
    which it has each."""
    if from_ is None:
        kind = self.dtype.kind
        from_ = 2 if kind == "bool" else int(2 / md.finfo(self.dtype).eps) + 1 if self.dtype.inexact else int(md.iinfo(self.dtype).max) + 1
    low, high = (0, from_) if to is None else (from_, to)
    drawn = self.dtype if self.dtype.is_integer else md.int64
    return store(self, md.random.randint(key(self, generator), self.shape, low, high, drawn).to(self.dtype))


def cauchy_(self: md.Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> md.Tensor:
    """Cauchy draws, in place."""
    return store(self, (median + sigma * md.random.cauchy(key(self, generator), self.shape, self.dtype)).to(self.dtype))


def log_normal_(self: md.Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> md.Tensor:
    """exp of normal draws, in place."""
    return store(self, md.exp(mean + std * md.random.normal(key(self, generator), self.shape, self.dtype)).to(self.dtype))


def geometric_(self: md.Tensor, p: Any, *, generator: Any = None) -> md.Tensor:
    """How many trials of this probability it takes to succeed, in place. Raises ValueError for a number p that is none between 0 and 1."""
    if not isinstance(p, md.Tensor) and not 0 < p < 1:
        raise ValueError(f"geometric_: p must be above 0 and below 1, not {p}")
    u = md.random.uniform(key(self, generator), self.shape, md.float64, minval=float(md.finfo(md.float64).smallest_normal))
    return store(self, md.ceil(md.log(u) / md.log1p(-md.asarray(p, md.float64, backend=self.backend, device=self.device))).to(self.dtype))


def _by_python(name: str, count: int) -> Callable[..., md.Tensor]:
    def applied(self: md.Tensor, *rest: Any) -> md.Tensor:
        others, function = rest[:-1], rest[-1]
        if len(others) != count or not callable(function):
            raise TypeError(f"{name}: {'a function' if not count else f'{count} tensor(s) and a function'} wanted, not {rest!r}")
        values = [md.extend.deciding(t, name, "its elements become Python's numbers; md.vmap maps a function of tensors") for t in (self, *others)]
        lists = [np.ravel(v).tolist() for v in np.broadcast_arrays(*values)]
        found = np.array([function(*numbers) for numbers in zip(*lists, strict=True)]).reshape(self.shape)
        with md.no_grad():
            return store(self, md.tensor(found.tolist(), self.dtype, backend=self.backend, device=self.device))

    applied.__name__, applied.__qualname__ = name, f"Tensor.{name}"
    applied.__doc__ = "A Python function of the numbers, one by one, in place: slow, without a gradient, and refused inside md.jit and md.vmap."
    return applied


class Made:
    """What made a result, as PyTorch's programs print it and ask whether it is None: a name, and nothing of the graph (md.trace shows that)."""

    def __init__(self, operation: str):
        self._operation = operation

    def name(self) -> str:
        """PyTorch's way to name it.

        >>> (md.ones(1, requires_grad=True) * 2).grad_fn.name()
        'MulBackward0'
        """
        return "".join(w.capitalize() for w in self._operation.split("_")) + "Backward0"

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"grad_fn has no attribute {name!r}, only a name; print(md.trace(f)(x)) shows all that a function does")


def _made(self: md.Tensor) -> Made | None:
    if self.is_leaf:
        return None
    kind: Any = self.node[1]  # type: ignore[index]
    kind = getattr(kind, "inner", kind)
    return Made(getattr(getattr(kind, "primitive", kind), "name", "call"))


def detach_(self: md.Tensor) -> md.Tensor:
    """This tensor without its place on the tape, in place."""
    md.extend.sever(self)
    with md.enable_grad():  # under no_grad an assignment leaves the tape alone
        return self.assign(self.detach())


def register_post_accumulate_grad_hook(self: md.Tensor, hook: Any) -> Any:
    """Call hook(tensor) when a backward pass has added to this leaf's `.grad`, where an optimizer may step and drop it. Returns what removes it, as
    register_hook does. Raises RuntimeError for what is no leaf that requires grad."""
    if not self.is_leaf or not self.requires_grad:
        raise RuntimeError("register_post_accumulate_grad_hook: only a leaf that requires grad accumulates one")
    me = weakref.ref(self)

    def before(g: md.Tensor) -> None:
        """Changes nothing."""

    before.after = lambda: None if me() is None else hook(me())  # type: ignore[attr-defined]
    return self.register_hook(before)


#: Kinds of tensors and devices that no backend has.
_KINDS = "ipu maia meta mkldnn mps mtia nested quantized sparse_csr vulkan xla xpu".split()
#: What Tensor gets beside the functions.
METHODS: dict[str, Any] = {
    **{f.__name__: f for f in (new_zeros, new_ones, new_empty, new_full, new_tensor, new, type_as, where, fill_diagonal_, normal_, uniform_)},
    **{f.__name__: f for f in (bernoulli_, exponential_, random_, cauchy_, log_normal_, geometric_, detach_)},
    **{n: _by_python(n, i) for i, n in enumerate(("apply_", "map_", "map2_"))},
    "register_post_accumulate_grad_hook": register_post_accumulate_grad_hook,
    "type": type_,
    "data": property(
        lambda self: self.detach(), _set_data, doc="The values of now; what is stored in them in place is stored in this tensor. Setting it takes "
        "over the values of another tensor, which shares nothing with this one afterwards.",
    ),
    "H": property(lambda self: md.conj(md.matrix_transpose(self)), doc="The conjugate transpose of a matrix."),
    "mH": property(lambda self: md.conj(md.matrix_transpose(self)), doc="The conjugate transposes of the last two axes."),
    "is_sparse": property(lambda self: False, doc="False: there are no sparse tensors."),
    "is_cuda": property(lambda self: self.device.startswith("cuda"), doc="Whether the tensor lies on a CUDA device."),
    "itemsize": property(lambda self: self.dtype.itemsize, doc="Bytes per element."),
    "element_size": lambda self: self.dtype.itemsize,
    "ndimension": lambda self: self.ndim,
    "nelement": lambda self: self.numel(),
    "is_contiguous": lambda self: True,
    "grad_fn": property(_made, doc="None, or what says by which operation the tensor was made."),
    "is_cpu": property(lambda self: self.device == "cpu", doc="Whether the tensor lies on the CPU."),
    **{f"is_{n}": property(lambda self: False, doc="False: there are no such tensors.") for n in _KINDS},
    **{f"is_{n}": lambda self: False for n in ("conj", "distributed", "inference", "neg", "pinned", "shared")},
    "layout": property(lambda self: "torch.strided", doc="The one layout there is."),
    "name": property(lambda self: None, doc="None: tensors have no names."),
    "dim_order": lambda self: tuple(range(self.ndim)),
    "get_device": lambda self: -1 if self.device == "cpu" else int(self.device.partition(":")[2] or 0),
    "hardshrink": lambda self, lambd=0.5: md.nn.functional.hardshrink(self, lambd),
    "prelu": lambda self, weight: md.nn.functional.prelu(self, weight),
    "unsafe_chunk": lambda self, chunks, dim=0: md.chunk(self, chunks, axis=dim),
    "unsafe_split": lambda self, split_size, dim=0: md.split(self, split_size, axis=dim),
    "unsafe_split_with_sizes": lambda self, split_sizes, dim=0: md.split(self, split_sizes, axis=dim),
    "short": lambda self: self.to(md.int16),
    "char": lambda self: self.to(md.int8),
    "byte": lambda self: self.to(md.uint8),
    "cfloat": lambda self: self.to(md.complex64),
    "cdouble": lambda self: self.to(md.complex128),
}
