"""PyTorch: products (dot_general, affine).

Promises: float16 and bfloat16 accumulate in float32; integers are exact in their own dtype; products of float32 on CUDA follow
`torch.backends.cuda.matmul.allow_tf32`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Tensor = torch.Tensor
Ints = tuple[int, ...]
SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
HALF = frozenset((torch.float16, torch.bfloat16))
WORDS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # an integer as wide as a float
MANY = 2**12  # elements from which on several vectorised passes cost less than one that branches
_linear: Any = getattr(getattr(torch.ops.mkldnn, "_linear_pointwise", None), "default", None)  # private, so it may be missing
_NATIVE = frozenset((torch.float32, torch.float64, torch.complex64, torch.complex128))


def unseen(x: Tensor) -> bool:
    """Whether nobody can look at the values: while torch traces a program, or captures one on CUDA."""
    return x.__class__ is not Tensor or (x.is_cuda and torch.cuda.is_current_stream_capturing())


def is_last(x: Tensor) -> bool:
    """Whether these are images whose channels are last in memory."""
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def blank(shape: Sequence[int], like: Tensor) -> Tensor:
    """Memory for as many elements, in the order of these, whose dtype and device it has."""
    order = torch.channels_last if is_last(like) else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order)


def carrier(x: Tensor) -> torch.dtype:
    """The dtype to compute products of this dtype in, on this device: exact, or at least as precise."""
    if x.dtype in HALF:
        return x.dtype if x.is_cuda else torch.float32
    return x.dtype if x.is_floating_point() or x.is_complex() else torch.int64


def carried(fn: Callable[..., Tensor], x: Tensor, y: Tensor, **params: Any) -> Tensor:
    """fn in the carrier dtype; modulo 2**64 and narrowed, an integer product is the product modulo its own width."""
    dtype, wide = x.dtype, carrier(x)
    if dtype.is_complex:  # torch convolves real numbers only
        a, b, c, d = x.real, x.imag, y.real, y.imag
        return torch.complex(fn(a, c, **params) - fn(b, d, **params), fn(a, d, **params) + fn(b, c, **params))
    if dtype is torch.uint64:
        return fn(x.view(wide), y.view(wide), **params).view(dtype)
    return fn(x.to(wide), y.to(wide), **params).to(dtype)


# ---- products -------------------------------------------------------------------------------------------------------------------------
def _integer_matmul(x: Tensor, y: Tensor) -> Tensor:
    """[..., M, K] @ [..., K, N] where the library has none for integers (CUDA): sums of outer products, some of K at a time."""
    k = x.shape[-1]
    out = torch.zeros((*x.shape[:-1], y.shape[-1]), dtype=x.dtype, device=x.device)
    some = max(1, 2**24 // max(1, out.numel()))
    for i in range(0, k, some):
        out += (x[..., i : i + some, None] * y[..., None, i : i + some, :]).sum(-2)
    return out


@functools.lru_cache(4096)
def dot_plan(xn: int, yn: int, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> Callable[[Tensor, Tensor], Tensor]:
    """The function that computes one kind of dot_general on arrays of xn and yn axes, matrix products directly."""
    (cx, cy), (bx, by) = contract, batch
    fx = tuple(a for a in range(xn) if a not in cx and a not in bx)
    fy = tuple(a for a in range(yn) if a not in cy and a not in by)
    if not bx and len(cx) == 1 and xn <= 2 and yn <= 2:
        if xn == yn == 1:
            return lambda x, y: torch.dot(x, y) if _direct(x) else torch.mul(x, y).sum(dtype=x.dtype)
        if xn == yn == 2 and cx == (0,):
            return (lambda x, y: _mm(x.t(), y.t())) if cy == (1,) else (lambda x, y: _mm(x.t(), y))
        if xn == yn == 2:
            return (lambda x, y: _mm(x, y.t())) if cy == (1,) else _mm
        if yn == 1:
            return (lambda x, y: _mv(x.t(), y)) if cx == (0,) else _mv
        return (lambda x, y: _mv(y, x)) if cy == (1,) else (lambda x, y: _mv(y.t(), x))
    if not cx:  # an outer product: broadcasting keeps it exact and in order
        px, py = (*bx, *fx), (*by, *fy)
        one_x, one_y = (1,) * len(fy), (1,) * len(fx)

        def outer(x: Tensor, y: Tensor) -> Tensor:
            x, y = x.permute(px), y.permute(py)
            k = len(bx)
            return torch.mul(x.reshape((*x.shape, *one_x)), y.reshape((*y.shape[:k], *one_y, *y.shape[k:])))

        return outer
    x_first = (*bx, *cx, *fx) == tuple(range(xn))  # then a transposed view serves, without a copy
    y_last = (*by, *fy, *cy) == tuple(range(yn))
    px = (*bx, *cx, *fx) if x_first else (*bx, *fx, *cx)
    py = (*by, *fy, *cy) if y_last else (*by, *cy, *fy)

    def general(x: Tensor, y: Tensor) -> Tensor:
        lead = [x.shape[a] for a in bx]
        m, n = [x.shape[a] for a in fx], [y.shape[a] for a in fy]
        b, mm, nn, k = math.prod(lead), math.prod(m), math.prod(n), math.prod([x.shape[a] for a in cx])
        head = [b] if lead else []
        x = x.permute(px).reshape(head + ([k, mm] if x_first else [mm, k]))
        y = y.permute(py).reshape(head + ([nn, k] if y_last else [k, nn]))
        x, y = x.mT if x_first else x, y.mT if y_last else y
        out = _mm(x, y) if not lead else torch.matmul(x, y) if _direct(x) else _integer_matmul(x, y)
        return out.reshape(lead + m + n)

    if bx == by == tuple(range(len(bx))) and len(cx) == 1 and xn == yn == len(bx) + 2:  # matrices side by side
        tx, ty = cx[0] == len(bx), cy[0] > len(by)
        return lambda x, y: torch.matmul(x.mT if tx else x, y.mT if ty else y) if _direct(x) else general(x, y)
    if not bx and yn == 2 and cx == (xn - 1,):  # rows of more axes with a matrix: the same product with less around it
        turned = cy == (1,)
        return lambda x, y: _mm(x.flatten(0, -2), y.t() if turned else y).reshape(*x.shape[:-1], y.shape[not turned])
    if not bx and xn == yn > 2 and cx == cy == tuple(range(xn - 1)):  # what its gradient in the matrix is
        return lambda x, y: _mm(x.flatten(0, -2).t(), y.flatten(0, -2))
    return general


def _direct(x: Tensor) -> bool:
    return not (x.is_cuda and x.dtype is torch.int64)


@functools.cache
def halved() -> bool:
    """Whether torch's products are MKL's, and this is a processor with AVX-512 for which MKL has AVX2 kernels only, as for those that are not
    Intel's: oneDNN takes .45 of the time there. Told by what the processor is: a measurement might choose other bits in another process."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    other = known.get("avx512_f", False) and "Intel" not in known.get("cpu_name", "Intel")
    return other and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and _linear is not None


def turned_mm(x: Tensor, y: Tensor) -> Tensor:
    return torch.mm(y.t(), x.t()).t().contiguous()


def onednn_mm(x: Tensor, y: Tensor, b: Tensor | None = None) -> Tensor:
    """x @ y + b, for x of any number of axes. An x that is not contiguous is copied, so it may be better made the other way round; b is read as if it
    were."""
    if b is None and not x.is_contiguous() and y.numel() + x.shape[0] * y.shape[1] < 0.75 * x.numel():
        return _linear(y.t(), x, None, "none", [], "").t().contiguous()
    return _linear(x, y.t(), b if b is None else b.contiguous(), "none", [], "")


@functools.lru_cache(4096)
def quicker(rows: int, depth: int, columns: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What makes a product of float32 matrices on the CPU in less time than torch.mm, if anything does. MKL is two to five times slower with 2 to 15
    columns than with as many rows, where the product is large enough to pay for the copy; oneDNN needs 9 µs for a call."""
    if min(rows, columns) >= 4 and rows * depth * columns >= 1 << 20 and halved():
        return onednn_mm
    return turned_mm if 2 <= columns < 16 and rows * depth >= 1 << 15 and torch.backends.mkl.is_available() else None


def _mm(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype is torch.float32 and not x.is_cuda and (product := quicker(*x.shape, y.shape[1])) is not None:
        return product(x, y)
    return torch.mm(x, y) if _direct(x) else _integer_matmul(x, y)


def _mv(x: Tensor, y: Tensor) -> Tensor:
    return torch.mv(x, y) if _direct(x) else _integer_matmul(x, y[:, None])[:, 0]


def dot_general(x: Tensor, y: Tensor, *, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> Tensor:
    plan = dot_plan(x.ndim, y.ndim, contract, batch)
    return plan(x, y) if x.dtype in _NATIVE else carried(plan, x, y)


def plus(x: Tensor, b: Tensor) -> Tensor:
    """x + b; complex numbers by parts, as torch makes NaN of their infinities, and unsigned ones, which it does not add, as signed ones."""
    if x.dtype in SIGNED:
        return (x.view(SIGNED[x.dtype]) + b.view(SIGNED[x.dtype])).view(x.dtype)
    return torch.view_as_complex(torch.view_as_real(x) + torch.view_as_real(b)) if x.is_complex() else x + b


def affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    if x.dtype is not torch.float32 and x.dtype is not torch.float64:
        return plus(dot_general(x, w, contract=((x.ndim - 1,), (1,)), batch=((), ())), b)
    n, depth = w.shape
    product = quicker(x.numel() // max(depth, 1), depth, n) if x.dtype is torch.float32 and not x.is_cuda else None
    if product is onednn_mm:
        return onednn_mm(x, w.t(), b)
    if x.ndim != 2:
        return torch._C._nn.linear(x, w, b)
    return torch.addmm(b, x, w.t()) if product is None else torch.addmm(b.unsqueeze(1), w, x.t()).t().contiguous()
