"""torch's kernels of attention for CUDA as far as minidl knows them, and its compiler of CUDA C, for the device that pretends: what they take and
give, the order in memory that they want, and what they get wrong. FlashAttention gives +inf for the log-sum-exp of a row with nan or a score of +inf,
the memory-efficient kernels nan, and 0 for a row that may look nowhere, in rows of a multiple of 32 numbers.

Sources: torch's flash_api.cpp and attention_backward.cu, and mem_eff_attention/kernel_forward.h and kernel_backward.h, which its package includes.
"""

from __future__ import annotations

import ctypes
import functools
import math
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from pretended_cuda import Capture, OnCuda

from minidl.arrays.composites import on_torch_cuda as attention

Tensor = torch.Tensor
inf = math.inf
#: What CUDA C has beside C++, for one thread a block; and what a half is, where CUDA's is a line for its assembler.
SHIM = """
#include <cmath>
#include <cstring>
#define __device__ static
#define __global__
#define __shared__ static
struct Index { int x; };
static Index threadIdx = {0}, blockIdx = {0}, blockDim = {1};
static void __syncthreads() {}
static unsigned __float_as_uint(float x) { unsigned b; memcpy(&b, &x, 4); return b; }
static float __uint_as_float(unsigned b) { float x; memcpy(&x, &b, 4); return x; }
extern "C" void at_block(int i) { blockIdx.x = i; }
"""
HALF = """typedef unsigned short T;
static float get(T x) { _Float16 y; memcpy(&y, &x, 2); return (float)y; }
static T put(float x) { _Float16 y = (_Float16)x; T b; memcpy(&b, &y, 2); return b; }
"""


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    s = q.float() @ k.float().mT * scale
    s = s if bias is None else s + bias.float()
    there = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril()
    return torch.where(there, s, -inf) if causal else s


def _lined(*xs: Tensor) -> None:
    """What the kernels want of memory: a last axis without gaps, and all else in steps of 16 bytes."""
    for x in xs:
        step = 16 // x.dtype.itemsize
        if x.stride(-1) != 1 or any(s % step for s in x.stride()[:-1]) or x.storage_offset() % step:
            raise RuntimeError("not correctly aligned")


def _as_heads(x: Tensor) -> Tensor:
    """As the kernels lay results: [batch, length, heads, width] in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    s = _scores(q, k, bias, causal, scale)
    top = torch.where(s.isnan(), -inf, s).amax(-1, True)
    p = torch.exp(s - torch.where(top == -inf, 0.0, top))  # nan where a score is nan or +inf
    total = p.sum(-1, True)
    out = (p / torch.where(total == 0, 1.0, total)) @ v.float()
    return _as_heads(out.to(q.dtype)), total[..., 0], top[..., 0]


def _grads(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, ...]:
    if not out.transpose(1, 2).is_contiguous():
        raise AssertionError("the kernel would read the result in another order")
    p = torch.exp(_scores(q, k, bias, causal, scale) - lse[..., None])
    delta = (g.float() * out.float()).sum(-1, True)
    ds = p * (g.float() @ v.float().mT - delta) * scale
    return tuple(_as_heads(d.to(q.dtype)) for d in (ds @ k.float(), ds.mT @ q.float(), p.mT @ g.float()))


class Kernels:
    """The stand-ins. calls: how often each was called."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def flash_attention(self, q: Tensor, k: Tensor, v: Tensor, dropout: float, causal: bool, debug: bool, *, scale: float) -> tuple[Any, ...]:
        self.calls["flash_attention"] += 1
        _lined(q, k, v)
        if q.dtype not in (torch.float16, torch.bfloat16) or not q.shape[-1] == v.shape[-1] <= 256 or (causal and q.shape[2] != k.shape[2]):
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        out, total, top = _attended(q, k, v, None, causal, scale)
        lse = torch.where((total == 0) | total.isnan(), inf, top + total.log())
        return out, lse, None, None, q.shape[2], k.shape[2], None, None, None

    def flash_attention_backward(self, g: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, *more: Any, scale: float) -> Any:
        self.calls["flash_attention_backward"] += 1
        cum_q, cum_k, n, m, dropout, causal, *seeds = more
        assert cum_q is cum_k is None and not dropout and (n, m) == (q.shape[2], k.shape[2]) and lse.is_contiguous() and lse.shape == q.shape[:-1]
        assert all(isinstance(s, torch.Tensor) for s in seeds) and len(seeds) == 2
        _lined(g, q, k, v)
        return _grads(g, q, k, v, None, out, lse, causal, scale)

    def efficient_attention(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, log: bool, dropout: float, causal: bool, *, scale: float
    ) -> tuple[Any, ...]:
        self.calls["efficient_attention"] += 1
        _lined(q, k, v)
        self._biased(q, k, bias)
        out, total, top = _attended(q, k, v, bias, causal, scale)
        lse = torch.where(top == -inf, 0.0, top) + torch.where(total == 0, 1.0, total).log()
        return out, torch.nn.functional.pad(lse, (0, -q.shape[2] % 32), value=inf), None, None

    def efficient_attention_backward(
        self, g: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Any, out: Tensor, lse: Tensor, *more: Any, scale: float
    ) -> Any:
        self.calls["efficient_attention_backward"] += 1
        *seeds, dropout, wanted, causal = more
        assert not dropout and all(isinstance(s, torch.Tensor) for s in seeds) and len(seeds) == 2 and wanted == [True, True, True, False]
        _lined(g, q, k, v)
        self._biased(q, k, bias)
        if lse.stride(1) % 8 or lse.stride(0) % 8:
            raise RuntimeError("LSE is not correctly aligned (strideH)")
        return *_grads(g, q, k, v, bias, out, lse[..., : q.shape[2]], causal, scale), None

    def _biased(self, q: Tensor, k: Tensor, bias: Tensor | None) -> None:
        if bias is not None:
            _lined(bias)
            assert bias.dtype is q.dtype and bias.shape == (*q.shape[:3], k.shape[2])


@functools.cache
def _library(source: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:  # what is loaded needs its file no longer
        text, made = Path(folder) / "kernels.cc", Path(folder) / "kernels.so"
        text.write_text(SHIM + source.replace(attention._DTYPES[torch.float16], HALF))
        subprocess.run(["g++", "-O1", "-shared", "-fPIC", "-o", made, text], check=True)
        return ctypes.CDLL(str(made))


class Loaded:
    """A kernel of ours as a C++ compiler makes it, called as torch.cuda's are: int is C's int, float its double."""

    def __init__(self, name: str, dtype: torch.dtype, device: torch.device):
        self.library = _library(attention._DTYPES[dtype] + attention.SOURCE)
        self.function = getattr(self.library, name)

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: list[Any]) -> None:
        if Capture.mode.tape is not None:
            Capture.mode.tape.append((self._run, (grid, *args), {}, None))
        self._run(grid, *(a.elements if type(a) is OnCuda else a for a in args))

    def _run(self, grid: tuple[int, ...], *args: Any) -> None:
        c = lambda a: ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_int(a) if type(a) is int else ctypes.c_double(a)
        given = [c(a) for a in args]
        for i in range(grid[0]):
            self.library.at_block(i)
            self.function(*given)


def patch(monkeypatch: Any) -> Kernels:
    """Stand-ins for all of it, and no trial remembered."""
    kernels = Kernels()
    monkeypatch.setattr(attention, "_KERNELS", {name: getattr(kernels, name) for name in attention._KERNELS})
    monkeypatch.setattr(attention, "_loaded", functools.cache(Loaded))
    monkeypatch.setattr(attention, "_trials", {})
    return kernels
