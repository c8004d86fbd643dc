"""No policy lets torch see an index that is out of range, on which a GPU would assert: every index of every call of a program is looked at.

Checked on the CPU, by a dispatch mode that sees each call of torch and its indices, whatever the call would do with them. Two fast paths are for the
CPU alone, where torch raises and the kernel then takes the other path: float16, which they do not take, takes the accelerator's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import minidl as md  # noqa: E402
from minidl.arrays.composites import on_torch as torch_composites  # noqa: E402
from minidl.backends import torch_kernels  # noqa: E402

F = md.nn.functional


class Watch(TorchDispatchMode):
    """Says which calls of torch had an index, and fails for one that is out of range."""

    #: calls (and with an underscore those in place) of an array, the axis and the index
    ALONG = frozenset("index_select gather scatter scatter_add scatter_reduce index_add index_copy index_fill".split())
    LISTS = ("index", "index_put", "index_put_", "_index_put_impl_")
    REFUSED = ("embedding", "embedding_dense_backward", "nll_loss_forward", "nll_loss2d_forward", "one_hot", "_embedding_bag")

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    def look(self, name: str, index: torch.Tensor, size: int) -> None:
        self.seen[name] = self.seen.get(name, 0) + 1
        if index.numel():
            assert 0 <= int(index.min()) and int(index.max()) < size, f"{name}: {index.tolist()} for {size} places"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        assert name not in self.REFUSED, f"a call that this test does not look into: {name}"
        if name.removesuffix("_") in self.ALONG:
            self.look(name, args[2], args[0].shape[args[1]] if args[0].ndim else 1)
        if name in ("take", "put", "put_"):
            self.look(name, args[1], args[0].numel())
        if name in self.LISTS:
            for axis, index in enumerate(args[1]):
                if index is not None and index.dtype is not torch.bool:
                    self.look(name, index, args[0].shape[axis])
        return func(*args, **(kwargs or {}))


def segments(mode: str) -> Callable[..., Any]:
    return lambda x, u, i, j: getattr(md.zeros_like(x).at[i], mode)(u)


#: f(x [5, 4], u [6, 4], i [6], j [6, 4]), and whether the gradient in x is wanted.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "x[i]": lambda x, u, i, j: x[i],
    "x[i, j]": lambda x, u, i, j: x[i, j[:, 0]],
    "x[:, i]": lambda x, u, i, j: x[:, i],
    "x[i, 1:3]": lambda x, u, i, j: x[i, 1:3],
    "x[i0]": lambda x, u, i, j: x[i[0]],
    "at get": lambda x, u, i, j: x.at[j].get(),
    "take": lambda x, u, i, j: md.take(x, i, axis=1),
    "take fill": lambda x, u, i, j: md.where(md.isnan(y := md.take(x, i, axis=0, mode="fill")), 0.0, y),
    "take_along_axis": lambda x, u, i, j: md.take_along_axis(x, j[:, :4], axis=0),
    "at set": lambda x, u, i, j: x.at[i].set(u),
    "at set, two axes": lambda x, u, i, j: x.at[i, j[:, 0]].set(u[:, 0]),
    "at add": lambda x, u, i, j: x.at[i].add(u),
    "at multiply": lambda x, u, i, j: x.at[i].multiply(u),
    "at max": lambda x, u, i, j: x.at[i].max(u),
    "at min": lambda x, u, i, j: x.at[i].min(u),
    "x[i] = u": lambda x, u, i, j: md.set_at(x, (slice(None), i), u[:5, :1]),
    "segments": segments("add"),
    "embedding": lambda x, u, i, j: F.embedding(j, x),
    "embedding with padding": lambda x, u, i, j: F.embedding(i, x, padding_idx=1),
    "embedding_bag": lambda x, u, i, j: F.embedding_bag(j, x),
    "cross_entropy": lambda x, u, i, j: F.cross_entropy(u, i),
    "cross_entropy of columns": lambda x, u, i, j: F.cross_entropy(u[None], j[:1], reduction="sum"),
    "cross_entropy, weighted and smooth": lambda x, u, i, j: F.cross_entropy(u, i, weight=md.ones((4,), dtype=u.dtype), label_smoothing=0.1),
    "nll_loss": lambda x, u, i, j: F.nll_loss(u, i),
    "one_hot": lambda x, u, i, j: F.one_hot(i, 4).to(x.dtype) * u,
}


def data(seed: int, dtype: str, batch: tuple[int, ...] = ()) -> list[Any]:
    rng = np.random.default_rng(seed)
    x, u = (md.asarray(rng.standard_normal((*batch, *s)), dtype=dtype) for s in ((5, 4), (6, 4)))
    i, j = (rng.integers(-12, 13, (*batch, *s)) for s in ((6,), (6, 4)))
    for k in (i, j):
        k.reshape(-1)[rng.integers(0, k.size, 2)] = (2**40, -(2**62))
    return [x, u, md.asarray(i), md.asarray(j)]


def with_gradient(x: Any, u: Any, i: Any, j: Any) -> list[Any]:
    """Every function, and the gradient of the sum of all, that of each one among them."""

    def total(x: Any, u: Any) -> Any:
        return sum(md.sum(md.real(f(x, u, i, j)).to(md.float32) * 0.5) for f in FUNCTIONS.values())

    return [*(f(x, u, i, j) for f in FUNCTIONS.values()), *md.grad(total, argnums=(0, 1))(x, u)]


PROGRAMS = {
    "jit": (lambda: md.jit(with_gradient), ()),
    "jit of vmap": (lambda: md.jit(md.vmap(with_gradient)), (2,)),
    "vmap": (lambda: md.vmap(with_gradient), (2,)),
}


@pytest.mark.parametrize("policy", ["clip", "fill", "raise-later"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_index_out_of_range_reaches_torch(program, policy, monkeypatch):
    for module in (torch_kernels, torch_composites):
        monkeypatch.setattr(module, "unseen", lambda x: True)  # as on CUDA, nothing is tried that could raise
    make, batch = PROGRAMS[program]
    with md.use_backend("torch"), md.out_of_bounds(policy):
        run = make()
        for seed in range(3):
            args = data(seed, "float16", batch)
            with Watch() as watch:
                out = run(*args)
            assert {"index_select", "index_add_", "scatter_reduce_"} <= set(watch.seen), watch.seen
            if policy == "raise-later":
                with pytest.raises(IndexError, match="out of bounds|classes"):
                    out[0].numpy()
            assert len(out) == len(FUNCTIONS) + 2


def test_the_watch_sees_an_index_that_is_out_of_range():
    for call in (
        lambda t, i: torch.index_select(t, 0, i), lambda t, i: torch.gather(t, 0, i), lambda t, i: t.scatter_add_(0, i, t),
        lambda t, i: t[i], lambda t, i: torch.take(t, i), lambda t, i: t.index_copy_(0, i, t),
    ):  # fmt: skip
        with pytest.raises(AssertionError, match=r"for 3 places"), Watch():
            call(torch.zeros(3), torch.tensor([0, 1, -1]))


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_inductor_sees_none_either():
    """Its kernels check indices on the CPU and raise."""
    names = ["x[i]", "take_along_axis", "at add", "at set", "at max", "embedding", "cross_entropy", "one_hot"]

    def f(x: Any, u: Any, i: Any, j: Any) -> list[Any]:
        def total(x: Any, u: Any) -> Any:
            return sum(md.sum(FUNCTIONS[n](x, u, i, j)) for n in names)

        return [*(FUNCTIONS[n](x, u, i, j) for n in names), *md.grad(total, argnums=(0, 1))(x, u)]

    with md.use_backend("torch"):
        run, plain = md.jit(f, mode="inductor"), md.jit(f)
        for seed in range(2):
            args = data(seed, "float32")
            for a, b in zip(run(*args), plain(*args), strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
