"""minidl.idioms: PyTorch's names compute what PyTorch computes, on every backend, with PyTorch's arguments, and what is not there says what is."""

from __future__ import annotations

import copy
import functools
import gc
import math
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")
BACKENDS = ("numpy", "numba", "torch", "jax")
rng = np.random.default_rng(0)
X, Y, SQUARE = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 3)) + 3 * np.eye(3)
INDEX, MASK, ROWS = rng.integers(0, 3, (2, 4)), rng.normal(size=(3, 4)) > 0, np.array([2, 0])

#: name -> f(T, x, y, s, i, m, r): T is torch or minidl; one text for both.
CASES = {
    "expand": lambda T, x, y, s, i, m, r: x[:, None].expand(-1, 2, -1) + x.unsqueeze(1).expand(3, 2, 4),
    "expand_as": lambda T, x, y, s, i, m, r: x[0].expand_as(x) + x.view_as(y) + x.reshape_as(y),
    "t": lambda T, x, y, s, i, m, r: T.mm(x.t(), y).t() + T.ones(3).t().sum(),
    "unflatten": lambda T, x, y, s, i, m, r: x.unflatten(1, (2, -1)).movedim(0, -1),
    "atleast": lambda T, x, y, s, i, m, r: T.atleast_3d(x) + T.atleast_2d(x[0])[..., None] + T.atleast_1d(x[0, 0]),
    "vdot": lambda T, x, y, s, i, m, r: T.view_as_real(T.vdot(T.complex(x[0], y[0]), T.complex(y[1], x[1]))),
    "cross": lambda T, x, y, s, i, m, r: T.cross(x, y, dim=0) + T.cross(x[:, :3], y[:, :3], dim=-1)[:, :1],
    "of_integers": lambda T, x, y, s, i, m, r: (
        T.logit(i.to(T.uint8) // 3) + T.nansum(i, 0).to(T.float64) + T.pinverse(s[:2] * s[:2] @ s, 0.5).sum() * 0
    ),
    "close_integers": lambda T, x, y, s, i, m, r: T.isclose(i.to(T.uint8), (i + 1).to(T.uint8), atol=1.0) & ~T.isclose(m[:2], ~m[:2]),
    "atleast_several": lambda T, x, y, s, i, m, r: T.cat([v.flatten() for v in T.atleast_2d(x[0, 0], y) + T.atleast_1d([x, y[1, 1]])]),
    "hstack": lambda T, x, y, s, i, m, r: T.cat([T.hstack([x, y]), T.hstack([x[0], x[0]])[None], T.cat([x, y], dim=1)], 0),
    "vstack": lambda T, x, y, s, i, m, r: T.vstack([x, y[0]]),
    "dstack": lambda T, x, y, s, i, m, r: T.dstack([x, y]),
    "column_stack": lambda T, x, y, s, i, m, r: T.column_stack([x[0], y[0]]),
    "block_diag": lambda T, x, y, s, i, m, r: T.block_diag(x, y[0], s),
    "tensor_split": lambda T, x, y, s, i, m, r: T.tensor_split(x, 3, dim=1)[0] + x.tensor_split([1, 3], dim=1)[1],
    "unbind": lambda T, x, y, s, i, m, r: x.unbind(1)[1] + x.select(1, -1) + x.narrow(1, 1, 2).sum(1),
    "flips": lambda T, x, y, s, i, m, r: x.fliplr() + x.flipud() + x.flip(0, 1) + x.flip([1]) + x.flip(dims=(0,)),
    "rot90": lambda T, x, y, s, i, m, r: T.rot90(s) + 2 * T.rot90(s, 2) + 3 * T.rot90(s, -1) + s.rot90(1, [1, 0]),
    "repeat_interleave": lambda T, x, y, s, i, m, r: x.repeat_interleave(2, dim=0)[:3, :] + x.repeat_interleave(T.tensor([1, 0, 2]), 0),
    "diag": lambda T, x, y, s, i, m, r: T.diag(s, 1).sum() + T.diag(s[0], -1) + T.diag(s[0], 1),
    "diag_embed": lambda T, x, y, s, i, m, r: T.diag_embed(x, offset=-1) + T.diag_embed(x, offset=1, dim1=1, dim2=2),
    "indices": lambda T, x, y, s, i, m, r: T.cat([T.tril_indices(3, 4, -1), T.triu_indices(3, 4, 1)], 1),
    "cartesian_prod": lambda T, x, y, s, i, m, r: T.cartesian_prod(T.arange(2), T.arange(3)),
    "combinations": lambda T, x, y, s, i, m, r: T.combinations(x[0], 3) + T.combinations(x[0], 3, True)[:4],
    "unfold": lambda T, x, y, s, i, m, r: x.unfold(1, 3, 1).sum() + x.unfold(0, 2, 1),
    "masked_select": lambda T, x, y, s, i, m, r: x.masked_select(m),
    "take_along_dim": lambda T, x, y, s, i, m, r: T.take_along_dim(x, x.argsort(dim=1), dim=1),
    "kthvalue": lambda T, x, y, s, i, m, r: x.kthvalue(2, dim=0)[0] + T.kthvalue(x, 1, 0).indices,
    "aminmax": lambda T, x, y, s, i, m, r: T.aminmax(x, dim=0)[0] - x.aminmax()[1] + x.amax((0, 1)) + x.amin(dim=1, keepdim=True)[0],
    "cummax": lambda T, x, y, s, i, m, r: x.cummax(1)[0] + x.cummax(0).indices + T.cummin(x, dim=1).values + x.cummin(1)[1],
    "cumsum": lambda T, x, y, s, i, m, r: x.cumsum(dim=1) + T.cumprod(x, 0) + T.logcumsumexp(x, dim=1),
    "unique": lambda T, x, y, s, i, m, r: T.cat([i.unique(), *T.unique(i.flatten(), return_inverse=True, return_counts=True)]),
    "unique_consecutive": lambda T, x, y, s, i, m, r: T.cat(T.unique_consecutive(T.tensor([1, 1, 2, 2, 1]), return_inverse=True, return_counts=True)),
    "bucketize": lambda T, x, y, s, i, m, r: (
        T.bucketize(x, T.tensor([-1.0, 0.0, 1.0])) + T.bucketize(T.tensor(1.0), T.tensor([0.0, 1.0]), right=True)
    ),
    "bincount": lambda T, x, y, s, i, m, r: i.flatten().bincount(minlength=5) + T.bincount(i.flatten(), weights=x.flatten()[:8], minlength=5),
    "histc": lambda T, x, y, s, i, m, r: x.histc(4, -1, 1) + T.histc(x, bins=4),
    "div": lambda T, x, y, s, i, m, r: (
        x.div(0.3, rounding_mode="floor") + T.div(x, y, rounding_mode="trunc") + T.div(i, 2, rounding_mode="trunc").sum()
    ),
    "fmod": lambda T, x, y, s, i, m, r: T.fmod(x, 0.3) + x.frac() + T.fmod(T.tensor([7, -7]), 3).sum() + x.fmod(-0.5),
    "clamps": lambda T, x, y, s, i, m, r: x.clamp_min(0.1) + x.clamp_max(0.2) + T.clamp(x, -1, 1) + x.sgn(),
    "lerp": lambda T, x, y, s, i, m, r: (
        T.lerp(x, y, 0.3) + x.addcmul(x, y, value=0.5) + T.addcdiv(x, x, y.abs() + 1) + x.add(y, alpha=2) - x.sub(y, alpha=3)
    ),
    "addmm": lambda T, x, y, s, i, m, r: T.addmm(x, s, y, beta=0.5, alpha=2) + T.addmv(x[:, 0], s, y[:, 0])[:, None] + T.mv(s, x[:, 0])[:, None],
    "baddbmm": lambda T, x, y, s, i, m, r: T.baddbmm(x[None], s[None], y[None], beta=2) + T.bmm(s[None], y[None]),
    "inner": lambda T, x, y, s, i, m, r: T.inner(x, y) + T.kron(s[:1], s[:, :1]) + s.trace() + T.det(s) + T.logdet(s @ s.T) + T.inner(x[0], y[0]),
    "cdist": lambda T, x, y, s, i, m, r: T.cdist(x, y) + T.cdist(x, y, p=1.0) + T.dist(x, y) + T.inverse(s) + T.slogdet(s)[1],
    "logit": lambda T, x, y, s, i, m, r: x.sigmoid().logit() + T.logit(x, eps=0.1) + T.sinc(x) + T.deg2rad(x) + T.rad2deg(x) + T.exp2(x),
    "complex": lambda T, x, y, s, i, m, r: (
        T.view_as_real(T.complex(x, y)) + T.view_as_real(T.polar(x.abs(), y)) + T.view_as_complex(x.view(3, 2, 2)).abs().sum()
    ),
    "std_mean": lambda T, x, y, s, i, m, r: (
        T.std_mean(x, dim=1)[0] + T.var_mean(x, 1, keepdim=True)[1].view(-1) + x.std(dim=1, unbiased=True) + x.var(1, correction=1)
    ),
    "cov": lambda T, x, y, s, i, m, r: T.cov(x) + T.corrcoef(x) + T.cov(x[0]),
    "nans": lambda T, x, y, s, i, m, r: T.nan_to_num(T.sqrt(x)) + T.nansum(T.sqrt(x), dim=1, keepdim=True) + T.nanmean(T.sqrt(x)),
    "trapezoid": lambda T, x, y, s, i, m, r: T.trapezoid(x, dim=1) + T.trapezoid(x, T.tensor([0.0, 1.0, 3.0, 4.0]).to(x), dim=1),
    "isclose": lambda T, x, y, s, i, m, r: T.isclose(x, x + 1e-9) & T.isclose(x / 0, x / 0) & ~T.isclose(x, y) & x.isreal(),
    "gather": lambda T, x, y, s, i, m, r: x.gather(0, i) + x.gather(1, i[:, :2]).sum() + x.index_select(0, r),
    "masked_fill": lambda T, x, y, s, i, m, r: (
        x.masked_fill(m, -1.0) + x.masked_fill(m, T.tensor(2.0)) + x.where(m, y) + i.masked_fill(i > 1, 5).sum()
    ),
    "scatter": lambda T, x, y, s, i, m, r: x.scatter(1, T.tensor([[0, 3], [1, 2], [2, 0]]), y) + x.scatter(0, r[:, None].expand(2, 4), 1.5),
    "scatter_add": lambda T, x, y, s, i, m, r: x.scatter_add(0, i, y) + x.scatter_reduce(0, i, y, reduce="sum"),
    "scatter_reduce": lambda T, x, y, s, i, m, r: x.scatter_reduce(0, i, y, "amax") - x.scatter_reduce(0, i, y, "mean", include_self=False),
    "scatter_reduce2": lambda T, x, y, s, i, m, r: x.scatter_reduce(0, i, y, "prod", include_self=False) + x.scatter_reduce(0, i, y, "mean"),
    "index_add": lambda T, x, y, s, i, m, r: x.index_add(0, r, y[:2], alpha=2) + x.index_copy(0, r, y[:2]) + x.index_fill(1, r, 9.0),
    "index_put": lambda T, x, y, s, i, m, r: x.index_put((r, r), T.tensor(5.0).to(x)) + x.index_put((T.tensor([1, 1]),), y[0], accumulate=True),
    "aliases": lambda T, x, y, s, i, m, r: (
        x.mul(2).sub(1).neg().absolute().true_divide(3) + T.arctan2(x, y) + T.permute(x, (1, 0)).t() + T.swapdims(s, 0, 1).sum()
    ),
    "comparisons": lambda T, x, y, s, i, m, r: x.eq(x) & x.ne(y) & (x.lt(y) | x.ge(y)) & ~(x.gt(x) | x.le(x - 1)) & T.isposinf(x.abs() / 0),
    "bits": lambda T, x, y, s, i, m, r: (
        i.bitwise_not() + T.argwhere(i > 0).sum() + i.numel() + i.size(0) + i.size()[1] + i.nelement() + i.element_size()
    ),
    "words": lambda T, x, y, s, i, m, r: (
        T.sum(x, dim=1, keepdim=True) + T.mean(x, dim=[0, 1]) + T.softmax(x, dim=1) + T.stack([x, y], dim=-1).sum(-1)
    ),
    "words2": lambda T, x, y, s, i, m, r: (
        T.flatten(x, start_dim=0)[:3, None] + T.roll(x, shifts=1, dims=0) + T.tril(x, diagonal=-1) + x.triu(1) + x.norm(p=1, dim=1, keepdim=True)
    ),
    "words3": lambda T, x, y, s, i, m, r: (
        T.split(x, 2, 1)[1].sum(1) + x.chunk(2, 1)[0].sum(1) + T.linspace(0, 1, steps=3).to(x) + T.logsumexp(x, dim=1) + T.any(m, dim=1)
    ),
    "words4": lambda T, x, y, s, i, m, r: (
        T.max(x, y) + T.min(x, y) + x.std(dim=0, unbiased=False) + T.meshgrid([T.arange(3), T.arange(4)], indexing="ij")[0] + x.round(decimals=1)
    ),
    "where": lambda T, x, y, s, i, m, r: T.stack(T.where(m)),
    "searchsorted": lambda T, x, y, s, i, m, r: T.searchsorted(T.tensor([0, 1, 2]), i, right=True),
    "new": lambda T, x, y, s, i, m, r: (
        x.new_zeros(3, 4) + x.new_ones((3, 4)) + x.new_full((4,), 2) + x.new_tensor([1, 2, 3, 4]) + T.zeros_like(x.new_empty(3, 4))
    ),
    "types": lambda T, x, y, s, i, m, r: x.type(T.float32).type_as(x).double() * 0 + i.short().byte().char().long().sum() + i.sum().type_as(x),
    "made": lambda T, x, y, s, i, m, r: T.as_tensor([1.5, 2.5, 0.0]) + T.from_numpy(np.ones(3)) + T.logspace(0, 2, 3).double() + T.scalar_tensor(2.0),
}  # fmt: skip
#: Where whole numbers end, axes are alike and weights are 1.
EDGES = {
    "div": lambda T: T.tensor([2**53 + 1, -(2**60) - 1, 7, -7]).div(T.tensor([3, 3, -2, 2]), rounding_mode="trunc"),
    "div_": lambda T: T.tensor([7.5, -7.5]).div_(2, rounding_mode="trunc"),
    "fmod": lambda T: T.fmod(T.tensor([-128, 127, -7, 6], dtype=T.int8), T.tensor([3, -128, -7, -4], dtype=T.int8)),
    "fmod of floats": lambda T: T.fmod(T.tensor([-128, 127], dtype=T.int8), 2.5) + T.tensor([-0.0, -1e-30]).fmod(1.0),
    "cross": lambda T: T.cross(T.arange(9).reshape(3, 3), T.arange(9).reshape(3, 3) ** 2, dim=0),
    "cross of vectors": lambda T: T.cross(T.arange(12).reshape(4, 3), T.arange(12).reshape(4, 3) ** 2, dim=-1),
    "lerp": lambda T: T.lerp(T.tensor([1e8, 1.0]), T.tensor([1.0, 1e8]), 1.0) + T.lerp(T.tensor([1e8]), T.tensor([1.0]), T.tensor([1.0, 0.25])),
    "isclose": lambda T: T.isclose(T.tensor([True, False]), T.tensor([True, True])),
    "nansum": lambda T: T.nansum(T.tensor([[1, 2], [3, 4]]), dim=1),
    "histc": lambda T: T.histc(T.tensor([0.0, 0.5, 1.0, math.nan, -math.inf, 3.0]), 4, 0, 1),
    "is_nonzero": lambda T: T.tensor([T.tensor(2.0).is_nonzero(), T.tensor([0]).is_nonzero()]),
}
#: f stored: x.f_(...) leaves what x.f(...) gives.
STORED = {
    "masked_fill_": (lambda T, m, i, y: (m, 1.0)), "scatter_add_": (lambda T, m, i, y: (0, i, y)), "clamp_min_": (lambda T, m, i, y: (0.2,)),
    "index_add_": (lambda T, m, i, y: (0, i[:, 0], y[:2])), "lerp_": (lambda T, m, i, y: (y, 0.5)), "cumsum_": (lambda T, m, i, y: (1,)),
    "addcmul_": (lambda T, m, i, y: (y, y)), "exp_": (lambda T, m, i, y: ()), "nan_to_num_": (lambda T, m, i, y: ()), "tril_": (lambda T, m, i,
    y: (1,)),
    "add_": (lambda T, m, i, y: (y,)), "floor_divide_": (lambda T, m, i, y: (0.5,)), "ge_": (lambda T, m, i, y: (y,)), "square_": (lambda T, m, i,
    y: ()),
}  # fmt: skip


def arguments(T):
    make = (lambda a: T.tensor(a)) if T is torch else md.tensor
    return [make(a) for a in (X, Y, SQUARE, INDEX, MASK, ROWS)]


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9 if theirs.dtype == np.float64 else 1e-5, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_the_value_is_pytorchs(name, backend):
    pytest.importorskip(backend)
    if backend in ("numba", "jax") and name in ("diag_embed", "block_diag", "tensor_split", "made", "indices", "words3", "inner", "cdist"):
        return  # compositions of what the others hold; each operation of XLA's costs a compilation
    with md.use_backend(backend):
        close(CASES[name](md, *arguments(md)), CASES[name](torch, *arguments(torch)))


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_pytorchs(name):
    ours, theirs = EDGES[name](md), EDGES[name](torch)
    assert ours.dtype.name == str(theirs.dtype).partition(".")[2]
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_edges_that_have_no_witness():
    a, b = md.arange(9).reshape(3, 3), md.arange(9).reshape(3, 3) ** 2
    assert md.cross(a, b).tolist() == md.cross(a, b, dim=0).tolist() != md.cross(a, b, dim=-1).tolist()  # the first axis of size 3
    assert a[:2].cross(b[:2]).shape == (2, 3)
    with pytest.raises(ValueError, match="bincount: numbers from 0 on are counted, and -1 is among them"):
        md.bincount(md.tensor([-1, 2]))
    assert md.grad(lambda x: md.fmod(x, 1.5).sum())(md.tensor([0.0, -2.0, 2.0])).tolist() == [1.0, 1.0, 1.0]
    assert md.grad(lambda y: md.fmod(md.tensor([-4.0, 4.0]), y).sum())(md.tensor([1.5, 1.5])).tolist() == [2.0, -2.0]
    assert not md.isclose(md.tensor(127, dtype="int8"), md.tensor(-128, dtype="int8"), atol=2.0)


@pytest.mark.parametrize("backend", ("numpy", "torch"))
@pytest.mark.parametrize("name", STORED)
def test_the_form_that_ends_in_an_underscore_stores(name, backend):
    with md.use_backend(backend):
        results = []
        for T in (md, torch):
            x, y, _, i, m, _ = arguments(T)
            held = x.clone()
            out = getattr(held, name)(*STORED[name](T, m, i, y))
            assert out is held
            results.append(held)
        close(*results)


GRADIENTS = "gather scatter scatter_add index_add masked_fill unfold cdist diag_embed nans lerp expand cummax".split()


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_gradient_is_pytorchs(name):
    grads = []
    for T in (md, torch):
        args = arguments(T)
        x = args[0].requires_grad_()
        out = CASES[name](T, *args)
        weight = np.random.default_rng(1).normal(size=tuple(out.shape))
        (T.where(T.isnan(out), T.zeros_like(out), out) * T.tensor(weight)).sum().backward()
        grads.append(x.grad)
    close(*grads)


def test_they_are_traced_batched_and_differentiated():
    x, y, _, i, m, _ = arguments(md)

    def f(x):
        z = x.masked_fill(m, 0.0).scatter_add(0, i, y).gather(0, i).cumsum(1)
        z.mul_(2.0).clamp_min_(-1.0)
        return z.new_zeros(2, 4).index_add(0, i[:, 0], z).sum()

    want = f(x).item()
    assert md.jit(f)(x).item() == pytest.approx(want)
    assert np.allclose(md.vmap(f)(md.stack([x, x])).numpy(), want)
    assert np.allclose(md.jit(md.grad(f))(x).numpy(), md.grad(f)(x).numpy())


def test_data_writes_to_its_tensor():
    p = md.nn.Parameter(md.zeros(2))
    held = p.data
    p.data.add_(1.0)
    p.data -= 0.5
    p.data[0] = 7.0
    p.data.copy_(p.data * 2)
    assert p.tolist() == [14.0, 1.0] and p.is_leaf and p.grad is None and held.tolist() == [0.0, 0.0]
    held.fill_(3.0)
    assert p.tolist() == [3.0, 3.0]
    assert not p.data.requires_grad and (p.data * 2).__class__ is md.Tensor
    p.data = md.ones(2)
    with pytest.raises(ValueError, match="in-place"):
        p.data = md.ones(3)
    twin = copy.deepcopy(p.data)
    twin.zero_()
    assert pickle.loads(pickle.dumps(p.data)).tolist() == p.tolist() == [1.0, 1.0]

    @md.jit
    def step(g):
        p.data.sub_(g, alpha=0.5)
        p.data.clamp_(0.0, 1.0)
        return p.sum()

    assert [step(md.tensor([1.0, -1.0])).item() for _ in range(2)] == [1.5, 1.0] and p.tolist() == [0.0, 1.0]


def test_retain_grad_keeps_the_gradient_of_a_result():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    assert y.grad is None
    y.retain_grad()
    x.retain_grad()
    (y * y).sum().backward(retain_graph=True)
    assert y.grad.tolist() == [4.0, 8.0] and x.grad.tolist() == [8.0, 16.0]
    (y * y).sum().backward()
    assert y.grad.tolist() == [8.0, 16.0] and (y + 0).grad is None
    y.grad = None
    assert y.grad is None
    with pytest.raises(RuntimeError, match="does not require grad"):
        md.ones(2).retain_grad()


class Scaled(md.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        ctx.save_for_backward(x)
        return x * factor, x * x

    @staticmethod
    def backward(ctx, a, b):
        (x,) = ctx.saved_tensors
        assert ctx.needs_input_grad == (True, False)
        return a * ctx.factor * 10 + b * 2 * x, None


class Cube(md.autograd.Function):
    @staticmethod
    def forward(x):
        return x * x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


def test_function_is_pytorchs():
    x = md.tensor([1.0, 2.0], requires_grad=True)
    a, b = Scaled.apply(x, 3.0)
    (a + b).sum().backward()
    assert x.grad.tolist() == [32.0, 34.0]
    f = lambda x: Cube.apply(x).sum()
    assert md.jit(md.grad(f))(md.tensor([2.0])).tolist() == [12.0]
    assert md.hessian(f)(md.tensor([2.0])).tolist() == [[12.0]]
    assert md.vmap(md.grad(f))(md.tensor([[1.0], [2.0]])).tolist() == [[3.0], [12.0]]

    class Wrong(Cube):
        @staticmethod
        def backward(ctx, g):
            return g, g

    with pytest.raises(TypeError, match="Wrong: backward returned 2 gradients for 1 arguments"):
        Wrong.apply(x).sum().backward()


def test_function_that_asks_what_is_needed_has_gradients_everywhere():
    class Product(md.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            asked.append(ctx.needs_input_grad)
            return x * y

        @staticmethod
        def backward(ctx, g):
            return (g * 7.0 if ctx.needs_input_grad[0] else None), (g * 9.0 if ctx.needs_input_grad[1] else None)

    asked, x, one = [], md.ones(2), md.ones(2)
    f = lambda x: Product.apply(x, one)
    ways = {
        "itself": lambda x: f(x).sum(),
        "vmap": lambda x: md.vmap(lambda v: Product.apply(v, one[0]))(x).sum(),
        "map": lambda x: md.map(f, x[None]).sum(),
        "cond": lambda x: md.cond(x.sum() > 0.0, f, lambda x: x, x).sum(),
        "jit": md.jit(lambda x: f(x).sum()),
    }
    for name, way in ways.items():
        assert md.grad(way)(x).tolist() == md.jit(md.grad(way))(x).tolist() == [7.0, 7.0], name
    asked.clear()
    Product.apply(x.requires_grad_(), one)
    assert asked == [(True, False)]


@pytest.mark.cpu
def test_multinomial_does_not_draw_what_has_no_weight():
    for weights, n, again in (([[0.5, 0.5], [0.0, 1.0]], 2, False), ([0.0, 0.0], 1, True), ([float("nan"), 0.0], 1, False)):
        with pytest.raises(ValueError, match="multinomial: a row has fewer weights above 0 than the"):
            md.multinomial(md.tensor(weights), n, again)
    draw = md.jit(lambda w: w.multinomial(2))
    with md.out_of_bounds("raise-later"), pytest.raises(ValueError, match="than the 2 that are wanted"):
        draw(md.tensor([0.0, 1.0, 0.0])).numpy()
    assert sorted(draw(md.tensor([1.0, 0.0, 1.0])).tolist()) == [0, 2]


@pytest.mark.cpu
def test_a_hook_is_removed_once_and_leaves_no_garbage():
    x = md.ones(2, requires_grad=True)
    seen = []
    first, second = x.register_hook(seen.append), x.register_hook(seen.append)
    first.remove()
    first()
    (x * x).sum().backward()
    assert len(seen) == 1
    second()
    (x * x).sum().backward()
    assert len(seen) == 1
    gc.collect()
    x.register_hook(seen.append).remove()
    (x * 2).register_hook(seen.append)
    assert gc.collect() == 0


def test_functional_derivatives_are_values():
    x = md.ones(2, requires_grad=True)
    of = md.autograd.functional
    for found in (of.vjp(lambda x: (x * x).sum(), x), of.jvp(lambda x: x * x, x, md.ones(2)), (of.jacobian(lambda x: x * x, x),)):
        assert not any(v.requires_grad for v in found) and x.grad is None


def test_draws_come_from_the_seed():
    def draw():
        md.manual_seed(0)
        x = md.zeros(500)
        return [
            md.rand(500), md.randn(2, 250), md.randint(3, (500,)), md.randint(5, 8, (500,)), md.randperm(500), md.rand_like(x), md.randn_like(x),
            md.randint_like(x, 2), md.normal(3.0, 0.1, (500,)), md.normal(x, 1.0), md.bernoulli(x + 0.5), x.clone().uniform_(2, 3),
            x.clone().normal_(1, 0.01), x.clone().bernoulli_(0.5), x.clone().exponential_(2.0), x.clone().random_(4),
            md.tensor([[0.0, 1.0, 3.0]]).multinomial(500, replacement=True), md.tensor([1.0, 1.0, 1.0]).multinomial(3),
        ]  # fmt: skip

    one, two = draw(), draw()
    assert all(a.tolist() == b.tolist() for a, b in zip(one, two, strict=True))
    means = [0.5, 0, 1, 6, 249.5, 0.5, 0, 0.5, 3, 0, 0.5, 2.5, 1, 0.5, 0.5, 1.5, 1.75, 1]
    assert all(abs(a.float().mean().item() - m) < 0.15 for a, m in zip(one, means, strict=True))
    assert sorted(one[4].tolist()) == list(range(500)) and sorted(one[-1].tolist()) == [0, 1, 2]
    assert one[16].shape == (1, 500) and one[3].dtype is md.int64 and one[7].dtype is md.float32
    g = md.Generator(3)
    assert md.rand(2, generator=g).tolist() == md.rand(2, generator=md.Generator(3)).tolist()
    assert md.rand(2, requires_grad=True).requires_grad and md.ones(2, requires_grad=True).requires_grad
    assert md.jit(lambda: md.zeros(2, requires_grad=True).requires_grad * 1)() == 1
    with pytest.raises(ValueError, match="multinomial: 3 of 2"):
        md.ones(2).multinomial(3)


def test_programs_call_these(tmp_path):
    path = str(tmp_path / "state.pt")
    net = md.nn.Linear(2, 3)
    opt = md.optim.Adam(net.parameters())
    net(md.ones(2)).sum().backward()
    opt.step()
    md.save({"model": net.state_dict(), "optimizer": opt.state_dict(), "epoch": 2}, path)
    read = md.load(path, map_location=md.device("cpu"))
    opt.load_state_dict(read["optimizer"])
    assert net.load_state_dict(read["model"]) and read["epoch"] == 2
    assert md.load(path, weights_only=False)["epoch"] == 2  # there is nothing else in such a file
    assert md.autograd.functional.hessian(lambda x: (x**3).sum(), md.tensor([2.0])).tolist() == [[12.0]]
    assert md.autograd.functional.vjp(lambda x: x * x, md.tensor([3.0]))[1].tolist() == [6.0]
    assert md.autograd.functional.jvp(lambda x: x * x, md.tensor([3.0]), md.tensor([1.0]))[1].tolist() == [6.0]
    handle = md.tensor([1.0], requires_grad=True).register_hook(lambda g: None)
    handle.remove()
    assert md.cuda.device_count() >= 0 and md.is_tensor(md.ones(1)) and md.is_floating_point(md.ones(1)) and not md.is_complex(md.ones(1))
    x = md.ones(1, requires_grad=True)
    y = (x * 2).detach_()
    assert not y.requires_grad and md.long is md.int64 and md.allclose(md.ones(2), md.ones(2)) is True
    with md.set_grad_enabled(False), md.inference_mode():
        assert not (x * 2).requires_grad


def test_set_grad_enabled_is_a_statement_a_block_and_a_decorator():
    x = md.ones(1, requires_grad=True)

    @md.set_grad_enabled(False)
    def plain(x):
        return x * 2

    assert md.is_grad_enabled() and not plain(x).requires_grad and (x * 2).requires_grad
    with md.set_grad_enabled(False):
        assert not (x * 2).requires_grad and not md.jit(lambda x: x * 2)(x).requires_grad
        with md.set_grad_enabled(True):
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    def elsewhere():  # in a thread of its own, whose state ends with it
        md.set_grad_enabled(False)
        off = (x * 2).requires_grad
        with md.enable_grad():
            inside = (x * 2).requires_grad
        still = (x * 2).requires_grad
        md.autograd.set_grad_enabled(True)
        return off, inside, still, (x * 2).requires_grad

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == (False, True, False, True)
    assert (x * 2).requires_grad


def test_a_statement_in_a_block_ends_with_it():
    from minidl.context import busy

    x = md.ones(1, requires_grad=True)

    def tracked():
        return md.is_grad_enabled(), (x * 2).requires_grad

    before = busy[0]
    with md.no_grad():
        md.set_grad_enabled(False)
    assert tracked() == (True, True) and busy[0] == before  # nothing is left that looks
    md.set_grad_enabled(False)
    with md.enable_grad():
        md.set_grad_enabled(True)
    now = tracked()

    def loss(x):
        md.set_grad_enabled(True)
        return (x * x).sum()

    md.grad(loss)(md.ones(1))
    then = tracked()
    md.set_grad_enabled(True)
    assert now == then == (False, False) and tracked() == (True, True) and busy[0] == before

    @md.jit
    def step(x):
        md.set_grad_enabled(False)
        return x * 2

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"left md.set_grad_enabled\(False\) behind"):
            step(x)
        assert tracked() == (True, True) and busy[0] == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: md.sparse_coo_tensor, AttributeError, "module 'minidl' has no attribute 'sparse_coo_tensor'; there are no sparse tensors"),
        (lambda x: x.max(0).indices, AttributeError, r"no attribute 'indices'.*x.max\(dim=1\).indices"),
        (lambda x: md.conv2d, AttributeError, "md.nn.functional.conv2d"),
        (lambda x: md.nothing_of_the_kind, AttributeError, "module 'minidl' has no attribute 'nothing_of_the_kind'$"),
        (lambda x: x.data_ptr(), AttributeError, "'Tensor' object has no attribute 'data_ptr'; there are no views"),
        (lambda x: x.nothing_of_the_kind, AttributeError, "'Tensor' object has no attribute 'nothing_of_the_kind'$"),
        (lambda x: md.autograd.detect_anomaly, AttributeError, "md.testing.check_grad finds"),
        (lambda x: x.gather(md.tensor([0]), 1), TypeError, "gather: dim must be an integer"),
        (lambda x: x.gather(1, md.tensor([0])), ValueError, "gather: index has 1 axes and input 2"),
        (lambda x: x.scatter(2, md.tensor([[0]]), 1.0), IndexError, "scatter: dim 2 is out of range"),
        (lambda x: x.scatter_add(0, md.zeros((3, 3), dtype=md.int64), x), ValueError, "scatter_add: src of shape"),
        (lambda x: x.masked_fill(x, 0.0), TypeError, "masked_fill: the mask must be bool, not float32"),
        (lambda x: md.tensor([1]).masked_fill(md.tensor([True]), 0.5), TypeError, "would be cut"),
        (lambda x: md.mm(x, md.ones(2)), ValueError, "mm: two matrices"),
        (lambda x: x.kthvalue(9), ValueError, "k must be from 1 to 2"),
        (lambda x: x.unfold(0, 5, 1), ValueError, "unfold: windows of 5 elements"),
        (lambda x: md.div(x, 2, rounding_mode="up"), ValueError, "rounding_mode must be"),
        (lambda x: md.jit(lambda x: x.unique(dim=0))(x), TypeError, "unique: .*the number of different slices"),
        (lambda x: x.unique(dim=2), IndexError, "unique: dim 2 is out of range"),
        (lambda x: md.zeros(2, foo=1), TypeError, "zeros: got an unexpected keyword argument 'foo'"),
        (lambda x: md.randint(0, 3, 4), TypeError, "size must be a tuple"),
        (lambda x: x.t().expand(5, 2, 3), (ValueError, RuntimeError), "broadcast"),
    ],
)
def test_messages_say_what_there_is(call, error, message):
    with pytest.raises(error, match=message):
        call(md.ones(2, 2))


def test_size_is_a_number_that_can_be_called():
    x = md.ones(2, 3)
    assert x.size == 6 and isinstance(x.size, int) and x.size() == (2, 3) and x.size(-1) == 3 and repr(x.size) == "6"
    assert md.jit(lambda x: x.sum() / x.size + md.zeros(x.size(0)).sum())(x).item() == 1.0
    assert md.ones(x.size).reshape(x.size, 1).shape == (6, 1) and pickle.loads(pickle.dumps(x.size)) == 6
    assert (x.sum() / x.size).item() == 1.0 and (x.size / x).tolist() == [[6.0] * 3] * 2 and md.jit(lambda x: x * x.size)(x)[0, 0].item() == 6.0
    with pytest.raises(IndexError):
        x.size(2)


def test_importing_minidl_does_not_load_them():
    code = "import sys, minidl as md; x = md.ones(2) * 2; assert 'minidl.idioms' not in sys.modules; x.mul(2); assert 'minidl.idioms' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_method_has_its_place_on_tensor_before_the_room_is_loaded():
    code = """
import sys
import minidl as md
from minidl.ops.methods import Awaited
waiting = {n for n, v in vars(md.Tensor).items() if isinstance(v, Awaited)}
assert "minidl.idioms" not in sys.modules and not hasattr(md.Tensor, "__getattr__")
x = md.ones(2, requires_grad=True)
x.data = md.zeros(2)
assert x.tolist() == [0.0, 0.0] and x.requires_grad and "minidl.idioms" in sys.modules
left = {n for n, v in vars(md.Tensor).items() if isinstance(v, Awaited)}
assert left == set(md.idioms.ABSENT["Tensor"]) and waiting - left == md.idioms.METHODS, (left, waiting ^ md.idioms.METHODS)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_is_said_of_absent_names_is_there():
    from minidl.idioms.absent import ABSENT

    for texts in ABSENT.values():
        for text in texts.values():
            for way in re.findall(r"\bmd(?:\.\w+)+", text):
                functools.reduce(getattr, way.split(".")[1:], md)
            assert all(hasattr(md.ones(1), way) for way in re.findall(r"\bx\.(\w+)", text))


def test_public_functions_are_pickled_by_name():
    rooms = (md, md.nn.functional, md.random, md.linalg, md.fft)
    named = [(room, n) for room in rooms for n in room.__all__] + [(md, n) for n in md.idioms.NAMES["md"]]
    for room, name in named:
        f = getattr(room, name)
        if callable(f) and not isinstance(f, type) and not name.startswith("empty"):  # which is another name of zeros
            assert pickle.loads(pickle.dumps(f)) is f, name
    assert pickle.loads(pickle.dumps(md.Tensor.masked_fill_)) is md.Tensor.masked_fill_
    assert pickle.loads(pickle.dumps(md.nn.TransformerEncoderLayer(4, 2, 8, activation=md.nn.functional.gelu))).activation is md.nn.functional.gelu


def test_retain_grad_counts_once_and_leaves_nothing_behind():
    from minidl.tensors import kept

    x = md.ones(3, requires_grad=True)
    before = dict(kept)

    def loss():
        y = x * 2
        y.retain_grad()
        return (y * y).sum()

    loss().backward()  # y is gone by now
    gc.collect()
    assert kept == before
    y = x * 2
    y.retain_grad()
    y.retain_grad()
    for want in (4.0, 8.0):
        (y * y).sum().backward(retain_graph=True)
        assert y.grad.tolist() == [want] * 3
    y.grad = None
    assert y.grad is None
    (y * y).sum().backward()
    assert y.grad.tolist() == [4.0] * 3


def test_what_retain_grad_keeps_has_been_through_all_hooks():
    kept = []
    for lib in (md, torch):
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        y = x * 2
        y.register_hook(lambda g: g + 1)
        y.retain_grad()
        y.register_hook(lambda g: g * 10)
        (y * y).sum().backward()
        kept.append((x.grad.tolist(), y.grad.tolist()))
    assert kept[0] == kept[1] == ([100.0, 180.0], [50.0, 90.0])


def test_a_write_to_data_goes_on_from_what_its_tensor_is(backend):
    w = md.tensor([1.0, 2.0], requires_grad=True)
    d, e = w.data, w.data
    d.add_(1.0)
    e.mul_(2.0)
    d[0] = 5.0
    assert w.tolist() == [5.0, 6.0]
    md.jit(lambda: w.data.mul_(2.0).sum())()
    d += 1.0
    assert w.tolist() == d.tolist() == [11.0, 13.0] and w.is_leaf and w.requires_grad
    md.jit(lambda: (d.sub_(1.0), e.mul_(2.0))[1].sum())()
    assert w.tolist() == [20.0, 24.0]
    assert md.vmap(lambda a: (a.data.add_(1.0).mul_(3.0), a)[1])(md.ones(2)).tolist() == [6.0, 6.0]


def test_backward_of_a_function_may_give_none_for_arguments_that_were_left_out():
    class Scaled(md.autograd.Function):
        more = ()

        @staticmethod
        def forward(ctx, x, by=3.0, unused=None):
            ctx.by = by
            return x * by

        @staticmethod
        def backward(ctx, g):
            return (g * ctx.by, *Scaled.more)

    x = md.tensor([1.0, 2.0])
    for Scaled.more in ((None, None), (None,), ()):
        for wrap in (lambda f: f, md.jit):
            assert wrap(md.grad(lambda x: Scaled.apply(x).sum()))(x).tolist() == [3.0, 3.0]
    Scaled.more = (None, x)
    with pytest.raises(TypeError, match="backward returned 3 gradients for 1 arguments"):
        md.grad(lambda x: Scaled.apply(x).sum())(x)


def test_two_words_for_one_argument_are_an_error():
    x = md.ones((2, 3))
    for call in (lambda: md.sum(x, dim=1, axis=0), lambda: x.sum(dim=1, axis=0), lambda: md.std(x, unbiased=False, correction=1),
                 lambda: md.std(x, dim=0, axis=1), lambda: md.cumsum(x, dim=1, axis=0), lambda: md.amax(x, dim=1, axis=0)):  # fmt: skip
        with pytest.raises(TypeError, match="two words for one argument"):
            call()


def test_size_names_itself_and_cotangents_are_always_tensors():
    with pytest.raises(IndexError, match=r"size: axis 2 is out of range for 2 dimensions"):
        md.ones(2, 3).size(2)
    assert md.ones(2, 3).size(-1) == 3

    class Lean(md.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 1.0, x * 2.0

        @staticmethod
        def backward(ctx, g, unread):
            return g * 5.0 + unread

    for f in (Lean.apply, md.jit(Lean.apply)):
        x = md.ones(2, requires_grad=True)
        f(x)[0].sum().backward()
        assert x.grad.tolist() == [5.0, 5.0]


@pytest.mark.parametrize("name, way", [("onnx", "md.deploy.export_onnx"), ("ao", "md.quantize"), ("fx", "md.trace"), ("profiler", "md.profile")])
def test_a_room_of_torchs_that_is_not_here_names_what_is(name, way):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; {way}"):
        getattr(md, name)
