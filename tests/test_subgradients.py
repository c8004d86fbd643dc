"""At ties and kinks of a convex function the gradient is a subgradient: f(y) >= f(x) + <g, y - x> for every y.

The table of minidl/testing/kinks.py says which one; this says of all of them, whatever the table holds, that none lies outside. Points are drawn
from a few numbers, so that ties, zeros of both signs and bounds are met all the time.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md
import minidl.nn.functional as F

CONVEX = {
    "max": lambda x: md.max(x), "max along an axis": lambda x: md.max(x.reshape(2, 3), axis=1).sum(),
    "maximum": lambda x: md.maximum(x[:3], x[3:]).sum(), "minus minimum": lambda x: -md.minimum(x[:3], x[3:]).sum(),
    "minus min": lambda x: -md.min(x), "fmax": lambda x: md.fmax(x[:3], x[3:]).sum(), "abs": lambda x: md.abs(x).sum(),
    "relu": lambda x: F.relu(x).sum(), "leaky relu": lambda x: F.leaky_relu(x, 0.1).sum(), "hinge": lambda x: F.relu(1.0 - x).sum(),
    "clip below": lambda x: md.clip(x, min=0.5).sum(), "minus clip above": lambda x: -md.clip(x, max=0.5).sum(),
    "one norm": lambda x: md.linalg.vector_norm(x, ord=1), "two norm": lambda x: md.linalg.vector_norm(x),
    "largest norm": lambda x: md.linalg.vector_norm(x, ord=float("inf")),
    "norm of rows": lambda x: md.linalg.vector_norm(x.reshape(3, 2), axis=1).sum(), "hypot": lambda x: md.hypot(x[:3], x[3:]).sum(),
    "logsumexp": lambda x: md.logsumexp(x), "logaddexp": lambda x: md.logaddexp(x[:3], x[3:]).sum(), "softplus": lambda x: F.softplus(x).sum(),
    "huber": lambda x: F.huber_loss(x, md.zeros_like(x), reduction="sum"),
    "smooth l1": lambda x: F.smooth_l1_loss(x, md.zeros_like(x), reduction="sum"), "l1 loss": lambda x: F.l1_loss(x, 0.5 * md.ones_like(x)),
    "max pool": lambda x: F.max_pool1d(x.reshape(1, 1, 6), 3, 1).sum(), "running maximum": lambda x: md.cumulative_max(x).sum(),
    "two largest": lambda x: md.topk(x, 2)[0].sum(), "largest two by sort": lambda x: md.sort(x)[-2:].sum(), "square": lambda x: (x * x).sum(),
    "cross-entropy": lambda x: F.cross_entropy(x.reshape(2, 3), md.tensor([0, 2])), "hardtanh's sides": lambda x: F.relu(md.abs(x) - 1.0).sum(),
    "prelu": lambda x: F.prelu(x, md.full((1,), 0.25, dtype=x.dtype)).sum(),
    "multi margin": lambda x: F.multi_margin_loss(x.reshape(2, 3), md.tensor([0, 2])),
    "amax of a matrix": lambda x: md.max(x.reshape(2, 3), axis=(0, 1)), "matrix norm": lambda x: md.linalg.matrix_norm(x.reshape(2, 3), ord=1),
}  # fmt: skip
LEVELS = (-1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def programs():
    """name, backend, mode → the function that gives value and gradient at each of several points."""
    made = {}

    def get(name, backend, mode):
        if (name, backend, mode) not in made:
            f = md.vmap(md.value_and_grad(CONVEX[name]))
            made[name, backend, mode] = md.jit(f) if mode == "jit" else f
        return made[name, backend, mode]

    return get


def above(points, f, g, ys, at):
    """For each point x and each y, whether the plane of value f and slope g at x lies above the function's value at y."""
    short = f[:, None] + np.einsum("xi,xyi->xy", g, ys[None] - points[:, None]) - at[None]
    return short > 1e-12 * (1 + np.abs(at[None]) + np.abs(f[:, None]))


@pytest.mark.parametrize("name", CONVEX)
def test_gradients_of_convex_functions_are_subgradients(name, backend, programs):
    @settings(deadline=None, max_examples=min(settings.default.max_examples, 8))
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        rng = np.random.default_rng(seed)
        points = rng.choice(rng.choice(LEVELS, 3), (32, 6))  # three levels for six numbers: always ties
        for mode in ("eager", "jit") if backend in ("numpy", "torch") else ("jit",):
            with md.use_backend(backend):
                f, g = (v.numpy() for v in programs(name, backend, mode)(md.tensor(points)))
            # every point is tried as y for every point as x, and a step to each side of it
            ys = np.concatenate([points, points + 1e-3 * rng.normal(size=points.shape), 4 * rng.normal(size=points.shape)])
            at = md.vmap(CONVEX[name])(md.tensor(ys)).numpy()
            bad = above(points, f, g, ys, at)
            assert not bad.any(), f"{name} on {backend}, {mode}: at {points[bad.any(1)][0]} the gradient {g[bad.any(1)][0]} is no subgradient"

    check()


@pytest.mark.parametrize("shares", [1.0, 0.4])
def test_the_property_rejects_a_wrong_choice(shares):
    """A full share for each of those that tie, as PyTensor and MyGrad have it, and shares that add up to less than one."""
    tie, ys = np.zeros((1, 2)), np.array([[1.0, 1.0], [-1.0, -1.0]])
    f, g = (v.numpy() for v in md.vmap(md.value_and_grad(md.max))(md.tensor(tie)))
    assert not above(tie, f, g, ys, ys.max(1)).any()
    assert above(tie, f, np.full((1, 2), shares), ys, ys.max(1)).any()


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_shares_add_to_one_where_both_operands_are_infinite(backend, mode):
    """Of two that are -inf, log(exp + exp) gives none a share: a row that is masked as a whole trains (minidl/testing/kinks.py)."""
    with md.use_backend(backend):
        for f, end in ((md.logaddexp, np.inf), (md.maximum, np.inf), (md.maximum, -np.inf), (md.minimum, np.inf)):
            grad = md.grad(f, argnums=(0, 1))
            a, b = (md.jit(grad) if mode == "jit" else grad)(md.tensor(end), md.tensor(end))
            assert a.item() + b.item() == 1.0 and 0 <= a.item() <= 1
