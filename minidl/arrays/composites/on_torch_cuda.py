"""PyTorch on a GPU: attention by torch's FlashAttention and memory-efficient kernels, forwards and backwards, which keep one number a row instead of
the scores. Nobody waits for the device.

What these kernels get wrong is a row with an infinite score, of which the table has a limit (the weight is on the +inf): its log-sum-exp is nan or
+inf then. Nothing but a branch on the device can put that right for the price of reading one number a row, and torch has none; so each call of a
kernel is followed by one of ours (`SOURCE`, compiled by CUDA's own run-time compiler), which returns at once where all those numbers are finite, and
else computes the rows, of a backward pass the heads, as the decomposition does, element by element. A row that may look nowhere is 0 in both, and
passes no gradient: its log-sum-exp is finite, or -inf, and goes into the backward kernel as +inf.

Promises: values are the decomposition's but for rounding (gradients round another way from call to call, as PyTorch's do, unless
torch.use_deterministic_algorithms says otherwise), but that a row that may look nowhere is 0 beside an infinite value, too. A kernel is used
where it has passed a trial against the decomposition, special values included, on this device, for this dtype, width and kind of mask, once; where
torch lacks or refuses it, its run-time compiler is missing, or the trial fails, the answer is None.
Sources: T. Dao, FlashAttention-2 (2023); M. Rabe and C. Staats, arXiv 2112.05682.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from minidl.backends.torch_linear import HALF

Tensor = torch.Tensor
_aten = torch.ops.aten
_KERNELS: dict[str, Any] = {  # private, so they may be missing
    name: getattr(getattr(_aten, f"_scaled_dot_product_{name}", None), "default", None)
    for name in ("flash_attention", "flash_attention_backward", "efficient_attention", "efficient_attention_backward")
}
_WIDEST = 256
_THREADS = 128
_PAD = 32  # what the memory-efficient kernels want a head's log-sum-exps to be a multiple of

#: How a dtype is read and written; there is no header where CUDA compiles at run time.
_DTYPES = {
    torch.float32: "typedef float T; __device__ float get(T x) { return x; } __device__ T put(float x) { return x; }",
    torch.bfloat16: """typedef unsigned short T;
__device__ float get(T x) { return __uint_as_float((unsigned)x << 16); }
__device__ T put(float x) { unsigned b = __float_as_uint(x); return x != x ? 0x7fc0 : (T)((b + 0x7fff + ((b >> 16) & 1)) >> 16); }""",
    torch.float16: """typedef unsigned short T;
__device__ float get(T x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x)); return y; }
__device__ T put(float x) { T y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x)); return y; }""",
}
#: One block for a head, b of the batch and h of the heads; an array has its strides behind it. `all`: the largest of the scores of a row and what its
#: exponentials are divided by, which is nan for a row with a nan.
SOURCE = """
typedef long long I;
struct Row { float top, all; };

__device__ float score(const T* q, const T* k, const T* m, I mj, int masked, int causal, int i, int j, int width, float scale, float inf) {
    if (causal && j > i) return -inf;
    float s = 0;
    for (int d = 0; d < width; d++) s += get(q[d]) * get(k[d]);
    s *= scale;
    return masked ? s + get(m[mj * j]) : s;
}

__device__ float weight(float s, Row r, float inf) {
    if (r.all != r.all) return r.all;
    if (r.top == -inf) return 0;
    return (r.top == inf ? (s == inf ? 1.0f : 0.0f) : expf(s - r.top)) / r.all;
}

__device__ Row row(const T* q, const T* k, I kj, const T* m, I mj, int masked, int causal, int i, int keys, int width, float scale, float inf) {
    Row r = {-inf, 0};
    int lost = 0;
    for (int j = 0; j < keys; j++) {
        float s = score(q, k + kj * j, m, mj, masked, causal, i, j, width, scale, inf);
        lost |= s != s;
        if (s > r.top) r.top = s;
    }
    Row one = {r.top, 1};
    for (int j = 0; j < keys; j++) r.all += weight(score(q, k + kj * j, m, mj, masked, causal, i, j, width, scale, inf), one, inf);
    if (lost) r.all = inf - inf;
    return r;
}

extern "C" __global__ void attention_rows(
    T* o, int ob, int oh, int oi, float* lse, int lb, int lh, const T* q, int qb, int qh, int qi, const T* k, int kb, int kh, int kj,
    const T* v, int vb, int vh, int vj, const T* m, int mb, int mh, int mi, int mj,
    int masked, int causal, int heads, int rows, int keys, int width, int depth, double scale, double inf) {
    I b = blockIdx.x / heads, h = blockIdx.x % heads;
    o += b * ob + h * oh; lse += b * lb + h * lh; q += b * qb + h * qh; k += b * kb + h * kh; v += b * vb + h * vh; m += b * mb + h * mh;
    for (int i = threadIdx.x; i < rows; i += blockDim.x) {
        float was = lse[i];
        if (was - was == 0) continue;
        if (was == -inf) {
            for (int d = 0; d < depth; d++) o[(I)oi * i + d] = put(0);
            continue;
        }
        const T *x = q + (I)qi * i, *y = m + (I)mi * i;
        Row r = row(x, k, kj, y, mj, masked, causal, i, keys, width, scale, inf);
        float sum[256];
        for (int d = 0; d < depth; d++) sum[d] = 0;
        for (int j = 0; j < keys; j++) {
            float p = weight(score(x, k + (I)kj * j, y, mj, masked, causal, i, j, width, scale, inf), r, inf);
            for (int d = 0; d < depth; d++) sum[d] += p * get(v[(I)vj * j + d]);
        }
        for (int d = 0; d < depth; d++) o[(I)oi * i + d] = put(sum[d]);
        lse[i] = r.all != r.all || r.top == inf || r.top == -inf ? (r.all != r.all ? r.all : r.top) : r.top + logf(r.all);
    }
}

extern "C" __global__ void attention_heads(
    T* dq, int dqb, int dqh, int dqi, T* dk, int dkb, int dkh, int dkj, T* dv, int dvb, int dvh, int dvj, float* rest,
    const float* lse, int lb, int lh, const T* g, int gb, int gh, int gi, const T* q, int qb, int qh, int qi, const T* k, int kb, int kh, int kj,
    const T* v, int vb, int vh, int vj, const T* m, int mb, int mh, int mi, int mj,
    int masked, int causal, int heads, int rows, int keys, int width, int depth, double scale, double inf) {
    __shared__ int wrong;
    I b = blockIdx.x / heads, h = blockIdx.x % heads;
    lse += b * lb + h * lh;
    if (threadIdx.x == 0) wrong = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < rows; i += blockDim.x)
        if (lse[i] != lse[i] || lse[i] == inf) wrong = 1;
    __syncthreads();
    if (!wrong) return;
    dq += b * dqb + h * dqh; dk += b * dkb + h * dkh; dv += b * dvb + h * dvh; rest += 3 * (I)rows * blockIdx.x;
    g += b * gb + h * gh; q += b * qb + h * qh; k += b * kb + h * kh; v += b * vb + h * vh; m += b * mb + h * mh;
    float sum[256], other[256];
    for (int i = threadIdx.x; i < rows; i += blockDim.x) {
        const T *x = q + (I)qi * i, *y = m + (I)mi * i, *c = g + (I)gi * i;
        Row r = row(x, k, kj, y, mj, masked, causal, i, keys, width, scale, inf);
        float mean = 0;
        for (int d = 0; d < width; d++) sum[d] = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int j = 0; j < keys; j++) {
                float p = weight(score(x, k + (I)kj * j, y, mj, masked, causal, i, j, width, scale, inf), r, inf), t = 0;
                for (int d = 0; d < depth; d++) t += get(c[d]) * get(v[(I)vj * j + d]);
                if (pass == 0) mean += p * t;
                else for (int d = 0; d < width; d++) sum[d] += p * (t - mean) * (float)scale * get(k[(I)kj * j + d]);
            }
        for (int d = 0; d < width; d++) dq[(I)dqi * i + d] = put(sum[d]);
        rest[i] = r.top; rest[rows + i] = r.all; rest[2 * rows + i] = mean;
    }
    __syncthreads();
    for (int j = threadIdx.x; j < keys; j += blockDim.x) {
        const T *x = k + (I)kj * j, *y = v + (I)vj * j;
        for (int d = 0; d < width; d++) sum[d] = 0;
        for (int d = 0; d < depth; d++) other[d] = 0;
        for (int i = 0; i < rows; i++) {
            Row r = {rest[i], rest[rows + i]};
            const T *a = q + (I)qi * i, *c = g + (I)gi * i;
            float p = weight(score(a, x, m + (I)mi * i, mj, masked, causal, i, j, width, scale, inf), r, inf), t = 0;
            for (int d = 0; d < depth; d++) t += get(c[d]) * get(y[d]);
            float s = p * (t - rest[2 * rows + i]) * (float)scale;
            for (int d = 0; d < width; d++) sum[d] += s * get(a[d]);
            for (int d = 0; d < depth; d++) other[d] += p * get(c[d]);
        }
        for (int d = 0; d < width; d++) dk[(I)dkj * j + d] = put(sum[d]);
        for (int d = 0; d < depth; d++) dv[(I)dvj * j + d] = put(other[d]);
    }
}
"""


def cubin(source: str, capability: tuple[int, int]) -> bytes:
    """The machine code of a text in CUDA C, by the run-time compiler that comes with torch. (torch.cuda's own way to it wants the toolkit, too.)"""
    major = torch.version.cuda.partition(".")[0] if torch.version.cuda else ""
    try:
        compiler = ctypes.CDLL(f"libnvrtc.so.{major}")
    except OSError:  # in a package beside torch
        compiler = ctypes.CDLL(str(next(Path(torch.__file__).parents[1].glob(f"nvidia/*/lib/libnvrtc.so.{major}*"), "no libnvrtc")))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()

    def right(status: int) -> None:
        if status:
            raise RuntimeError(f"CUDA's compiler: status {status}")

    right(compiler.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"minidl.cu", 0, None, None))
    options = (ctypes.c_char_p * 1)(b"--gpu-architecture=sm_%d%d" % capability)
    right(compiler.nvrtcCompileProgram(program, 1, options))
    right(compiler.nvrtcGetCUBINSize(program, ctypes.byref(size)))
    code = ctypes.create_string_buffer(size.value)
    right(compiler.nvrtcGetCUBIN(program, code))
    right(compiler.nvrtcDestroyProgram(ctypes.byref(program)))
    return code.raw


@functools.cache
def _loaded(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """A kernel that is called with a grid, a block and arguments: arrays, int for C's int and float for its double."""
    from torch.cuda._utils import _cuda_load_module  # private, so it may be missing

    kernels: Any = _cuda_load_module(cubin(_DTYPES[dtype] + SOURCE, torch.cuda.get_device_capability(device)), [name])
    return kernels[name]


def _repair(name: str, *arrays: Tensor, mask: Tensor | None, causal: bool, scale: float) -> None:
    """Call of a kernel of ours: the arrays, each with as many strides as `name` reads, and the shapes of the last four, which are q, k, v."""
    q, k, v = arrays[-3:]
    biased = q if mask is None else mask
    strided = [(a, *a.stride()[: {3: 2, 4: 3}.get(a.ndim, 0)]) for a in arrays]
    shapes = q.shape[1], q.shape[2], k.shape[2], q.shape[3], v.shape[3]
    given = [*itertools.chain.from_iterable(strided), biased, *biased.stride(), int(mask is not None), int(causal), *shapes, float(scale), math.inf]
    with torch.cuda.device(q.device):
        _loaded(name, q.dtype, q.device)(grid=(q.shape[0] * q.shape[1], 1, 1), block=(_THREADS, 1, 1), args=given)


def _heads(x: Tensor) -> Tensor:
    """[batch, heads, length, width] as the kernels read it: the last axis without gaps, and everything else in steps of 16 bytes."""
    x = x if x.ndim == 4 else x.reshape(-1, 1, *x.shape[-2:])
    step = 16 // x.dtype.itemsize
    lined = x.stride(-1) == 1 and not any(s % step for s in (*x.stride()[:-1], x.storage_offset()))
    return x if lined and 0 not in x.stride() else x.clone(memory_format=torch.contiguous_format)


def _bias(mask: Tensor, q: Tensor, k: Tensor) -> Tensor | None:
    """The mask over all of the heads, with rows in steps of 16 elements."""
    if not mask.ndim:
        return None
    lead, scores = q.shape[:-2], (q.shape[-2], k.shape[-2])
    if q.ndim != 4:
        mask, lead = mask.expand(*lead, *scores).reshape(-1, 1, *scores), torch.Size((math.prod(lead), 1))
    mask = mask.expand(*mask.shape[:-1], scores[1])
    return torch.nn.functional.pad(mask, (0, -scores[1] % 16))[..., : scores[1]].expand(*lead, *scores)


def _kind(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, causal: bool) -> str | None:
    """Which of torch's kernels is for these arguments."""
    step = 16 // q.dtype.itemsize
    sizes = q.shape[-1], v.shape[-1]
    if q.dtype not in _DTYPES or not q.numel() or not k.numel() or any(n % step or not 0 < n <= _WIDEST for n in sizes):
        return None
    square = not causal or q.shape[-2] == k.shape[-2]
    return "flash_attention" if q.dtype in HALF and not mask.ndim and sizes[0] == sizes[1] and square else "efficient_attention"


def _forward(kind: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    a, b, c, bias, kernel = _heads(q), _heads(k), _heads(v), _bias(mask, q, k), _KERNELS[kind]
    if kind == "flash_attention":
        out, lse, *_ = kernel(a, b, c, 0.0, causal, False, scale=scale)
    else:
        out, lse, *_ = kernel(a, b, c, bias, True, 0.0, causal, scale=scale)
    lse = lse[..., : q.shape[-2]]
    _repair("attention_rows", out, lse, a, b, c, mask=bias, causal=causal, scale=scale)
    return (out, lse) if q.ndim == 4 else (out.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1]))


def _backward(
    kind: str, g: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, o: Tensor, lse: Tensor, scale: float, causal: bool
) -> tuple[Tensor, ...]:
    (d, a, b, c, out), bias, kernel = map(_heads, (g, q, k, v, o)), _bias(mask, q, k), _KERNELS[f"{kind}_backward"]
    rows, out = lse.reshape(a.shape[:-1]).contiguous(), out.transpose(1, 2).contiguous().transpose(1, 2)  # the kernels take no other order
    high = torch.where(rows == -math.inf, math.inf, rows)
    seed = torch.empty((), dtype=torch.int64, device=q.device)  # of dropout, of which there is none
    n, m = a.shape[2], b.shape[2]
    if kind == "flash_attention":
        grads = kernel(d, a, b, c, out, high.contiguous(), None, None, n, m, 0.0, causal, seed, seed, scale=scale)
    else:
        high = torch.nn.functional.pad(high, (0, -n % _PAD), value=math.inf)
        grads = kernel(d, a, b, c, bias, out, high, seed, seed, 0.0, [True, True, True, False], causal, scale=scale)[:3]
    rest = torch.empty((a.shape[0] * a.shape[1], 3 * n), dtype=torch.float32, device=q.device)
    _repair("attention_heads", *grads, rest, rows, d, a, b, c, mask=bias, causal=causal, scale=scale)
    return tuple(grads)


_trials: dict[Any, bool] = {}


def _trusted(kind: str, q: Tensor, v: Tensor, mask: Tensor, causal: bool, plain: Callable[..., Any]) -> bool:
    """Whether the kernels do what the decompositions do (plain(name, device) gives these), on one small example, tried at the first call."""
    key = kind, q.device, q.dtype, q.shape[-1], v.shape[-1], bool(mask.ndim), causal
    if key not in _trials:
        if torch.cuda.is_current_stream_capturing():  # where nobody can look; a program ran before it is captured
            return False
        try:
            _trials[key] = _tried(kind, q.device, q.dtype, q.shape[-1], v.shape[-1], bool(mask.ndim), causal, plain)
        except Exception:  # whatever is missing or private and other there, the decomposition is right
            _trials[key] = False
    return _trials[key]


def _tried(
    kind: str, device: torch.device, dtype: torch.dtype, width: int, depth: int, masked: bool, causal: bool, plain: Callable[..., Any]
) -> bool:
    draw = torch.Generator().manual_seed(0)
    made = lambda *shape: torch.randn(shape, generator=draw, device="cpu")
    q, k, v, g = made(2, 3, 40, width), made(2, 3, 40, width), made(2, 3, 40, depth), made(2, 3, 40, depth)
    q[0, 1, 3, 0], q[1, 0, 5, 1], k[1, 2, 7, 2] = math.inf, math.nan, -math.inf
    mask = made(2, 1, 40, 40) if masked else torch.zeros((), device="cpu")
    if masked:
        mask[0, 0, 6], mask[1, 0, 9, 8], mask[:, :, 11, 1::2] = -math.inf, math.inf, -math.inf
    q, k, v, g, mask = (x.to(dtype).to(device) for x in (q, k, v, g, mask))
    how: dict[str, Any] = {"scale": 0.5, "causal": causal}
    out, lse = _forward(kind, q, k, v, mask, **how)
    grads = _backward(kind, g, q, k, v, mask, out, lse, **how)
    want, sums = plain("attention", str(device))(q, k, v, mask, **how)
    wanted = plain("attention_grad", str(device))(g, q, k, v, mask, want, sums, **how).split([40 * width, 40 * width, 40 * depth], -1)
    close = functools.partial(torch.allclose, rtol=1e-4 if dtype is torch.float32 else 0.03, atol=1e-4 if dtype is torch.float32 else 0.03)
    pairs = [(out, want), *((a, b.reshape(a.shape)) for a, b in zip(grads, wanted, strict=True))]
    return all(close(a.double(), b.double(), equal_nan=True) for a, b in pairs)


def attention(
    plain: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scale: float, causal: bool
) -> tuple[Tensor, Tensor] | None:
    """The result, and the logarithms of the rows' sums for the gradient; None where the decomposition has to do it."""
    kind = _kind(q, k, v, mask, causal)
    if kind is None or not _trusted(kind, q, v, mask, causal, plain):
        return None
    try:
        return _forward(kind, q, k, v, mask, scale, causal)
    except RuntimeError:  # torch refuses
        return None


def attention_grads(
    plain: Callable[..., Any], g: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, o: Tensor, lse: Tensor, *, scale: float, causal: bool
) -> tuple[Tensor, ...] | None:
    """The gradients of q, k and v as heads; None as above."""
    kind = _kind(q, k, v, mask, causal)
    if kind is None or not _trusted(kind, q, v, mask, causal, plain):
        return None
    try:
        return _backward(kind, g, q, k, v, mask, o, lse, scale, causal)
    except RuntimeError:
        return None
