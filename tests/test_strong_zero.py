"""md.strong_zero: a zero cotangent annihilates infinities and NaN, in every pass, mode and order, and changes nothing else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minidl as md

inf, nan = math.inf, math.nan


def root(x: Any) -> Any:
    """The function that the option is for: 0 at and below 0, with an infinite slope inside the branch that is not taken."""
    return md.where(x > 0, md.sqrt(x), 0.0)


def same(got: Any, want: Any, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(np.asarray(got.tolist()), np.asarray(want), rtol=tolerance)


def test_root_in_every_mode(backend):
    x = md.tensor([0.0, 4.0])
    with md.strong_zero():
        leaf = md.tensor([0.0, 4.0], requires_grad=True)
        root(leaf).sum().backward()  # the raw pass
        same(leaf.grad, [0.0, 0.25])
        (g,) = md.autograd.grad(root(leaf).sum(), leaf, create_graph=True)
        same(g.detach(), [0.0, 0.25])
        same(md.autograd.grad(g.sum(), leaf)[0], [0.0, -1 / 32])
        first, second = md.vmap(md.grad(root)), md.vmap(md.grad(md.grad(root)))
        same(first(x), [0.0, 0.25])
        same(second(x), [0.0, -1 / 32])
        same(md.jvp(root, (x,), (md.tensor([1.0, 1.0]),))[1], [0.0, 0.25])
        same(md.jvp(lambda v: md.sqrt(v), (x,), (md.tensor([0.0, 1.0]),))[1], [0.0, 0.25])
        same(md.hessian(lambda v: root(v).sum())(x), [[0.0, 0.0], [0.0, -1 / 32]])
        both = md.jit(lambda v: (first(v), second(v), md.grad(lambda u: root(u).sum())(v)))(x)
        for got, want in zip(both, ([0.0, 0.25], [0.0, -1 / 32], [0.0, 0.25]), strict=True):
            same(got, want)
        forward = lambda v: md.jvp(root, (v,), (md.ones_like(v),))[1]
        for got in (md.jit(forward)(x), md.vmap(forward)(x), md.jit(md.vmap(forward))(x)):
            same(got, [0.0, 0.25])
    assert np.isnan(md.grad(lambda v: root(v).sum())(x).tolist()[0])


def test_the_setting_is_part_of_a_program(backend):
    f = md.jit(md.grad(lambda v: root(v).sum()))
    x = md.tensor([0.0, 4.0])
    for _ in range(2):
        assert np.isnan(f(x).tolist()[0])
        with md.strong_zero():
            same(f(x), [0.0, 0.25])
    assert f.compiles == 2


def test_the_pass_decides_and_not_the_forward_run(backend):
    f = md.jit(lambda v: root(v).sum())
    for jitted in (False, True):
        for outside in (False, True):
            leaf = md.tensor([0.0, 4.0], requires_grad=True)
            run = f if jitted else f.__wrapped__
            if outside:
                out = run(leaf)
                with md.strong_zero():
                    out.backward()
            else:
                with md.strong_zero():
                    out = run(leaf)
                out.backward()
            assert bool(np.isnan(leaf.grad.tolist()[0])) is not outside
            same(leaf.grad[1], 0.25)


def test_loops_and_hooks(backend):
    x = md.tensor([0.0, 4.0])

    def looped(v):
        return md.scan(lambda c, _: (md.where(c > 0, md.sqrt(c), 0.0), c), v, None, length=2)[0].sum()

    seen = []
    with md.strong_zero():
        same(md.grad(looped)(x), [0.0, 0.25 * 0.5 / math.sqrt(2.0)])
        same(md.jit(md.grad(looped))(x), [0.0, 0.25 * 0.5 / math.sqrt(2.0)])
        leaf = md.tensor([0.0, 4.0], requires_grad=True)
        y = md.sqrt(leaf)
        y.register_hook(lambda g: seen.append(g.tolist()))
        md.where(leaf > 0, y, 0.0).sum().backward()
    same(leaf.grad, [0.0, 0.25])
    assert seen == [[0.0, 1.0]]


#: name: (function, arguments, kept elements, gradient of the first argument, gradient of the last). The others are 0 by annihilation.
TERMS = {
    "matmul": (lambda x, w: x @ w, ([[nan, 1.0], [2.0, 3.0]], [[1.0], [1.0]]), [[0.0], [1.0]], [[0.0, 0.0], [1.0, 1.0]], [[2.0], [3.0]]),
    "matmul, infinities that count": (
        lambda x, w: x @ w, ([[inf, 1.0], [2.0, 3.0], [-inf, nan]], [[1.0], [1.0]]), [[1.0], [1.0], [0.0]],
        [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], [[inf], [4.0]],
    ),
    "mul": (lambda x, y: x * y, ([inf, 2.0], [nan, 3.0]), [0.0, 1.0], [0.0, 3.0], [0.0, 2.0]),
    "broadcast": (lambda x, y: x * y, ([inf, 2.0], [3.0]), [0.0, 1.0], [0.0, 3.0], [2.0]),
    "prod": (lambda x: md.prod(x, axis=1), ([[inf, nan], [2.0, 3.0]],), [0.0, 1.0], [[0.0, 0.0], [3.0, 2.0]], [[0.0, 0.0], [3.0, 2.0]]),
    "softmax": (
        lambda x: md.softmax(x, axis=1), ([[nan, 1.0], [0.0, 0.0]],), [[0.0, 0.0], [1.0, 0.0]],
        [[0.0, 0.0], [0.25, -0.25]], [[0.0, 0.0], [0.25, -0.25]],
    ),
    "cumulative product": (
        lambda x: md.cumulative_prod(x, axis=1), ([[nan, inf], [2.0, 3.0]],), [[0.0, 0.0], [1.0, 1.0]],
        [[0.0, 0.0], [4.0, 2.0]], [[0.0, 0.0], [4.0, 2.0]],
    ),
    "inverse of a singular matrix": (
        lambda x: md.sum(md.linalg.slogdet(x).logabsdet * md.tensor([0.0, 1.0])) + md.zeros((1,)),
        ([[[0.0, 0.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 4.0]]],), [1.0],
        [[[0.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.25]]], [[[0.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.25]]],
    ),
    "layer norm": (
        lambda x, w: md.nn.functional.layer_norm(x, (2,), w), ([[nan, 1.0], [1.0, 3.0]], [1.0, 1.0]), [[0.0, 0.0], [1.0, 1.0]],
        [[0.0, 0.0], [0.0, 0.0]], [-0.999995, 0.999995],
    ),
    "convolution": (
        lambda x, w: md.nn.functional.conv1d(x, w), ([[[nan, 1.0, 2.0]]], [[[1.0]]]), [[[0.0, 1.0, 1.0]]], [[[0.0, 1.0, 1.0]]], [[[3.0]]],
    ),
}  # fmt: skip


def test_every_sort_of_rule(backend):
    """Terms with a zero cotangent are gone, the others are all there: also inf and NaN, where the cotangent is none."""
    with md.strong_zero():
        for name, (f, args, keep, first, last) in TERMS.items():
            xs = [md.tensor(a, requires_grad=True) for a in args]
            total = md.sum(md.where(md.tensor(keep) > 0, f(*xs), 0.0))
            if name.startswith("inverse"):
                total = md.sum(f(*xs))
            for mode in ("recorded", "raw"):
                if mode == "raw":
                    total.backward()
                    got = [x.grad for x in xs]
                else:
                    got = [g.detach() for g in md.autograd.grad(total, xs, create_graph=True)]
                for g, want in ((got[0], first), (got[-1], last)):
                    np.testing.assert_allclose(g.numpy(), np.asarray(want, np.float32), rtol=1e-4, atol=1e-6, err_msg=f"{name}, {mode}")


def test_a_degenerate_matrix_of_a_batch_leaves_the_others_alone(backend):
    """The eigenvectors of equal eigenvalues have no derivative; where nothing asks for it there is none."""
    fine, twin = [[1.0, 0.5], [0.5, 3.0]], [[1.0, 0.0], [0.0, 1.0]]
    f = lambda x: md.linalg.eigh(x).eigenvectors[..., 0, :] ** 2 * md.tensor([1.0, 3.0])
    alone = md.grad(lambda x: f(x).sum())(md.tensor(fine))
    both = lambda x: md.where(md.tensor([[True], [False]]), f(x), 0.0).sum()
    x = md.tensor([fine, twin])
    with md.strong_zero():
        for derivative in (md.grad(both), md.jit(md.grad(both))):
            np.testing.assert_allclose(derivative(x).numpy(), np.stack([alone.numpy(), np.zeros((2, 2))]), rtol=1e-5, atol=1e-6)


def test_finite_derivatives_of_any_order_are_untouched(backend):
    """At a point where a cotangent happens to be 0 the second derivative still sees the rule: (sin x)**2 at 0."""
    f = lambda x: md.sin(x) * md.sin(x)
    x = md.tensor(0.0)
    with md.strong_zero():
        assert md.grad(f)(x).item() == 0.0
        same(md.grad(md.grad(f))(x), 2.0)
        same(md.jit(md.grad(md.grad(f)))(x), 2.0)
        w = md.tensor([[1.0, 2.0], [3.0, 4.0]])
        g = lambda v: md.sum((w @ v) * (w @ v))
        same(md.hessian(g)(md.zeros((2,))), (2 * w.T @ w).tolist())
    x = md.tensor([[0.5, 0.25]], dtype=md.bfloat16, requires_grad=True)
    with md.strong_zero():
        (x * x).sum().backward()
    assert x.grad.dtype is md.bfloat16 and x.grad.tolist() == [[1.0, 0.5]]


def test_another_thread_is_not_asked():
    import threading

    found: list[float] = []
    with md.strong_zero():
        thread = threading.Thread(target=lambda: found.append(md.grad(root)(md.tensor(0.0)).item()))
        thread.start()
        thread.join()
    assert np.isnan(found[0])


@pytest.mark.parametrize("f", [md.sin, lambda x: x * x, md.softmax, md.cumulative_prod, lambda x: md.reshape(x, (1, 3)) @ md.reshape(x, (3, 1))])
def test_nothing_changes_where_nothing_is_infinite(f):
    x = md.tensor([0.5, -1.0, 0.0], dtype=md.float64)
    plain = md.vjp(f, x)[1](md.ones_like(f(x)))[0].tolist()
    with md.strong_zero():
        assert md.vjp(f, x)[1](md.ones_like(f(x)))[0].tolist() == plain
