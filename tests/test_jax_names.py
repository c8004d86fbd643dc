"""JAX's names compute what JAX computes, on every backend, eager, jitted and differentiated."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

jax = pytest.importorskip("jax")
jnp = jax.numpy
rng = np.random.default_rng(0)
X, S = rng.normal(size=(3, 5)).astype(np.float32), (rng.normal(size=(3, 3)) + 3 * np.eye(3)).astype(np.float32)
IDS = np.array([0, 2, 0, 7, -1])
linalg = jax.scipy.linalg


def both_ways(linalg, x, s):
    return linalg.cho_solve(linalg.cho_factor(s @ s.T), x) + linalg.cho_solve(linalg.cho_factor(s @ s.T, lower=True), x[:, 0])[:, None]


#: name -> (minidl's, JAX's), of x and s.
CASES = {
    "percentile": (lambda x, s: md.percentile(x, 30.0, axis=1), lambda x, s: jnp.percentile(x, 30.0, axis=1)),
    "percentile of a tensor": (lambda x, s: md.percentile(x, s[0, :2] * 0 + 25.0), lambda x, s: jnp.percentile(x, s[0, :2] * 0 + 25.0)),
    "top_k": (lambda x, s: md.top_k(x, 2)[0], lambda x, s: jax.lax.top_k(x, 2)[0]),
    "segment_sum": (lambda x, s: md.segment_sum(x.T, md.asarray(IDS), 3), lambda x, s: jax.ops.segment_sum(x.T, IDS, 3)),
    "associative_scan": (lambda x, s: md.associative_scan(md.multiply, x, axis=1), lambda x, s: jax.lax.associative_scan(jnp.multiply, x, axis=1)),
    "of pairs, reversed": (
        lambda x, s: md.associative_scan(lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (x.T, x.T * 2.0), reverse=True)[1],
        lambda x, s: jax.lax.associative_scan(lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1]), (x.T, x.T * 2.0), reverse=True)[1],
    ),
    "of matrices": (
        lambda x, s: md.associative_scan(md.matmul, md.stack([s, s * 0.5, s + 1.0, s.T])),
        lambda x, s: jax.lax.associative_scan(jnp.matmul, jnp.stack([s, s * 0.5, s + 1.0, s.T])),
    ),
    "solve_triangular": (
        lambda x, s: md.linalg.solve_triangular(s, x) + md.linalg.solve_triangular(s, x, trans="T", lower=True, unit_diagonal=True),
        lambda x, s: linalg.solve_triangular(s, x) + linalg.solve_triangular(s, x, trans="T", lower=True, unit_diagonal=True),
    ),
    "cho_solve": (
        lambda x, s: both_ways(md.linalg, x, s),
        lambda x, s: both_ways(linalg, x, s),
    ),
    "array": (lambda x, s: md.array(x) * 1.0, lambda x, s: jnp.array(x) * 1.0),
}  # fmt: skip


def test_the_values_and_gradients_are_jaxs(backend):
    x, s = md.tensor(X), md.tensor(S)
    names = [n for n in CASES if backend != "numba" or n in ("segment_sum", "associative_scan")]
    total = lambda x, s: sum((CASES[n][0](x, s) ** 2).sum() for n in names)
    theirs = lambda x, s: sum((CASES[n][1](x, s) ** 2).sum() for n in names)
    for run in (lambda f: f, md.jit) if backend in ("numpy", "torch") else (md.jit,):
        for got, name in zip(run(lambda x, s: [CASES[n][0](x, s) for n in names])(x, s), names, strict=True):
            np.testing.assert_allclose(got.numpy(), CASES[name][1](X, S), rtol=2e-4, atol=1e-5, err_msg=name)
    for got, want in zip(md.jit(md.grad(total, (0, 1)))(x, s), jax.jit(jax.grad(theirs, (0, 1)))(X, S), strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-3, atol=1e-3 * float(np.abs(want).max()))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 6, 7])
def test_scans_of_any_length(n):
    x = md.arange(float(n)) + 1.0
    assert md.associative_scan(md.add, x).tolist() == np.cumsum(x.numpy()).tolist()
    assert md.associative_scan(md.add, x, reverse=True).tolist() == np.cumsum(x.numpy()[::-1])[::-1].tolist()
    text = md.associative_scan(lambda a, b: b, x, reverse=True)  # not commutative: the last of each suffix, backwards
    assert text.tolist() == np.asarray(jax.lax.associative_scan(lambda a, b: b, jnp.asarray(x.numpy()), reverse=True)).tolist()


def test_pytrees():
    t = {"a": 1, "b": (2, [3, None])}
    leaves, structure = md.tree.flatten(t)
    assert md.tree.structure(t) == structure and md.tree.unflatten(structure, leaves) == t
    assert md.tree.reduce(lambda a, b: a * 10 + b, t) == jax.tree.reduce(lambda a, b: a * 10 + b, t) == 123
    assert md.tree.reduce(lambda a, b: a + b, (), 7) == 7
    outer, inner, x = {"p": 0, "q": [0]}, (0, {"r": 0}), {"p": (1, {"r": 2}), "q": [(3, {"r": 4})]}
    want = jax.tree.transpose(jax.tree.structure(outer), jax.tree.structure(inner), x)
    assert md.tree.transpose(md.tree.structure(outer), md.tree.structure(inner), x) == want
    with pytest.raises(ValueError, match=r"^tree\.transpose: the pytree has the structure"):
        md.tree.transpose(md.tree.structure(outer), md.tree.structure(inner), {"p": 1, "q": [2]})


def test_words_of_jax_and_pytorch_for_arguments():
    x = md.tensor(X)
    assert md.jit(lambda x: x * 2.0, donate_argnums=0)(md.ones(2)).tolist() == [2.0, 2.0]
    assert md.jit(lambda x, y: x * y, donate_argnums=(0, 1))(md.ones(2), md.ones(2)).tolist() == [1.0, 1.0]
    torchs = md.vmap(lambda a, b: a * b, in_dims=(0, None), out_dims=1)(x, x[0])
    assert torchs.tolist() == md.vmap(lambda a, b: a * b, in_axes=(0, None), out_axes=1)(x, x[0]).tolist()
    with pytest.raises(TypeError, match="vmap: got an unexpected keyword argument 'axes'; it takes in_axes"):
        md.vmap(lambda x: x, axes=0)
    assert md.random.PRNGKey(3).tolist() == md.random.key(3).tolist()
    assert md.jacobian(lambda x: x * x)(md.tensor([1.0, 2.0])).tolist() == [[2.0, 0.0], [0.0, 4.0]]
    copy = md.array(x)
    copy += 1.0
    np.testing.assert_array_equal(x.numpy(), X)
    right = md.linalg.solve_triangular(md.tensor(S), md.tensor(X.T), upper=False, left=False)
    np.testing.assert_allclose((right @ md.tril(md.tensor(S))).numpy(), X.T, atol=1e-5)


def test_what_is_not_there_says_what_is():
    for room, name, way in ((md, "lax", "md.scan"), (md, "flatten_util", "ravel_pytree"), (md.tree, "map_with_path", "md.tree.map"),
                            (md.linalg, "ldl_factor", "md.linalg.cholesky")):  # fmt: skip
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'.*{way}"):
            getattr(room, name)
    for room in (md.tree, md.linalg):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = room.nothing
    for room, names in md.idioms.of_jax.ABSENT.items():
        assert not [n for n in names if hasattr(md if room == "md" else getattr(md, room), n)]
