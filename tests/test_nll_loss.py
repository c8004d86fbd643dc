"""nll_loss against its definition: of many scores it gathers, where the targets can be seen; elsewhere it compares."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.nn import functional as F

BACKENDS = [name for name, usable in md.backends().items() if usable is True]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("shape", "reduction"), [((300, 60), "mean"), ((4, 40, 11, 10), "sum"), ((300, 60), "none"), ((2**14,), "mean"), ((5, 9), "mean")]
)
def test_the_definition(backend, weighted, shape, reduction):
    rng = np.random.default_rng(0)
    lead, classes = ((), shape[0]) if len(shape) == 1 else ((shape[0], *shape[2:]), shape[1])
    table, weights, targets = rng.normal(size=(*lead, classes)), rng.uniform(0.5, 1.5, classes), rng.integers(3, classes, lead)
    table[..., 2], weights[1] = -np.inf, np.inf  # of which no target knows
    scale = weights[targets] if weighted else np.ones(lead)
    scores = np.take_along_axis(table, targets[..., None], -1)[..., 0]
    total = scale.sum() if reduction == "mean" else 1.0
    slope, by_weight = np.zeros(table.shape), np.zeros(classes)
    np.put_along_axis(slope, targets[..., None], -scale[..., None] / total, -1)
    want = -scores * scale
    want = want if reduction == "none" else want.sum() / total
    np.add.at(by_weight, targets, -(scores + (want if reduction == "mean" else 0.0)) / total)

    def loss(x, w, t):
        return F.nll_loss(md.moveaxis(x, -1, min(1, x.ndim - 1)), t, w if weighted else None, reduction=reduction)

    with md.use_backend(backend):
        given = md.asarray(table), md.asarray(weights), md.asarray(targets)
        for run in (lambda f: f, md.jit):  # under jit the targets cannot be seen
            np.testing.assert_allclose(run(loss)(*given).numpy(), want, rtol=1e-12)
            found = run(md.grad(lambda x, w, t: loss(x, w, t).sum(), argnums=(0, 1)))(*given)
            np.testing.assert_allclose(found[0].numpy(), slope, rtol=1e-12)
            np.testing.assert_allclose(found[1].numpy(), by_weight if weighted else np.zeros(classes), rtol=1e-9, atol=1e-12)


@pytest.mark.cpu
def test_a_class_that_is_hidden_or_missing_goes_the_other_way():
    scores = np.random.default_rng(1).normal(size=(300, 60))
    targets = np.arange(300) % 60
    x = md.asarray(scores)
    for hidden in (-100, 7):
        some = md.asarray(np.where(targets == 3, hidden, targets))
        counts = targets != 3 if hidden < 0 else (targets != 3) & (targets != 7)
        want = -scores[np.arange(300), targets][counts].mean()
        np.testing.assert_allclose(F.nll_loss(x, some, ignore_index=hidden).numpy(), want, rtol=1e-12)
    with pytest.raises(IndexError, match="class 60"):
        F.nll_loss(x, md.asarray(targets + 1))
