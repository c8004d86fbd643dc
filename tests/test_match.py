"""Independent witnesses: the derivatives of torch.autograd and jax.grad, and finite differences, for whole functions away from kinks.

These libraries' automatic differentiation appears here and nowhere else. The distance is stated in conditioned ulps of float64 (see
minidl.testing.checks); the budget of 64 also covers the witness, which rounds differently.
"""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl.backends import get
from minidl.primitives import table
from minidl.tensors import from_numpy
from minidl.testing import ROWS, check_grad, conformance, ulps
from minidl.testing.checks import study

BUDGET = 64.0
#: minidl's primitive → the same in torch and in jax.numpy. Not among them: expm1, whose derivative both take as result + 1, which is 0 below -37, and
#: digamma, since torch's trigamma has ten digits; finite differences judge these.
TORCH = {
    n: n for n in "exp log log1p log2 log10 sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sigmoid erf erfc erfinv lgamma"
    " neg square abs relu hypot logaddexp atan2 maximum minimum xlogy".split()
} | {"add": "add", "sub": "sub", "mul": "mul", "div": "div"}  # fmt: skip
JAX = {
    **{n: n for n in "exp log log1p log2 log10 sqrt sin cos tan sinh cosh tanh hypot logaddexp maximum minimum square abs add multiply".split()},
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "atan2": "arctan2",
    "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative",
}  # fmt: skip


def rows(names):
    seen = {}
    for r in ROWS:
        if r.name in names and "float64" in r.dtypes:
            seen.setdefault(r.name, r)
    return [pytest.param(r, id=r.name) for r in seen.values()]


def first_order(row):
    """(arguments, cotangent, minidl's vjp, conditioning)."""
    s = study(row, "float64")
    return s.args, s.gs[0], s._named(s.want)["vjp"], s._named(s.scales)["vjp"]


def compare(row, found, want, scales):
    for f, w, scale in zip(found, want, scales, strict=True):
        assert ulps(f, w, scale) <= BUDGET, (row, f, w)


@pytest.mark.parametrize("row", rows(TORCH))
def test_gradients_are_those_of_torch(row):
    torch = pytest.importorskip("torch")
    special = {n: getattr(torch.special, n) for n in ("xlogy",)}
    f = special.get(row.name) or getattr(torch, TORCH[row.name])
    args, g, want, scales = first_order(row)
    xs = [torch.tensor(a, requires_grad=True) for a in args]
    f(*xs).backward(torch.tensor(g))
    compare(row, [x.grad.numpy() for x in xs], want, scales)


@pytest.mark.parametrize("row", rows(JAX))
def test_gradients_are_those_of_jax(row):
    jax = pytest.importorskip("jax")
    args, g, want, scales = first_order(row)
    with jax.enable_x64(True):
        _, pull = jax.vjp(getattr(jax.numpy, JAX[row.name]), *args)
        found = [np.asarray(v) for v in pull(jax.numpy.asarray(g))]
    compare(row, found, want, scales)


def network(ns, x, w1, w2, kernel, conv, pool):
    """A small network in terms that all three libraries have."""
    h = pool(ns.tanh(conv(x, kernel)))
    h = ns.tanh(ns.reshape(h, (2, 8)) @ w1)
    return ns.sum((h @ w2) ** 2) + ns.sum(ns.exp(-h * h))


def test_a_network_has_the_gradients_of_torch_and_jax():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s) for s in ((2, 1, 6, 6), (8, 5), (5, 3), (2, 1, 3, 3))]
    window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}

    def ours(*v):
        from minidl.tensors import bind

        conv = lambda x, k: bind(table["conv"], (x, k), {**window, "groups": 1})
        pool = lambda h: bind(table["max_pool"], (h,), {**window, "window": (2, 2), "stride": (2, 2)})[0]
        return network(md, *v, conv=conv, pool=pool)

    tensors = [torch.tensor(v, requires_grad=True) for v in values]
    nn = torch.nn.functional
    network(torch, *tensors, conv=nn.conv2d, pool=lambda h: nn.max_pool2d(h, 2)).backward()
    with jax.enable_x64(True):
        lax = jax.lax
        theirs = jax.grad(
            lambda *v: network(
                jax.numpy, *v, conv=lambda x, k: lax.conv(x, k, (1, 1), "VALID"),
                pool=lambda h: lax.reduce_window(h, -np.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"),
            ),
            argnums=(0, 1, 2, 3),
        )(*map(jax.numpy.asarray, values))  # fmt: skip
        theirs = [np.asarray(v) for v in theirs]
    for name in ("numpy", "numba", "torch", "jax"):
        got = md.grad(ours, argnums=(0, 1, 2, 3))(*(from_numpy(v, get(name)) for v in values))
        for g, t, j in zip(got, tensors, theirs, strict=True):
            np.testing.assert_allclose(g.numpy(), t.grad.numpy(), rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(g.numpy(), j, rtol=1e-11, atol=1e-13)


# ---- the kit itself ---------------------------------------------------------------------------------------------------------------------------
def test_check_grad_passes_what_is_right_and_says_what_is_wrong():
    x = md.tensor([0.5, 1.5], dtype=md.float64)
    check_grad(lambda x: md.sin(x) * x, [x])

    @md.custom_vjp
    def cube(x):
        return x * x * x

    cube.defvjp(lambda x: (x * x * x, x), lambda x, g: (g * x * x * 2.99,))
    with pytest.raises(AssertionError):
        check_grad(cube, [x])
    with pytest.raises(TypeError, match="float64"):
        check_grad(md.sin, [md.tensor([1.0])])


def test_conformance_finds_a_wrong_kernel_and_a_missing_one():
    from minidl.backends.numpy_backend import NumpyBackend

    class Wrong(NumpyBackend):
        name = "wrong"
        sinh = staticmethod(lambda x: np.sinh(x) * (1 + 1e-6))

        @staticmethod
        def acosh(x):
            raise NotImplementedError("acosh: the wrong backend cannot do this")

    some = [r for r in ROWS if r.name in ("sinh", "acosh", "exp")]
    wrong = conformance(Wrong(), some)
    assert {k.split()[0] for k in wrong} == {"sinh", "acosh"}
    assert any("conditioned ulps" in line for line in wrong["sinh float64"])
    assert any("NotImplementedError" in line for line in wrong["acosh float64"])
    assert conformance("numpy", some) == {}
