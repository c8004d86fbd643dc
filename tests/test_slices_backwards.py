"""The reverse pass through many slices of one tensor adds them up in place, and never in an array that something else shows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as md

BACKENDS = ("numpy", "torch")


def both(f, *arrays, dtype=None):
    """What f says of the arrays on both backends, exactly."""
    found = []
    for b in BACKENDS:
        with md.use_backend(b):
            found.append(f(*(md.asarray(a, dtype=dtype) for a in arrays)))
    one, other = (md.tree.map(lambda t: t.tolist() if isinstance(t, md.Tensor) else t, r) for r in found)
    np.testing.assert_equal(one, other)
    return other


@given(st.data())
def test_sums_of_slices_on_torch_are_those_of_numpy(data):
    x = np.arange(1.0, 13.0).reshape(3, 4)
    cuts = data.draw(st.lists(st.tuples(st.integers(0, 4), *[st.slices(4)] * 2), min_size=1, max_size=6))

    def f(x):
        def total(x):
            y = x * 2.0
            parts = [y, y.T, y.reshape(-1).reshape(4, 3), x + y, x]  # cotangents that are one array, or show one
            out = (parts[3] * parts[0]).sum() + parts[1].sum() + parts[3].sum()
            for k, a, b in cuts:
                p = parts[k]
                out = out + (p[a] * 3.0).sum() + (p[a, b] * p[a, b]).sum()
            return out

        return md.value_and_grad(total)(x), md.grad(lambda v: (md.grad(total)(v) ** 2).sum())(x)

    both(f, x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cotangents_of_the_user_are_not_written_to(backend):
    with md.use_backend(backend):
        x = md.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        y = x * 1.0
        given = [md.tensor([[5.0, 6.0], [7.0, 8.0]]), md.tensor([1.0, 1.0]), md.tensor([2.0, 2.0]), md.tensor([3.0, 3.0])]
        before = [g.tolist() for g in given]
        for _ in range(3):
            (g,) = md.autograd.grad([y, y[0], y[1], y[0]], [y], grad_outputs=given)
            assert g.tolist() == [[9.0, 10.0], [9.0, 10.0]] and [v.tolist() for v in given] == before
        (again,) = md.autograd.grad([y, y[0], y[1], y[0]], [y], grad_outputs=[g, *given[1:]])  # what was summed in place, as a seed
        assert g.tolist() == [[9.0, 10.0], [9.0, 10.0]] and again.tolist() == [[13.0, 14.0], [11.0, 12.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_that_are_kept_stay_what_they_were(backend):
    with md.use_backend(backend):
        x = md.tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
        seen = []
        x.register_hook(lambda g: seen.append(g))
        parts = md.unstack(x * 2.0)
        loss = sum((p * p).sum() for p in parts)
        loss.backward(retain_graph=True)
        first = x.grad
        held = first.tolist()
        assert held == (8 * np.arange(6.0).reshape(3, 2)).tolist()
        loss.backward()
        assert held == seen[0].tolist() == seen[1].tolist()  # x.grad alone grows, as PyTorch's
        assert first.tolist() == x.grad.tolist() == (2 * np.asarray(held)).tolist()
        with pytest.raises(RuntimeError, match="already differentiated"):
            loss.backward()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_dtypes_infinities_and_no_elements(dtype):
    def f(x):
        def total(x):
            rows = [x[0, 1:], x[-1, ::-2], x[0], x[1:1], x[:, :0]]
            out = sum((r * 2.0).sum() for r in rows) + (x[0] * x[0]).sum()
            return md.real(out) if x.dtype.is_complex else out

        return md.grad(total)(x)

    both(f, np.array([[1.0, np.inf, 2.0], [-0.0, 3.0, np.nan]]), dtype=getattr(md, dtype))


def test_lanes_and_programs_agree():
    x = np.arange(12.0).reshape(2, 3, 2)

    def f(x):
        total = lambda v: sum((p * p * (i + 1.0)).sum() for i, p in enumerate(v)) + (v[0] * v[2]).sum()
        g = md.vmap(md.grad(total))(x)
        assert g.tolist() == md.jit(md.vmap(md.grad(total)))(x).tolist() == [md.grad(total)(v).tolist() for v in x]
        return g

    both(f, x)
