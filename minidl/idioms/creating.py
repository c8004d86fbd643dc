"""Making tensors as PyTorch programs do: from data, and at random from md.random.default_generator.

Random draws are minidl's: the same on every backend for one `md.manual_seed`, and other ones than PyTorch's for the same seed.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

import minidl as md
from minidl.idioms.numbers import word_all

__all__ = [
    "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor", "IntTensor", "LongTensor", "ShortTensor",
    "as_tensor", "bernoulli", "device", "from_numpy", "get_default_device", "initial_seed", "is_complex", "is_floating_point", "is_tensor",
    "logspace", "multinomial", "normal", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "scalar_tensor",
    "set_default_device",
]  # fmt: skip


class device(str):
    """The name of a device, which is a string in minidl, with PyTorch's parts of it.

    >>> md.device("cuda:1").type, md.device("cuda", 0), md.device("cpu").index
    ('cuda', 'cuda:0', None)
    """

    __slots__ = ()

    def __new__(cls, type: str, index: int | None = None) -> device:
        """From "cuda:0", or from "cuda" and 0."""
        return str.__new__(cls, type if index is None else f"{type}:{index}")

    @property
    def type(self) -> str:
        """The kind of device."""
        return self.partition(":")[0]

    @property  # type: ignore[misc]
    def index(self) -> int | None:  # type: ignore[override]
        """Its number, if the name says one."""
        return builtins.int(self.partition(":")[2]) if ":" in self else None


def set_default_device(device: Any) -> None:
    """Make new tensors on this device from now on, of the backend of now: md.set_backend says which. None: where that begins.

    >>> md.set_default_device("cpu")
    """
    here = md.zeros(())
    if device is None or str(device) != here.device:
        md.set_backend(here.backend, None if device is None else str(device))


def get_default_device() -> Any:
    """The device on which new tensors are made.

    >>> md.get_default_device().type
    'cpu'
    """
    return globals()["device"](md.zeros(()).device)


def key(like: md.Tensor | None = None, generator: Any = None) -> md.Tensor:
    """The next key of a generator, or of the default one."""
    return (md.random.default_generator if generator is None else generator).next_key(like=like)


def shape_of(size: Sequence[Any]) -> tuple[int, ...]:
    """The shape meant by `f(2, 3)` or `f((2, 3))`."""
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], (tuple, list)) else tuple(size)


def _put(out: md.Tensor, device: str | None, requires_grad: bool) -> md.Tensor:
    out = out if device is None else out.to(device=str(device))
    return out.requires_grad_() if requires_grad else out


def as_tensor(data: Any, dtype: Any = None, device: str | None = None) -> md.Tensor:
    """A tensor of the data; a tensor that is already as asked for is returned itself."""
    return md.asarray(data, dtype, device=device)


def from_numpy(ndarray: Any) -> md.Tensor:
    """A tensor with a copy of a NumPy array (PyTorch's shares the memory; `md.asarray(array, copy=False)` does).

    >>> import numpy as np
    >>> md.from_numpy(np.arange(3.0)).dtype
    minidl.float64
    """
    return md.tensor(ndarray)


def scalar_tensor(s: Any, *, dtype: Any = None, device: str | None = None) -> md.Tensor:
    """A 0-d tensor of a number."""
    return md.tensor(s, dtype, device=device)


def is_tensor(obj: Any) -> bool:
    """Whether something is a Tensor."""
    return isinstance(obj, md.Tensor)


def is_floating_point(input: md.Tensor) -> bool:
    """Whether the elements are real floats."""
    return input.dtype.is_float


def is_complex(input: md.Tensor) -> bool:
    """Whether the elements are complex numbers."""
    return input.dtype.is_complex


def logspace(start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: str | None = None) -> md.Tensor:
    """Powers of the base, with exponents evenly from start to end."""
    return base ** md.linspace(start, end, steps, dtype=dtype, device=device)


def initial_seed() -> int:
    """The seed of the stream that draws come from: what md.manual_seed gave it, and in a worker of a DataLoader that worker's own.

    >>> md.manual_seed(3).initial_seed() == md.initial_seed() == 3
    True
    """
    return md.random.default_generator.initial_seed()


def _typed(name: str, dtype: md.DType) -> Any:
    def make(*data: Any) -> md.Tensor:
        sizes = data and all(isinstance(n, builtins.int) for n in data)
        return md.zeros(data, dtype=dtype) if sizes else md.tensor(data[0] if data else [], dtype)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"A tensor of {dtype.name}, of data; or of zeros, of sizes. PyTorch's older way to write md.tensor(data, {dtype.name})."
    return make


BoolTensor, ByteTensor, DoubleTensor = _typed("BoolTensor", md.bool), _typed("ByteTensor", md.uint8), _typed("DoubleTensor", md.float64)
FloatTensor, HalfTensor = _typed("FloatTensor", md.float32), _typed("HalfTensor", md.float16)
IntTensor, LongTensor = _typed("IntTensor", md.int32), _typed("LongTensor", md.int64)
CharTensor, ShortTensor = _typed("CharTensor", md.int8), _typed("ShortTensor", md.int16)


def rand(*size: Any, generator: Any = None, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
    """Uniform draws from [0, 1).

    >>> md.rand(2, 3).shape
    (2, 3)
    """
    return _put(md.random.uniform(key(generator=generator), shape_of(size), dtype), device, requires_grad)


def randn(*size: Any, generator: Any = None, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> md.Tensor:
    """Draws from the standard normal distribution."""
    return _put(md.random.normal(key(generator=generator), shape_of(size), dtype), device, requires_grad)


def randint(low: int, high: Any = None, size: Any = None, *, generator: Any = None, dtype: Any = md.int64, device: str | None = None) -> md.Tensor:
    """Integers from low (0 where `randint(high, size)` is said) to below high. Raises TypeError for a size that is no tuple.

    >>> md.randint(3, (5,)).max().item() < 3
    True
    """
    if size is None:
        low, high, size = 0, low, high
    if not isinstance(size, (tuple, list)):
        raise TypeError(f"randint: size must be a tuple of integers, not {size!r}")
    return _put(md.random.randint(key(generator=generator), tuple(size), low, high, dtype), device, False)


def randperm(n: int, *, generator: Any = None, dtype: Any = md.int64, device: str | None = None) -> md.Tensor:
    """The integers below n in random order."""
    return _put(md.random.permutation(key(generator=generator), n).to(dtype), device, False)


def rand_like(input: md.Tensor, *, dtype: Any = None, requires_grad: bool = False) -> md.Tensor:
    """Uniform draws from [0, 1) in the shape of a tensor."""
    return _put(md.random.uniform(key(input), input.shape, dtype or input.dtype), None, requires_grad)


def randn_like(input: md.Tensor, *, dtype: Any = None, requires_grad: bool = False) -> md.Tensor:
    """Standard normal draws in the shape of a tensor."""
    return _put(md.random.normal(key(input), input.shape, dtype or input.dtype), None, requires_grad)


def randint_like(input: md.Tensor, low: int, high: int | None = None, *, dtype: Any = None) -> md.Tensor:
    """Integers from low (0 where one bound is given) to below high in the shape of a tensor."""
    low, high = (0, low) if high is None else (low, high)
    return md.random.randint(key(input), input.shape, low, high).to(dtype or input.dtype)


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None) -> md.Tensor:
    """Normal draws with these means and standard deviations, which are numbers (then size says how many) or tensors."""
    like = next((v for v in (mean, std) if isinstance(v, md.Tensor)), None)
    shape = tuple(size) if size is not None else md.broadcast_shapes(*(v.shape for v in (mean, std) if isinstance(v, md.Tensor)))
    return mean + std * md.random.normal(key(like, generator), shape, None if like is None else like.dtype)


def bernoulli(input: md.Tensor, *, generator: Any = None) -> md.Tensor:
    """Ones with these probabilities, else zeros, in the dtype of the probabilities."""
    return md.random.bernoulli(key(input, generator), input, input.shape).to(input.dtype)


def multinomial(input: md.Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None) -> md.Tensor:
    """Indices drawn with the probabilities (or weights) of the last axis: [..., num_samples].

    Raises ValueError where more are wanted without replacement than there are weights above 0, and for a row without any; inside md.jit and on
    accelerators only as `md.out_of_bounds` says.

    >>> md.tensor([0.0, 1.0, 0.0]).multinomial(2, replacement=True).tolist()
    [1, 1]
    """
    if not replacement and num_samples > input.shape[-1]:
        raise ValueError(f"multinomial: {num_samples} of {input.shape[-1]} cannot be drawn without replacement")
    wanted = 1 if replacement else num_samples
    text = f"multinomial: a row has fewer weights above 0 than the {wanted} that are wanted"
    now = md.extend.seen(input)
    if now is not None and input.numel() and (np.count_nonzero(now[0] > 0, axis=-1) < wanted).any():
        raise ValueError(text)
    if now is None:
        md.extend.expect(lambda: md.count_nonzero(input > 0, axis=-1) < wanted, ValueError, text)
    shape = (num_samples, *input.shape[:-1])
    drawn = md.random.categorical(key(input, generator), md.log(input), -1, shape, replacement or num_samples == 1)
    return md.moveaxis(drawn, 0, -1).to(md.int64)


word_all(globals(), __all__)
