"""md.linalg against numpy.linalg on every backend, its derivatives against torch.autograd and jax.grad, and one text for each error."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as md

la = md.linalg
rng = np.random.default_rng(9)
EPS = {"float32": 2e-6, "complex64": 2e-6, "float64": 4e-15, "complex128": 4e-15}
DTYPES = tuple(EPS)


def draw(shape, dtype="float64"):
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.startswith("c") else x).astype(dtype)


def adjoint(x):
    return x.conj().swapaxes(-1, -2)


def hermitian(shape, dtype="float64"):
    x = draw(shape, dtype)
    return x + adjoint(x)


def definite(shape, dtype="float64"):
    x = draw(shape, dtype)
    return (x @ adjoint(x) + np.eye(shape[-1])).astype(dtype)


def regular(shape, dtype="float64"):
    return (draw(shape, dtype) + 4 * np.eye(shape[-1])).astype(dtype)


def close(got, want, dtype, factor=1.0):
    got = got.numpy() if isinstance(got, md.Tensor) else got
    want = np.asarray(want)
    assert got.shape == want.shape and got.dtype == want.dtype, (got.shape, want.shape, got.dtype, want.dtype)
    np.testing.assert_allclose(got, want, atol=EPS[dtype] * factor * max(1.0, float(np.abs(want).max(initial=0))), rtol=0)


# ---- values -----------------------------------------------------------------------------------------------------------------------------
squares = st.tuples(st.lists(st.integers(0, 2), max_size=2), st.integers(0, 4)).map(lambda p: (*p[0], p[1], p[1]))
oblongs = st.tuples(st.lists(st.integers(0, 2), max_size=1), st.integers(0, 4), st.integers(0, 4)).map(lambda p: (*p[0], p[1], p[2]))
eager = pytest.mark.parametrize("backend", ["numpy", "torch"])


@eager
@settings(max_examples=50)
@given(squares, st.sampled_from(DTYPES), st.integers(0, 3))
def test_systems_and_determinants_as_numpy(backend, shape, dtype, columns):
    x, b = regular(shape, dtype), draw((*shape[:-1], columns), dtype)
    with md.use_backend(backend):
        t = md.asarray(x)
        close(la.solve(t, md.asarray(b)), np.linalg.solve(x, b) if b.size else b, dtype, 20)
        close(la.inv(t), np.linalg.inv(x), dtype, 20)
        close(la.det(t), np.linalg.det(x), dtype, 20)
        sign, size = la.slogdet(t)
        close(sign, np.linalg.slogdet(x).sign, dtype, 20)
        close(size, np.linalg.slogdet(x).logabsdet, dtype, 20)
        if shape[-1]:
            close(la.matrix_power(t, -3), np.linalg.matrix_power(x, -3), dtype, 20)
        close(la.matrix_power(t, 0), np.broadcast_to(np.eye(shape[-1], dtype=dtype), shape), dtype)
        close(la.matrix_power(t, 5), np.linalg.matrix_power(x, 5), dtype, 40)
        p = definite(shape, dtype)
        close(la.cholesky(md.asarray(p)), np.linalg.cholesky(p), dtype, 10)
        close(la.cholesky(md.asarray(p), upper=True), adjoint(np.linalg.cholesky(p)), dtype, 10)


@eager
@settings(max_examples=50)
@given(oblongs, st.sampled_from(DTYPES))
def test_factors_multiply_to_the_matrix(backend, shape, dtype):
    """QR, SVD and eigenvalues: factors of the right shape and dtype, orthonormal, whose product is the matrix; values as NumPy's."""
    x, (*lead, m, n) = draw(shape, dtype), shape
    k, real = min(m, n), np.empty(0, dtype).real.dtype
    unit = lambda n: np.broadcast_to(np.eye(n, dtype=dtype), (*lead, n, n))
    with md.use_backend(backend):
        for mode, width in (("reduced", k), ("complete", m)):
            q, r = (v.numpy() for v in la.qr(md.asarray(x), mode=mode))
            assert q.shape == (*lead, m, width) and r.shape == (*lead, width, n) and q.dtype == r.dtype == dtype
            close(adjoint(q) @ q, unit(width), dtype, 10)
            close(q @ r, x, dtype, 20)
            assert not np.tril(r, -1).any()
        for full in (False, True):
            found = la.svd(md.asarray(x), full_matrices=full)
            u, s, vh = (v.numpy() for v in found)
            assert u.shape == (*lead, m, m if full else k) and vh.shape == (*lead, n if full else k, n) and s.shape == (*lead, k) and s.dtype == real
            close(adjoint(u) @ u, unit(u.shape[-1]), dtype, 10)
            close(vh @ adjoint(vh), unit(vh.shape[-2]), dtype, 10)
            close((u[..., :k] * s[..., None, :]) @ vh[..., :k, :], x, dtype, 20)
            close(found.S, la.svdvals(md.asarray(x)).numpy(), dtype, 10)
        close(la.svdvals(md.asarray(x)), np.linalg.svd(x, compute_uv=False), dtype, 10)
        p = la.pinv(md.asarray(x)).numpy()
        close(p, np.linalg.pinv(x, rtol=max(m, n, 1) * np.finfo(dtype).eps) if x.size else np.zeros((*lead, n, m), dtype), dtype, 1e4)
        rank = la.matrix_rank(md.asarray(x))
        assert rank.dtype is md.int64 and rank.numpy().tolist() == (np.full(lead, k) if not x.size else np.linalg.matrix_rank(x)).tolist()
        h = hermitian((*lead, n, n), dtype)
        w, v = (a.numpy() for a in la.eigh(md.asarray(np.tril(h))))
        assert v.dtype == dtype and w.dtype == real
        close((v * w[..., None, :]) @ adjoint(v), h, dtype, 20)
        close(adjoint(v) @ v, unit(n), dtype, 10)
        close(la.eigvalsh(md.asarray(h)), w, dtype, 10)
        x = regular((*lead, n, n), dtype)
        w, v = (a.numpy() for a in la.eig(md.asarray(x)))
        assert v.dtype == w.dtype == np.result_type(dtype, np.complex64)
        close(x @ v, v * w[..., None, :], v.dtype.name, 100)
        close(np.linalg.norm(v, axis=-2), np.ones((*lead, n)).astype(real), dtype, 10)
        close(la.eigvals(md.asarray(x)), w, w.dtype.name, 1000)


@eager
@settings(max_examples=30)
@given(oblongs.filter(lambda s: 0 not in s[-2:]), st.sampled_from(DTYPES), st.booleans())
def test_matrix_norms_as_numpy(backend, shape, dtype, keepdims):
    x = draw(shape, dtype)
    with md.use_backend(backend):
        for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
            want = np.linalg.norm(x, ord, axis=(-2, -1), keepdims=keepdims) if x.size else np.zeros((*shape[:-2], *[1] * (2 * keepdims)))
            close(la.matrix_norm(md.asarray(x), ord=ord, keepdims=keepdims), want.astype(np.empty(0, dtype).real.dtype), dtype, 20)


def everything(x):
    """Each function once, on matrices [2, 3, 3]."""
    h = x + md.conj(md.matrix_transpose(x))
    p = md.matmul(x, md.conj(md.matrix_transpose(x))) + md.eye(3, dtype=x.dtype)
    tall, wide = x[..., :2], x[..., :2, :]
    out = {"cholesky": la.cholesky(p), "det": la.det(x), "inv": la.inv(x), "solve": la.solve(x, tall), "power": la.matrix_power(x, 3)}
    out |= {"eig": la.eig(x + 5 * md.triu(md.ones((3, 3), dtype=x.dtype))), "eigvals": la.eigvals(x)}
    out |= {"slogdet": la.slogdet(x), "eigh": la.eigh(h), "eigvalsh": la.eigvalsh(h), "rank": la.matrix_rank(tall)}
    for name, a in {"square": x, "tall": tall, "wide": wide}.items():
        out |= {f"{mode} qr {name}": la.qr(a, mode=mode) for mode in ("reduced", "complete")}
        out |= {f"svd {full} {name}": la.svd(a, full_matrices=full) for full in (True, False)}
        out |= {f"svdvals {name}": la.svdvals(a), f"pinv {name}": la.pinv(a), f"norm {name}": la.matrix_norm(a, ord="nuc")}
    return out


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_backends_agree_eager_traced_and_batched(backend, dtype):
    """Also in what mathematics leaves open: signs and phases of vectors, and what completes them."""
    x = regular((2, 3, 3), dtype)
    with md.use_backend("numpy"):
        want = everything(md.asarray(x))
    runs = {"traced": md.jit(everything), "batched": md.jit(md.vmap(everything))}
    runs |= {} if backend in ("jax", "numba") else {"eager": everything}
    for how, run in runs.items():
        got = run(md.asarray(x))
        for name, w in want.items():
            for a, b in zip(md.tree.leaves(got[name]), md.tree.leaves(w), strict=True):
                assert a.dtype is b.dtype and a.shape == b.shape, (how, name)
                atol = 500 * EPS[dtype] * max(1, np.abs(b.numpy()).max())
                np.testing.assert_allclose(a.numpy(), b.numpy(), atol=atol, err_msg=f"{how} {name}")


def test_named_results(backend):
    x = md.asarray(np.diag([2.0, 1.0]))
    assert la.qr(x)._fields == ("Q", "R") and la.svd(x)._fields == ("U", "S", "Vh")
    assert la.eigh(x)._fields == ("eigenvalues", "eigenvectors") and la.slogdet(x)._fields == ("sign", "logabsdet")
    u, s, vh = la.svd(x)
    assert s.tolist() == [2.0, 1.0] and la.svd(x).S.tolist() == s.tolist() and u.tolist() == vh.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_vectors_have_the_sign_that_is_promised():
    for dtype in ("float64", "complex128"):
        u = la.svd(md.asarray(draw((5, 4, 3), dtype)), full_matrices=False).U.numpy()
        for v in (la.eigh(md.asarray(hermitian((5, 4, 4), dtype))).eigenvectors.numpy(), u):
            large = np.argmax(np.abs(v) >= 0.77 * np.abs(v).max(-2, keepdims=True), -2)
            first = np.take_along_axis(v, large[:, None], -2)
            assert (first.real > 0).all() and (abs(first.imag) < 1e-15).all()
    assert la.eigh(md.tensor([[0.0, 1.0], [1.0, 0.0]])).eigenvectors.numpy()[0].min() > 0  # equal but for rounding: the first counts


def test_matrices_without_numbers_give_nan_and_leave_the_others_alone(backend):
    x = np.stack([np.full((3, 3), np.nan), definite((3, 3))])
    for f in (la.eigvalsh, la.svdvals, la.det, la.inv, la.cholesky, lambda x: la.eigh(x).eigenvectors, lambda x: la.svd(x).Vh, lambda x: la.qr(x).Q):
        out = f(md.asarray(x)).numpy()
        assert np.isnan(out[0]).any() and np.isfinite(out[1]).all()


def test_rank_and_tolerance(backend):
    x = md.asarray(np.diag([1.0, 1e-3, 1e-9]))
    assert la.matrix_rank(x).item() == 3 and la.matrix_rank(x, rtol=1e-2).item() == 1
    assert la.matrix_rank(md.stack([x, x]), rtol=md.asarray([1e-6, 1e-2])).tolist() == [2, 1]
    assert la.pinv(x, rtol=1e-2).numpy().sum() == 1.0
    assert la.pinv(md.stack([x, x]), rtol=md.asarray([1e-6, 1e-2])).numpy().sum((1, 2)).round().tolist() == [1001.0, 1.0]


def test_a_product_of_numbers_without_axes(backend):
    for dtype in ("uint8", "float32", "complex128"):
        x = md.asarray(np.array(3, dtype))
        assert la.tensordot(x, x, axes=0).item() == md.jit(lambda x: la.tensordot(x, x, axes=((), ())))(x).item() == 9


def test_integers_become_floats(backend):
    x = md.asarray(np.array([[2, 1], [1, 2]]))
    for out in (la.inv(x), la.det(x), la.eigh(x).eigenvalues, la.svd(x).U, la.qr(x).R, la.cholesky(x), la.matrix_norm(x), la.pinv(x)):
        assert out.dtype is md.float32
    assert la.matrix_power(x, 2).dtype is md.int64 and la.cross(md.asarray([1, 2, 3]), md.asarray([3, 2, 1])).tolist() == [-4, 8, -4]


@given(st.sampled_from([-1, -2, 0]), st.sampled_from([(3, 3), (2, 3, 3), (1, 3, 3)]), st.sampled_from([(3, 3), (2, 3, 3)]))
@settings(max_examples=20)
def test_cross_as_numpy(axis, one, two):
    a, b = draw(one), draw(two)
    axis = axis if axis < 0 else -min(len(one), len(two))
    if a.shape[axis] == b.shape[axis] == 3:
        np.testing.assert_allclose(la.cross(md.asarray(a), md.asarray(b), axis=axis).numpy(), np.linalg.cross(a, b, axis=axis), atol=1e-14)


# ---- derivatives ------------------------------------------------------------------------------------------------------------------------
def weighted(lib, out, w):
    """A real number that every element enters with its own weight, twice."""
    return lib.sum(lib.real(out * out * w)) + lib.sum(lib.imag(out * w))


def herm(lib, x):
    t = lib.swapaxes(x, -1, -2)
    return x + (lib.conj(t) if x.dtype in (md.complex128,) or "complex" in str(x.dtype) else t)


#: f(lib, its linalg, x): functions of matrices on which no sign or phase of a vector shows.
SAME = {
    "cholesky": lambda lib, la, x: la.cholesky(lib.matmul(x, lib.conj(lib.swapaxes(x, -1, -2))) + herm(lib, x) * 0.01),
    "det": lambda lib, la, x: la.det(x),
    "slogdet": lambda lib, la, x: la.slogdet(x)[1] * la.slogdet(x)[0],
    "inv": lambda lib, la, x: la.inv(x),
    "solve": lambda lib, la, x: la.solve(x, lib.sin(x[..., :2])),
    "qr": lambda lib, la, x: lib.matmul(la.qr(x[..., :2])[0], la.qr(x[..., :2])[1] * 0.5 + 1),
    "qr wide": lambda lib, la, x: lib.matmul(la.qr(x[:, :2])[0], la.qr(x[:, :2])[1] * 0.5 + 1),
    "eigenvalues": lambda lib, la, x: la.eigh(herm(lib, x))[0],
    "eigvalsh": lambda lib, la, x: la.eigvalsh(herm(lib, x)),
    "eigenvectors": lambda lib, la, x: lib.abs(la.eigh(herm(lib, x))[1]),
    "eig": lambda lib, la, x: lib.abs(la.eig(x)[1]).sum((-1, -2)) + lib.sin(la.eig(x)[0]).sum(-1),
    "eigvals": lambda lib, la, x: lib.sin(la.eigvals(x)).sum(-1),
    "svdvals": lambda lib, la, x: la.svdvals(x[..., :2]),
    "singular vectors": lambda lib, la, x: lib.abs(la.svd(x, full_matrices=False)[0]) + lib.abs(la.svd(x, full_matrices=False)[2]),
    "singular vectors, tall": lambda lib, la, x: lib.abs(la.svd(x[..., :2], full_matrices=False)[0]),
    "singular vectors, wide": lambda lib, la, x: lib.abs(la.svd(x[:, :2], full_matrices=False)[2]),
    "pinv": lambda lib, la, x: la.pinv(x[..., :2]),
    "pinv wide": lambda lib, la, x: la.pinv(x[:, :2]),
    "matrix_power": lambda lib, la, x: la.matrix_power(x, 3),
    "nuclear norm": lambda lib, la, x: la.matrix_norm(x, ord="nuc"),
    "spectral norm": lambda lib, la, x: la.matrix_norm(x, ord=2),
    "cross": lambda lib, la, x: la.cross(x, lib.sin(x)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", SAME)
@pytest.mark.cpu
def test_gradients_are_those_of_torch(name, dtype):
    torch = pytest.importorskip("torch")
    x = regular((2, 3, 3), dtype)
    f = SAME[name]
    w = draw(tuple(f(md, la, md.asarray(x)).shape), "complex128")
    ours = md.grad(lambda x: weighted(md, f(md, la, x), md.asarray(w)))(md.asarray(x)).numpy()
    t = torch.tensor(x, requires_grad=True)
    out = f(torch, torch.linalg, t)
    ((out * out * torch.tensor(w)).real.sum() + (out * torch.tensor(w)).imag.sum()).backward()
    np.testing.assert_allclose(ours, t.grad.resolve_conj().numpy(), atol=1e-10 * np.abs(ours).max())


@pytest.mark.parametrize("name", ["inv", "det", "qr", "eigenvectors", "singular vectors", "pinv"])
def test_gradients_and_hessian_products_are_those_of_jax(name):
    jax = pytest.importorskip("jax")
    x, v = regular((3, 3)), draw((3, 3))
    f = SAME[name]
    w = draw(tuple(f(md, la, md.asarray(x)).shape), "complex128")
    ours = md.jvp(md.grad(lambda x: weighted(md, f(md, la, x), md.asarray(w))), (md.asarray(x),), (md.asarray(v),))
    with jax.enable_x64(True):
        jnp = jax.numpy
        run = jax.jit(lambda x, v: jax.jvp(jax.grad(lambda x: weighted(jnp, f(jnp, jnp.linalg, x), w)), (x,), (v,)))
        theirs = run(jnp.asarray(x), jnp.asarray(v))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-10 * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize(
    ("name", "f"),
    {
        "eig": lambda x: la.eig(x[:2]).eigenvectors, "q": lambda x: la.qr(x, mode="complete").Q, "r": lambda x: la.qr(x, mode="complete").R,
        "u": lambda x: la.svd(x).U, "vh": lambda x: la.svd(x).Vh,
        "wide": lambda x: la.svd(md.matrix_transpose(x)).Vh, "phase": lambda x: la.slogdet(x[:2]).sign,
        "eigenvectors": lambda x: la.eigh(x[:3] @ md.conj(md.matrix_transpose(x[:3])) * 1.0).eigenvectors,
    }.items(),
)  # fmt: skip
def test_what_no_peer_differentiates(name, f, dtype):
    """Columns that complete Q and U, and phases: against finite differences, to order 2, in both modes."""
    x = np.array([[4.0, 1.0], [1.5, 2.0], [0.5, 1.0], [-1.0, 0.3]]) + (1j * draw((4, 2)) * 0.3 if dtype == "complex128" else 0)
    if name == "eigenvectors":
        x = np.array([[4.0, 1.0, 0.2], [1.5, 2.0, 0.1], [0.5, 1.0, 1.0]]) + (0.3j * draw((3, 3)) if dtype == "complex128" else 0)
    md.testing.check_grad(f, [md.asarray(x.astype(dtype))], step=0.02)


def test_lower_triangle_alone_has_a_gradient():
    x = md.asarray(hermitian((3, 3)))
    for f in (la.eigvalsh, lambda x: la.eigh(x).eigenvectors, lambda x: la.cholesky(x + 9 * md.eye(3, dtype=md.float64))):
        g = md.grad(lambda x, f=f: md.sum(md.square(f(x)) * 1.5 + f(x)))(x).numpy()
        assert not np.triu(g, 1).any() and np.tril(g, -1).any()


# ---- errors -----------------------------------------------------------------------------------------------------------------------------
ERRORS = [
    (lambda x: la.qr(x, mode="r"), ValueError, "qr: mode 'r' is neither 'reduced' nor 'complete'"),
    (lambda x: la.qr(x[0]), ValueError, "qr: f32[3] is no matrix (or batch of them)"),
    (lambda x: la.svd(x[0]), ValueError, "svd: f32[3] is no matrix (or batch of them)"),
    (lambda x: la.eigh(x), ValueError, "eigh: f32[2,3] is no square matrix (or batch of them)"),
    (lambda x: la.cholesky(x), ValueError, "cholesky: f32[2,3] is no square matrix (or batch of them)"),
    (lambda x: la.det(x), ValueError, "det: f32[2,3] is no square matrix (or batch of them)"),
    (lambda x: la.inv(x), ValueError, "inv: f32[2,3] is no square matrix (or batch of them)"),
    (lambda x: la.slogdet(x), ValueError, "slogdet: f32[2,3] is no square matrix (or batch of them)"),
    (lambda x: la.solve(x, x), ValueError, "solve: x1 of shape (2, 3) and x2 of shape (2, 3); [..., n, n] and [..., n, k] are wanted"),
    (lambda x: la.matrix_power(x, 2), ValueError, "matrix_power: f32[2,3] is no square matrix (or batch of them)"),
    (lambda x: la.matrix_power(x[:, :2], 0.5), TypeError, "matrix_power: n must be an integer, not 0.5"),
    (lambda x: la.matrix_norm(x, ord=3), ValueError, "matrix_norm: ord 3 is none of 'fro', 'nuc', 1, -1, 2, -2, inf, -inf"),
    (lambda x: la.matrix_rank(x[0]), ValueError, "matrix_rank: f32[3] is no matrix (or batch of them)"),
    (lambda x: la.pinv(x, rtol=md.ones((2,))), ValueError, "pinv: rtol f32[2] for f32[2,3]; one for each matrix, or one for all, is wanted"),
    (lambda x: la.cross(x, x, axis=0), ValueError, "cross: axis -2 of f32[2,3] and f32[2,3] has sizes 2 and 2; 3 is wanted"),
    (lambda x: la.cross(x, x, axis=2), IndexError, "cross: axis 2 is out of range for 2 dimensions"),
]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_errors_read_the_same_everywhere(backend, call, error, text, traced):
    with pytest.raises(error, match=re.escape(text)):
        (md.jit(call) if traced else call)(md.ones((2, 3)))


def test_what_only_values_show_raises_when_eager_and_is_nan_when_traced(backend):
    cases = [(la.cholesky, -np.eye(2), "cholesky: the matrix is not positive definite"), (la.inv, np.ones((2, 2)), "inv: the matrix is singular"),
             (la.solve, np.zeros((2, 2)), "solve: the matrix is singular")]  # fmt: skip
    for f, x, text in cases:
        f = f if f is not la.solve else lambda x: la.solve(x, md.ones_like(x))
        with pytest.raises(ValueError, match=re.escape(text)):
            f(md.asarray(x))
        assert np.isnan(md.jit(f)(md.asarray(x)).numpy()).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_matrix_without_a_factor_is_told_of_beside_one_of_nan(backend, odd):
    none, other = md.zeros((2, 2)), md.eye(2) * odd
    for f in (la.inv, la.cholesky, lambda x: la.solve(x, md.ones(2)), lambda x: la.solve(x[0], md.stack([md.ones((2, 2)), x[1]]))):
        with pytest.raises(ValueError, match="singular|positive"):
            f(md.stack([none, other]))
        with md.out_of_bounds("raise-later"):
            late = md.jit(f)(md.stack([none, other]))
            with pytest.raises(ValueError, match="singular|positive"):
                late.numpy()
    assert la.inv(md.stack([md.eye(2), other])).shape == (2, 2, 2)


_NONE = {  # of what holds nan or infinities: nan all over, or what arithmetic makes of it
    "nan": np.array([[1.0, np.nan], [np.nan, 2.0]]), "inf": np.array([[1.0, np.inf], [np.inf, 2.0]]), "nan first": np.diag([np.nan, 1.0]),
    "inf first": np.diag([np.inf, 1.0]), "-inf first": np.diag([-np.inf, 1.0]), "large": np.diag([*np.ones(20), np.nan]),
}  # fmt: skip


def _of_nothing(x):
    every = [*la.eigh(x), la.eigvalsh(x), *la.eig(x), la.eigvals(x), *la.svd(x), la.svdvals(x), la.pinv(x), la.matrix_norm(x, ord=2)]
    return every, [la.cholesky(x), *la.qr(x), la.det(x), *la.slogdet(x), la.matrix_rank(x)], [la.solve(x, md.ones_like(x)), la.inv(x)]


_ON = [*((b, w) for b in ("numpy", "torch") for w in _NONE), ("jax", "nan first"), ("jax", "-inf first"), ("numba", "inf"), ("numba", "large")]


@pytest.mark.parametrize(("backend", "which"), _ON)  # what XLA takes to compile them all is too long for each
def test_what_holds_nan_or_infinities_raises_nothing_and_is_alike_eager_and_traced(backend, which):
    """Which elements of a solution a nan reaches is the library's elimination's to say, alike eager and traced."""
    x = _NONE[which]
    with md.use_backend("numpy"):
        _, want, solved = ([v.numpy() for v in vs] for vs in _of_nothing(md.asarray(x)))
    for run in (_of_nothing, md.jit(_of_nothing)):
        with md.use_backend(backend):
            every, follow, systems = ([v.numpy() for v in vs] for vs in run(md.asarray(x)))
        assert all(np.isnan(v).all() for v in every)
        for a, b in zip(follow, want, strict=True):
            np.testing.assert_array_equal(abs(a) if which == "large" else a, abs(b) if which == "large" else b)  # signs of reflections
        for a, b in zip(systems, solved, strict=True):
            np.testing.assert_array_equal(a, b) if np.isfinite(b).all() else np.testing.assert_(np.isnan(a).any())


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(
    ("shape", "ord", "axis"),
    [
        ((2, 3, 4), None, None), ((2, 3, 4), None, (0, 2)), ((3, 4), 1, None), ((3, 4), np.inf, None), ((4,), 3, None), ((2, 3, 4), 1, 1),
        ((2, 3, 4), "fro", (0, 2)), ((2, 3, 4), 1, (2, 0)), ((2, 3, 4), 1, (0, -1)), ((2, 3, 4), "nuc", (1, 2)), ((2, 3, 4), -np.inf, (0, 1)),
    ],
)  # fmt: skip
def test_norm_as_numpy(shape, ord, axis, keepdims):
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_allclose(md.linalg.norm(md.asarray(x), ord, axis, keepdims).numpy(), np.linalg.norm(x, ord, axis, keepdims), rtol=1e-12)
    if axis is not None:
        assert md.linalg.norm(md.asarray(x), ord, dim=axis, keepdim=keepdims).tolist() == md.linalg.norm(md.asarray(x), ord, axis, keepdims).tolist()


def test_norm_says_what_it_wants():
    with pytest.raises(ValueError, match="norm: ord 1 is for one axis or two, not for the 3 of f32"):
        md.linalg.norm(md.ones((2, 2, 2)), 1)
    with pytest.raises(ValueError, match="ord 'xy' is none of"):
        md.linalg.norm(md.ones((2, 2)), "xy")
