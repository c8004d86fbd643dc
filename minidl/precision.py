"""Autocast: the dtype that an operation computes in, chosen by what the operation is.

One table decides it for every way of running: `bind`, through which each operation goes while any mode is on, asks the block for the operands'
dtypes and casts them first. The cast is an operation like any other, so gradients arrive in the dtype of the parameter; a jitted function is traced
for the setting.

Promises: while nobody is inside a block, no operation looks; float64, complex and integer operands are left alone; derivatives and batching rules run
on what the forward pass used, whatever is set when they run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

from minidl import DType, dtypes, tree
from minidl.extend import autocasting, cast_by

#: Contractions: their time is the hardware's, and they add up in float32 or better on every backend.
LOW = frozenset("dot_general conv conv_dx conv_dw attention".split())
#: What overflows, cancels or adds up many numbers.
FULL = frozenset(
    "exp expm1 log log1p log2 log10 pow root rsqrt sinh cosh tan asin acos asinh acosh atanh erfinv lgamma digamma polygamma bessel_i softplus"
    " logaddexp xlogy hypot layer_norm sum prod cumsum cumprod cumlogsumexp logsumexp softmax log_softmax log_softmax_at"
    " fft rfft irfft cholesky cofactor det detsign eig eigh eigvals eigvalsh logabsdet pinv qr solve svd svdvals triangular_solve".split()
)


class Casting:
    """What a block asks for: the low dtype, and the kind of device it is for (None: all)."""

    __slots__ = ("device", "dtype")

    def __init__(self, dtype: DType, device: str | None):
        self.dtype, self.device = dtype, device

    def __repr__(self) -> str:
        return f"autocast({self.dtype.name}{f' on {self.device}' if self.device else ''})"

    def wanted(self, name: str, operands: Sequence[Any]) -> DType | None:
        """The dtype that the primitive of that name computes in inside the block, for tensors among these; None for their own."""
        if not (name in LOW or name in FULL):
            return None
        found = [x for x in operands if hasattr(x, "dtype")]
        if any(not x.dtype.is_float or x.dtype.bits > 32 for x in found):
            return None
        if self.device is not None and any(x.device.partition(":")[0] != self.device for x in found if hasattr(x, "device")):
            return None
        return self.dtype if name in LOW else dtypes.float32 if any(x.dtype.bits < 32 for x in found) else None


@functools.cache  # one object for one setting, so that `is` compares them
def casting(dtype: DType, device: str | None) -> Casting:
    """The setting for a dtype and device."""
    return Casting(dtype, device)


class autocast(contextlib.ContextDecorator):
    """Inside, matrix products, convolutions and attention compute in a low dtype; softmax, norms, losses, sums, exponentials and logarithms in
    float32; everything else in the widest dtype of its operands. A context manager and a decorator, as torch.autocast.

    device_type: "cpu" or "cuda", to leave tensors of other devices alone. dtype: bfloat16 or float16; bfloat16 by default, float16 for "cuda".
    enabled=False switches an outer block off; cache_enabled is accepted and changes nothing. Parameters stay in their dtype, and so do their
    gradients; with float16 use md.amp.GradScaler. Take derivatives outside the block or inside, it makes no difference. Raises TypeError for another
    dtype.

    >>> import minidl as md
    >>> x = md.ones((2, 3))
    >>> with autocast(dtype=md.bfloat16):
    ...     y = x @ x.T
    >>> y.dtype, md.exp(y).dtype
    (minidl.bfloat16, minidl.bfloat16)
    >>> with autocast():
    ...     md.exp(y).dtype
    minidl.float32
    """

    def __init__(
        self, device_type: str | None = None, dtype: DType | str | None = None, enabled: bool = True, cache_enabled: bool | None = None
    ):
        if device_type is not None and device_type not in ("cpu", "cuda", "tpu"):
            raise ValueError(f"autocast: device_type is 'cpu', 'cuda', 'tpu' or None for all, not {device_type!r}; the dtype is autocast(dtype=...)")
        low = dtypes.canonical(dtype) if dtype is not None else dtypes.float16 if device_type == "cuda" else dtypes.bfloat16
        if low not in (dtypes.bfloat16, dtypes.float16):
            raise TypeError(f"autocast: the low dtype is bfloat16 or float16, not {low.name}; enabled=False computes in the operands' own")
        self.dtype, self.enabled = low, bool(enabled)
        self._casting = casting(low, device_type) if enabled else None
        self._stack: list[Any] = []

    def __enter__(self) -> autocast:
        block = autocasting(self._casting)
        block.__enter__()
        self._stack.append(block)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.pop().__exit__(*error)

    def _recreate_cm(self) -> autocast:
        return autocast(self._casting.device if self._casting else None, self.dtype, self.enabled)


def is_autocast_enabled() -> bool:
    """Whether this thread is inside an md.autocast block that is switched on.

    >>> is_autocast_enabled()
    False
    """
    return cast_by() is not None


def full_precision(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, whose float16 and bfloat16 arguments come as float32 under md.autocast, and which then computes in their dtypes, as
    torch.amp.custom_fwd(cast_inputs=torch.float32). For compositions that should not begin in a low dtype, such as losses.

    >>> import minidl as md
    >>> double = full_precision(lambda x: x * 2.0)
    >>> x = md.ones(2, dtype=md.bfloat16)
    >>> with autocast():
    ...     double(x).dtype
    minidl.float32
    >>> double(x).dtype
    minidl.bfloat16
    """
    return _with_inputs("sum", f)


def low_precision(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, whose float32 arguments come in the low dtype under md.autocast, and which then computes in their dtypes: for compositions of products,
    where a float32 bias would widen the result.

    >>> import minidl as md
    >>> affine = low_precision(lambda x, w, b: x @ w + b)
    >>> with autocast():
    ...     affine(md.ones((2, 2)), md.ones((2, 2)), md.ones(2)).dtype
    minidl.bfloat16
    """
    return _with_inputs("dot_general", f)


def _with_inputs(like: str, f: Callable[..., Any]) -> Callable[..., Any]:
    """f with the arguments that the primitive `like` would get."""

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        block = cast_by()
        if block is None:
            return f(*args, **kwargs)
        floats = [x for x in tree.leaves((args, kwargs)) if isinstance(getattr(x, "dtype", None), DType) and x.dtype.inexact]
        dtype = block.wanted(like, floats)
        if dtype is not None:
            chosen = {id(x) for x in floats}
            args, kwargs = tree.map(lambda x: x.to(dtype) if id(x) in chosen else x, (args, kwargs))
        with autocasting(None):
            return f(*args, **kwargs)

    return run
