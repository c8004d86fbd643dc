"""Compositions of transforms, drawn at random, against closed forms; nested differentiation; what vmap costs.

The function is f(x) = Im exp(c x) with c = 0.4 + 1.3i, whose n-th derivative is Im(c**n exp(c x)); each layer either differentiates (in one of many
ways) or should change nothing. Results may differ from the closed form by TOLERANCE relative to |c**n exp(c x)|: the layers round a few dozen times.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md
import minidl.arrays.windows  # which puts its primitives into the table
from minidl.primitives import table

C = 0.4 + 1.3j
TOLERANCE = 1e-12
BACKENDS = ("numpy", "numba", "torch", "jax")


@pytest.fixture(params=BACKENDS)
def backend(request):
    with md.use_backend(request.param):
        yield request.param


def base(x):
    return md.exp(x * C.real) * md.sin(x * C.imag)


def exact(x: float, order: int) -> complex:
    return C**order * np.exp(C * x)


def f64(value, **options):
    return md.tensor(value, dtype=md.float64, **options)


def one(x):
    return md.ones_like(x)


def by_backward(f):
    """A leaf made inside, `.backward(create_graph=True)`, and its `.grad`. As in PyTorch a backward pass adds to every leaf that it reaches, those of
    an outer backward too, so compositions have this layer at most once."""

    def d(x):
        w = md.tensor(0.0, dtype=md.float64, requires_grad=True)
        f(x + w).backward(create_graph=True)
        return w.grad

    return d


def by_autograd_grad(f):
    def d(x):
        w = md.tensor(0.0, dtype=md.float64, requires_grad=True)
        return md.autograd.grad(f(x + w), w, create_graph=True)[0]

    return d


def with_custom_vjp(f):
    @md.custom_vjp
    def g(x):
        return f(x)

    g.defvjp(lambda x: (f(x), x), lambda x, ct: (ct * md.grad(f)(x),))
    return g


def with_custom_jvp(f):
    @md.custom_jvp
    def g(x):
        return f(x)

    g.defjvp(lambda primals, tangents: (f(*primals), tangents[0] * md.grad(f)(*primals)))
    return g


#: name → (layer, how many times it differentiates)
LAYERS = {
    "grad": (md.grad, 1),
    "value_and_grad": (lambda f: lambda x: md.value_and_grad(f)(x)[1], 1),
    "vjp": (lambda f: lambda x: md.vjp(f, x)[1](one(x))[0], 1),
    "jvp": (lambda f: lambda x: md.jvp(f, (x,), (one(x),))[1], 1),
    "linearize": (lambda f: lambda x: md.linearize(f, x)[1](one(x)), 1),
    "jacfwd": (md.jacfwd, 1),
    "jacrev": (md.jacrev, 1),
    "hessian": (md.hessian, 2),
    "backward": (by_backward, 1),
    "autograd.grad": (by_autograd_grad, 1),
    "jit": (md.jit, 0),
    "vmap": (lambda f: lambda x: md.vmap(f)(md.stack([x * 2.0, x]))[1], 0),
    "vmap of constant": (lambda f: lambda x: md.vmap(lambda y: f(x + y))(f64([0.5, 0.0]))[1], 0),
    "checkpoint": (md.checkpoint, 0),
    "custom_vjp": (with_custom_vjp, 0),
    "custom_jvp": (with_custom_jvp, 0),
    "scan": (lambda f: lambda x: md.scan(lambda c, a: (c + f(a), c), x * 0.0, md.stack([x]))[0], 0),
    "cond": (lambda f: lambda x: md.cond(x > -100.0, f, lambda v: v * 0.0, x), 0),
    "while_loop": (lambda f: lambda x: md.while_loop(lambda s: s[0] < 1.0, lambda s: (s[0] + 1.0, f(s[1])), (f64(0.0), x))[1], 0),
}
POINTS = (-0.7, 0.3, 1.1)


def possible(names) -> bool:
    return sum(LAYERS[n][1] for n in names) <= 4 and list(names).count("backward") <= 1


def compose(names) -> tuple:
    f, order = base, 0
    for n in names:
        layer, more = LAYERS[n]
        f, order = layer(f), order + more
    return f, order


def check(names, x: float) -> None:
    f, order = compose(names)
    z = exact(x, order)
    got = f(f64(x))
    assert got.shape == () and got.dtype is md.float64, names
    assert abs(got.item() - z.imag) <= TOLERANCE * abs(z), (names, got.item(), z.imag)


chains = st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4).filter(lambda names: possible(names))


def _run(backend: str):
    """The same search on each backend; XLA and numba compile, so they get fewer programs in ci."""
    share = {"numpy": 1, "torch": 1, "numba": 5, "jax": 10}[backend]

    def decorate(f):
        return settings(max_examples=max(1, settings().max_examples // share))(given(chains, st.sampled_from(POINTS))(f))

    return decorate


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_compositions_equal_the_closed_form(backend):
    @_run(backend)
    def search(names, x):
        with md.use_backend(backend):
            check(names, x)

    search()


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(sorted(LAYERS), repeat=2)))
def test_every_pair_of_layers(outer, inner):
    if possible([inner, outer]):
        check([inner, outer], 0.3)


@pytest.mark.parametrize("outermost", sorted(LAYERS))
def test_the_outer_tape_sees_through_every_layer(outermost, backend):
    f, order = compose([outermost])
    x = f64(0.3, requires_grad=True)
    f(x).backward()
    z = exact(0.3, order + 1) + (exact(0.3, 1) if outermost == "backward" else 0)  # the inner pass reaches x too
    assert abs(x.grad.item() - z.imag) <= TOLERANCE * abs(z)


@pytest.mark.parametrize("wrap", [lambda g: md.jit(md.vmap(g)), lambda g: md.vmap(md.jit(g)), md.vmap, lambda g: md.jit(md.vmap(md.jit(g)))])
def test_vmap_of_grad_is_grad_on_each_row(wrap, backend):
    rng = np.random.default_rng(0)
    w, rows = f64(rng.normal(size=(3, 3))), rng.normal(size=(4, 3))

    def loss(x):
        return (md.log_softmax(md.tanh(x @ w), axis=-1)[0] * md.max(x) + md.sort(x)[1]) / (1.0 + md.sum(x * x))

    g = md.grad(loss)
    got = wrap(g)(f64(rows)).numpy()
    for i, row in enumerate(rows):
        np.testing.assert_allclose(got[i], g(f64(row)).numpy(), rtol=1e-13, atol=1e-14)


# ---- perturbation confusion -------------------------------------------------------------------------------------------------------------------
D = {"grad": md.grad, "jvp": LAYERS["jvp"][0], "autograd.grad": by_autograd_grad, "jacfwd": md.jacfwd, "vjp": LAYERS["vjp"][0]}


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(D, repeat=2)))
def test_perturbations_are_not_confused(outer, inner, backend):
    """J. M. Siskind and B. A. Pearlmutter, Confusion of tagged perturbations in forward automatic differentiation (IFL 2005), and the function-valued
    example of O. Manzyuk et al., Perturbation confusion in forward automatic differentiation of higher-order functions (JFP 2019)."""
    a, b = D[outer], D[inner]
    assert a(lambda x: x * b(lambda y: x + y)(f64(1.0)))(f64(1.0)).item() == 1.0
    assert a(lambda x: x * b(lambda y: x * y)(f64(2.0)))(f64(3.0)).item() == 6.0
    assert a(lambda x: b(lambda y: x * x * y * y)(x))(f64(2.0)).item() == 24.0  # 2x^3, through the point as well
    shift = lambda d, f: lambda x: d(lambda u: f(x + u))(f64(0.0))
    assert abs(shift(a, shift(b, md.exp))(f64(1.0)).item() - np.e) < 1e-14


def test_tensors_of_an_outer_level_are_constants_inside(backend):
    outer = md.grad(lambda x: md.grad(lambda y: y * md.stop_gradient(x) + x * y)(x) * x)
    assert outer(f64(3.0)).item() == 9.0  # (stop(x) + x) * x: 2x + x, and nothing through the stopped x


# ---- .backward() inside -----------------------------------------------------------------------------------------------------------------------
def inner_training(x, w=None):
    """A leaf, a step of descent on it, and a loss at the new place."""
    w = f64(2.0, requires_grad=True) if w is None else w
    ((w * x) ** 2).backward(create_graph=True)
    return (w - 0.1 * w.grad) * x


def test_backward_inside_grad_vmap_and_jit(backend):
    # w' = w - 0.2 w x^2, so (w' x) = 2x - 0.4 x^3 and its derivative is 2 - 1.2 x^2
    points = np.array([0.5, 1.0, 2.0])
    want, slope = 2 * points - 0.4 * points**3, 2 - 1.2 * points**2
    np.testing.assert_allclose([inner_training(f64(p)).item() for p in points], want, rtol=1e-14)
    np.testing.assert_allclose(md.vmap(inner_training)(f64(points)).numpy(), want, rtol=1e-14)
    np.testing.assert_allclose([md.jit(inner_training)(f64(p)).item() for p in points], want, rtol=1e-14)
    for d in (md.grad(inner_training), md.jit(md.grad(inner_training)), md.grad(md.jit(inner_training)), LAYERS["jvp"][0](inner_training)):
        np.testing.assert_allclose([d(f64(p)).item() for p in points], slope, rtol=1e-13)
    for d in (md.vmap(md.grad(inner_training)), md.jit(md.vmap(md.grad(inner_training))), md.vmap(md.jit(md.grad(inner_training)))):
        np.testing.assert_allclose(d(f64(points)).numpy(), slope, rtol=1e-13)


# ---- the cost of vmap -------------------------------------------------------------------------------------------------------------------------
KERNELS = {
    "sort": (lambda x: md.sort(x, axis=0), (5, 3)),
    "argsort": (lambda x: md.argsort(x, axis=0, descending=True), (5, 3)),
    "gather": (lambda x: x[md.tensor([0, 2, 2])], (5, 3)),
    "gather by data": (lambda x: md.take(x, md.argmax(x, axis=0), axis=0), (5, 3)),
    "scatter": (lambda x: x.at[md.tensor([0, 2, 2])].add(x[:3]), (5, 3)),
    "scatter by data": (lambda x: x.at[md.argmax(x, axis=0)].set(x[:3]), (5, 3)),
    "scatter max": (lambda x: x.at[md.argmax(x, axis=0)].max(x[:3] * 2.0), (5, 3)),
    "conv": (lambda x: table_call("conv", md.reshape(x, (1, 1, 5, 3)), md.reshape(x[:2, :2], (1, 1, 2, 2)), **WINDOW, groups=1), (5, 3)),
    "max_pool": (lambda x: table_call("max_pool", x, window=(2, 2), **WINDOW)[0], (5, 3)),
    "matmul": (lambda x: x @ x.mT, (5, 3)),
    "softmax": (lambda x: md.softmax(x, axis=0) if hasattr(md, "softmax") else md.exp(x), (5, 3)),
    "cumulative": (lambda x: md.cumulative_prod(x, axis=0), (5, 3)),
    "while_loop": (lambda x: md.while_loop(lambda v: md.sum(v) < 50.0, lambda v: v * 2.0, md.abs(x) + 1.0), (5, 3)),
    "cond": (lambda x: md.cond(md.sum(x) > 0.0, md.sin, md.cos, x), (5, 3)),
    "scan": (lambda x: md.scan(lambda c, a: (c + a, c * a), x[0], x)[1], (5, 3)),
}
WINDOW = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}


def table_call(name, *args, **params):
    from minidl.tensors import bind

    return bind(table[name], args, params)


@pytest.mark.parametrize(("name", "order"), [(n, o) for n in KERNELS for o in ("value", "gradient") if (n, o) != ("argsort", "gradient")])
def test_the_number_of_kernel_calls_does_not_depend_on_the_batch(name, order, monkeypatch):
    f, shape = KERNELS[name]
    call = f if order == "value" else md.grad(lambda x: md.sum(f(x) * 1.0))
    batched, xp, calls = md.vmap(call), md.extend.home(), [0]
    for n in table:
        kernel = getattr(xp, n)

        def counted(*args, kernel=kernel, **params):
            calls[0] += 1
            return kernel(*args, **params)

        monkeypatch.setattr(xp, n, counted, raising=False)
        if xp.bare is not xp:
            monkeypatch.setattr(xp.bare, n, counted, raising=False)
    rng, counts = np.random.default_rng(0), []
    lanes = rng.normal(size=(1, *shape))
    for size in (2, 7, 31):
        calls[0] = 0
        batched(f64(np.repeat(lanes, size, axis=0)))  # equal lanes, so that data-dependent loops make as many trips
        counts.append(calls[0])
    assert counts[0] > 0 and len(set(counts)) == 1, counts
