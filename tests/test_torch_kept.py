"""mode="inductor": the memory of large results is kept from call to call, and is never that of a result which somebody still has."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")
N = 600  # 1.4 MB in float32


def f(x, y):
    outer = x[:, None] * y[None, :]
    read = outer * 2.0 + 1.0
    return outer - 3.0, read, md.sum(read, axis=0), outer.T + 0.5, x + 1.0


@pytest.fixture(scope="module")
def program():
    return md.jit(f, mode="inductor")


def inputs(seed):
    r = np.random.default_rng(seed)
    return [md.asarray(r.normal(size=N), dtype=md.float32, backend="torch") for _ in range(2)]


def wanted(args):
    return [v.numpy().copy() for v in f(*args)]


def test_results_that_are_held_keep_their_values(program):
    held = [(program(*inputs(k)), wanted(inputs(k))) for k in range(5)]
    arrays = [(out[0].numpy(), w[0]) for out, w in held]
    capsules = [(torch.from_dlpack(out[3]), w[3]) for out, w in held]
    for out, w in held:
        for a, b in zip(out, w, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-5, atol=1e-5)
    del held, out, a
    for k in range(5, 9):
        program(*inputs(k))
    for array, w in (*arrays, *((c.numpy(), w) for c, w in capsules)):
        np.testing.assert_allclose(array, w, rtol=1e-5, atol=1e-5)


def test_memory_is_used_again_and_given_to_one_thread_at_a_time(program):
    places = set()
    for k in range(8):
        out = program(*inputs(k))
        places.add(out[0].payload.data_ptr())
    assert len(places) <= 3
    failed = []

    def work(seed):
        args = inputs(seed)
        w = wanted(args)
        for _ in range(20):
            out = program(*args)
            failed.extend(i for i, (a, b) in enumerate(zip(out, w, strict=True)) if not np.allclose(a.numpy(), b, rtol=1e-5, atol=1e-5))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed


def test_results_are_no_input_of_the_next_call(program):
    x, y = inputs(0)
    for _ in range(4):
        w = wanted((x, y))
        out = program(x, y)
        np.testing.assert_allclose(out[0].numpy(), w[0], rtol=1e-4, atol=1e-3)
        x = out[0][0] * 1e-1
    g = md.jit(lambda a: a * 2.0, mode="inductor")
    a = md.ones((N, N), dtype=md.float32, backend="torch")
    for k in range(1, 5):
        a = g(a)
        assert (a.numpy() == 2.0**k).all()
