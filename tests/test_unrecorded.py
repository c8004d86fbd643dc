"""Operations under no_grad take the straight line that others take, record nothing, and see every other setting of their thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minidl as md
from minidl import tensors


def several(x, y):
    return {
        "one": md.tanh(x), "two": x * y, "left": x + 0.1, "right": 1.5 / y, "wide": x - y[:1], "matmul": x @ y.T, "sum": x.sum(axis=0),
        "norm": md.nn.functional.layer_norm(x, (3,)), "where": md.where(x > 0, x, y), "max": x.max(),
        "int": x.argmax(axis=1), "affine": md.affine(x, y, y[:, 0]),
    }  # fmt: skip


def inputs(backend, tracked=True):
    r = np.random.default_rng(0)
    return [md.asarray(r.normal(size=(4, 3)), backend=backend, dtype=md.float32).requires_grad_(tracked) for _ in range(2)]


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_the_values_are_those_of_recorded_operations_and_nothing_is_recorded(backend, monkeypatch):
    x, y = inputs(backend)
    wanted = several(x, y)
    with md.no_grad():
        several(x, y)
        slow = []
        general = tensors._bind
        monkeypatch.setattr(tensors, "_bind", lambda p, args, params: slow.append(p.name) or general(p, args, params))
        found = several(x, y)
    assert not slow, "these took the general way"
    assert all(v.node is None and not v.requires_grad for v in found.values())
    for name, v in found.items():
        np.testing.assert_array_equal(v.numpy(), wanted[name].detach().numpy(), err_msg=name)
        assert v.dtype is wanted[name].dtype


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_what_else_is_in_force_is_seen(backend):
    x, y = inputs(backend)
    with md.no_grad():
        with md.enable_grad():
            assert all(v.requires_grad for k, v in several(x, y).items() if k != "int")
        assert not (x * y).requires_grad
        with md.autocast(dtype=md.bfloat16):
            assert (x @ y.T).dtype is md.bfloat16
        jitted = md.jit(lambda a: md.grad(lambda b: (b * b).sum())(a) + several(a, y)["sum"])(x)
        np.testing.assert_allclose(jitted.numpy(), (2.0 * x + x.sum(axis=0)).numpy(), rtol=1e-6)
        mapped = md.vmap(lambda a: md.tanh(a) * y[0])(x)
        np.testing.assert_allclose(mapped.numpy(), (md.tanh(x) * y[0]).numpy(), rtol=1e-6)
        np.testing.assert_allclose(md.grad(lambda a: (a * y).sum())(x).numpy(), y.detach().numpy())


def test_one_threads_no_grad_is_not_anothers():
    x, y = inputs("numpy")
    inside, done, found = threading.Event(), threading.Event(), []

    def other():
        with md.no_grad():
            inside.set()
            done.wait(10)
            found.append((x * y).requires_grad)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    assert all(v.requires_grad for k, v in several(x, y).items() if k != "int")
    done.set()
    thread.join()
    assert found == [False]


def test_statements_end_with_the_block_that_holds_them():
    x, _ = inputs("numpy")
    with md.no_grad():
        md.set_grad_enabled(True)
        assert (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad
    with pytest.raises(ZeroDivisionError), md.no_grad(), md.enable_grad():
        raise ZeroDivisionError
    assert (x * 2.0).requires_grad and md.is_grad_enabled()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_a_number_is_quick_after_thousands_of_others(backend, monkeypatch):
    x = inputs(backend, tracked=False)[0]
    for i in range(5000):
        x * (i + 0.123)
    1.5 / x
    slow = []
    general = tensors._bind
    monkeypatch.setattr(tensors, "_bind", lambda p, args, params: slow.append(p.name) or general(p, args, params))
    1.5 / x
    assert not slow
