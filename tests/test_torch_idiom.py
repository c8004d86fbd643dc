"""minidl.idioms.torch: what md's names mean otherwise is PyTorch's there, and all else is md's."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.idioms import torch as mine

torch = pytest.importorskip("torch")


def gaps(T, x):
    """x with nan in the places of its threes and of one more."""
    return T.where((x == 3) | (x == 5), T.nan, x)


X = np.array([[3.0, 1.0, 3.0, 0.0], [2.0, 5.0, 4.0, 2.0]])
CALLS = {
    "max": lambda T, x: [T.max(x), *T.max(x, 1), *T.max(x, 0, keepdim=True), *T.max(x, dim=1), T.max(x, x * 0 + 2)],
    "min": lambda T, x: [T.min(x), *T.min(x, 1), *T.min(x, -1, True), T.min(x, x * 0 + 2)],
    "median": lambda T, x: [T.median(x), *T.median(x, 0), T.median(x, dim=1, keepdim=True).values],
    "sort": lambda T, x: [*T.sort(x, descending=True, stable=True), *T.sort(x, 0), *T.sort(x[0, 0]), T.sort(x, stable=True).indices],
    "std": lambda T, x: [T.std(x), T.std(x, 1), T.std(x, False), T.std(x, (0, 1), keepdim=True), T.std(x, 0, False), T.std(x, dim=1, correction=0)],
    "var": lambda T, x: [T.var(x), T.var(x, dim=1, unbiased=False), T.var(x, [0, 1])],
    "nonzero": lambda T, x: [T.nonzero(x > 2), *T.nonzero(x > 2, as_tuple=True), T.nonzero(x[0, 0])],
    "meshgrid": lambda T, x: [*T.meshgrid(x[0], x[1, :3], indexing="ij"), *T.meshgrid([x[0], x[1, :3]], indexing="xy")],
    "take": lambda T, x: [T.take(x, T.tensor([[0, 5], [-1, 2]]))],
    "trace": lambda T, x: [T.trace(x[:, :2])],
    "nanmedian": lambda T, x: [T.nanmedian(gaps(T, x)), *T.nanmedian(gaps(T, x), 1), *T.nanmedian(gaps(T, x), dim=0, keepdim=True)],
    "argsort": lambda T, x: [T.argsort(x[0, 1:], 0, True), T.argsort(x[1, :3]), T.argsort(x, dim=1, descending=True, stable=True)],
    "squeeze": lambda T, x: [T.squeeze(x, 1), T.squeeze(x[:, :1], 1), T.squeeze(x[:1], (0, 1)), T.squeeze(x[:1]), T.squeeze(x[0, 0], 0)],
    "squeeze(dim=)": lambda T, x: [x.squeeze(dim=1), x[:, :1].squeeze(dim=1), x[:1].squeeze(dim=(0, -1)), x[0, 0].squeeze(dim=-1)],
    "spreads": lambda T, x: [*T.std_mean(x, False), *T.var_mean(x, 1, True, True), *T.std_mean(x, 0, keepdim=True)],
    "words": lambda T, x: [T.max(x, axis=1)[0], T.min(x, other=x * 0 + 2), T.std(x, axis=1, keepdims=True), T.median(input=x)],
    "positions": lambda T, x: [
        T.diagonal(x.reshape(2, 2, 2), 0, 1, 2), T.diff(x, 2), T.diff(x, 1, 0), T.diff(x > 2), T.tensordot(x, x.mT, 1), T.polygamma(0, x + 1),
    ],
    "alpha, decimals": lambda T, x: [T.add(x, x, alpha=2), T.sub(x, 1, alpha=0.5), T.round(x / 7, decimals=2), T.round(x * 70, decimals=-1)],
    "md's own": lambda T, x: [T.cat([x, x], dim=1), T.nn.functional.relu(x), T.randn(2).sum() * 0 + x.sum(), T.zeros(2, dtype=T.float), T.arange(3)],
}  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", CALLS)
def test_functions_mean_what_torchs_do(name, backend):
    f = CALLS[name]
    with md.use_backend(backend):
        runs = [f(mine, mine.tensor(X))]
        if name not in ("nonzero", "md's own"):
            runs.append(md.jit(lambda x: f(mine, x))(mine.tensor(X)))
        for found in runs:
            for a, b in zip(found, f(torch, torch.tensor(X)), strict=True):
                assert a.shape == tuple(b.shape) and a.numpy().dtype == b.numpy().dtype
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_equal_is_one_bool():
    x = mine.tensor(X)
    assert mine.equal(x, x + 0) is True and mine.equal(x, x[:1]) is False and mine.equal(x, x + 1) is False
    assert not mine.equal(mine.tensor([mine.nan]), mine.tensor([mine.nan]))


def test_gradients_and_names():
    x = mine.tensor(X, requires_grad=True)
    y = torch.tensor(X, requires_grad=True)
    for T, v in ((mine, x), (torch, y)):
        (T.std(v) * T.sort(v, dim=1, descending=True, stable=True)[0][:, 0].sum() + T.take(v, T.tensor([5]))).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-12)
    assert mine.nn is md.nn and mine.Tensor is md.Tensor and {"sort", "cat", "nn", "randn"} <= set(dir(mine))
    with pytest.raises(AttributeError, match=r"md\.jit"):
        _ = mine.compile
