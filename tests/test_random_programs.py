"""A draw is one program where a backend compiles each operation by itself (jax), and what comes of it is what is drawn elsewhere."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

import minidl as md

jax = pytest.importorskip("jax")
R = md.random
N = 37  # a size that no other test draws
#: As in tests/test_random_distributions.py: equal bit for bit, or but for rounding.
DRAWS = {
    "split": (lambda k, n: R.split(k, n), True),
    "bits": (lambda k, n: R.bits(k, (n,), "uint64"), True),
    "uniform": (lambda k, n: R.uniform(k, (n,)), True),
    "uniform between": (lambda k, n: R.uniform(k, (n,), None, -0.1 * n, 0.3), True),
    "randint": (lambda k, n: R.randint(k, (n,), -n, n), True),
    "randint wide": (lambda k, n: R.randint(k, (n,), -(2**40), 2**50), True),
    "bernoulli": (lambda k, n: R.bernoulli(k, 0.3, (n,)), True),
    "permutation": (lambda k, n: R.permutation(k, n), True),
    "normal": (lambda k, n: R.normal(k, (n,)), False),
    "truncated_normal": (lambda k, n: R.truncated_normal(k, -1.0, 0.1 * n, (n,)), False),
    "exponential": (lambda k, n: R.exponential(k, (n,)), False),
    "gamma": (lambda k, n: R.gamma(k, 0.1 * n, (n,)), False),
    "poisson": (lambda k, n: R.poisson(k, 0.5 * n, (n,)), False),
    "weighted choice": (lambda k, n: R.choice(k, 3, (n,), p=[0.2, 0.3, 0.5]), False),
}  # fmt: skip


class Compiled(logging.Handler):
    """How many programs XLA compiled inside the block."""

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.getMessage().startswith("Compiling ")

    def __enter__(self) -> Compiled:
        self.count = 0
        self.log = logging.getLogger("jax._src.interpreters.pxla")
        self.before, self.log.propagate = self.log.propagate, False
        self.log.addHandler(self)
        self.context = jax.log_compiles(True)
        self.context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.context.__exit__(*error)
        self.log.removeHandler(self)
        self.log.propagate = self.before


@pytest.fixture
def on_jax():
    with md.use_backend("jax"):
        for dtype in ("float32", "float64", "int64", "uint32", "uint64"):
            md.full((), 1, dtype=dtype)  # which is compiled once in a process
        R.fold_in(R.key(0), 1)
        yield


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_one_program_and_draws_the_same(name, on_jax):
    draw, exact = DRAWS[name]
    with Compiled() as compiled:
        found = draw(R.key(5), N)
    assert compiled.count == 1
    with Compiled() as compiled:
        again = draw(R.key(5), N)
        other = draw(R.key(6), N)
    assert compiled.count == 0 and again.tolist() == found.tolist() != other.tolist()
    with md.use_backend("numpy"):
        want = draw(R.key(5), N)
    assert found.backend == "jax" and found.dtype is want.dtype and found.shape == want.shape and found.is_leaf
    if exact:
        np.testing.assert_array_equal(found.numpy(), want.numpy())
    else:
        np.testing.assert_allclose(found.numpy(), want.numpy(), rtol=1.2e-7)


def test_numbers_are_no_reason_to_compile_again(on_jax):
    def draws(i):
        k = R.key(i)
        R.uniform(k, (N,), None, -1.0, float(i)), R.randint(k, (N,), 0, i), R.bernoulli(k, 1 / i, (N,)), R.fold_in(k, i), R.poisson(k, 1.0 * i, (N,))
        R.gamma(k, 1.0 * i, (N,)), R.truncated_normal(k, -1.0, 1.0 * i, (N,)), R.choice(k, 3, (N,), p=[1.0, 2.0, 1.0 * i])

    draws(1)
    with Compiled() as compiled:
        draws(2), draws(3)
    assert compiled.count == 0


def test_building_and_dropping_compile_little(on_jax):
    """Weight and bias of a shape are one program each; dropout's mask is one, and what it does with it two."""
    md.nn.Linear(3, 4), md.nn.functional.dropout(md.ones((2,)))
    with Compiled() as compiled:
        md.nn.Linear(N, 5)
    assert compiled.count <= 4  # memory for either, and the draw that fills it
    with Compiled() as compiled:
        md.nn.Conv2d(3, N, 2)
    assert compiled.count <= 4
    x = md.ones((N, 2))
    with Compiled() as compiled:
        md.nn.functional.dropout(x)
    assert compiled.count <= 3


def test_the_stream_advances_alike():
    states = {}
    for name in ("numpy", "jax"):
        with md.use_backend(name):
            md.manual_seed(7)
            made = [md.nn.Linear(N, 3), md.nn.Conv1d(2, 3, 2), md.nn.Embedding(4, 3)]
            md.nn.functional.dropout(md.ones(9))
            drawn = [p.detach().numpy() for m in made[:2] for p in m.parameters()]
            states[name] = R.default_generator.key.tolist(), drawn
    assert states["numpy"][0] == states["jax"][0]
    for a, b in zip(states["numpy"][1], states["jax"][1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_settings_transforms_and_mixtures_see_the_operations(on_jax):
    key = R.key(3)
    low = md.tensor(-1.0, requires_grad=True)
    R.uniform(key, (N,), None, low, 2.0).sum().backward()
    u = R.uniform(key, (N,)).numpy().astype(np.float64)
    np.testing.assert_allclose(low.grad.item(), (1.0 - u).sum(), rtol=1e-6)
    lanes = md.vmap(lambda k: R.normal(k, (3,)))(R.split(key, 2))
    np.testing.assert_allclose(lanes[1].numpy(), R.normal(R.split(key, 2)[1], (3,)).numpy(), rtol=1.2e-7)
    assert "threefry2x32" in str(md.trace(lambda k: R.normal(k, (3,)))(key))
    with md.use_backend("numpy"):
        elsewhere = md.asarray(0.5)
    with pytest.raises(RuntimeError, match="operands live on two backends"):
        R.uniform(key, (3,), None, elsewhere, 2.0)
    with md.autocast(dtype="bfloat16"):
        assert R.normal(key, (N,)).dtype is md.float32


def test_threads_may_draw_at_once(on_jax):
    found: list[list[float]] = []

    def draw() -> None:
        with md.use_backend("jax"):
            found.append(R.uniform(R.key(8), (N + 1,)).tolist())

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4 and all(f == found[0] for f in found)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_elsewhere_an_operation_is_an_operation(name):
    """Only a backend that says so has draws compiled."""
    from minidl.whole import _program

    with md.use_backend(name):
        before = _program.cache_info().currsize
        R.uniform(R.key(0), (N,))
        assert _program.cache_info().currsize == before


def test_torch_has_the_same_words_where_numpy_does_not_compute_them():
    """As on an accelerator, and where torch's compiler looks: by torch's own signed integers."""
    torch = pytest.importorskip("torch")
    from minidl.backends.torch_kernels import KERNELS

    md.extend.get_backend("torch")  # which takes the kernels of libraries into its table

    class Elsewhere(torch.Tensor):  # type: ignore[name-defined,misc]
        pass

    words = [np.array([7, 2**32 - 1], np.uint32)[:, None], np.array([2**31], np.uint32), np.uint32(0), np.arange(99, dtype=np.uint32)]
    given = [torch.from_numpy(np.asarray(w)) for w in words]
    for got, want in zip(
        KERNELS["threefry2x32"](*(g.as_subclass(Elsewhere) for g in given)), KERNELS["threefry2x32"](*given), strict=True
    ):
        np.testing.assert_array_equal(got.numpy(), want.numpy())
