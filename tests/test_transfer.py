"""No primitive leaves its backend: nothing is copied to NumPy on the way, which a patched `to_numpy` and jax's own transfer guard show.

The one reading that array functions do above the primitives is the bounds check of a user's indices, eager on the CPU (it raises IndexError).
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import minidl as md
from minidl.backends import get
from minidl.tensors import ns


def step(x, w):
    """Families of primitives, and their derivatives: products, convolution, pooling, ordering, indexing, reductions, loops."""
    h = md.nn.functional.max_pool2d(md.nn.functional.relu(md.nn.functional.conv2d(x, w)), 2)
    flat = h.reshape(h.shape[0], -1)
    order = md.argsort(flat.detach(), axis=1)
    picked = ns.take_along(flat, order, axis=1)
    table = md.softmax(picked @ md.matrix_transpose(picked), axis=1)
    grown = md.scan(lambda c, row: (c + md.logsumexp(row), c), table[0, 0] * 0.0, table)[0]
    return grown + md.cumulative_sum(table, axis=1).max() + md.std(flat) + md.prod(table[0] + 1.0)


@pytest.mark.parametrize("mode", ["eager", "jit"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_step_and_its_gradient_stay_on_the_backend(backend, mode, monkeypatch):
    xp = get(backend)
    rng = np.random.default_rng(0)
    with md.use_backend(backend):
        x, w = md.tensor(rng.normal(size=(3, 2, 8, 8))), md.tensor(rng.normal(size=(4, 2, 3, 3)), requires_grad=True)
        f = md.jit(step) if mode == "jit" else step
        f(x, w).backward()  # constants are made and programs compiled here
        expected, w.grad = w.grad.numpy(), None

        def refuse(*args, **kwargs):
            raise AssertionError("data left the backend")

        guard = contextlib.nullcontext()
        if backend == "jax":
            import jax

            guard = jax.transfer_guard_device_to_host("disallow")
        monkeypatch.setattr(type(xp), "to_numpy", refuse)
        with guard:
            f(x, w).backward()
        monkeypatch.undo()
        np.testing.assert_array_equal(w.grad.numpy(), expected)
