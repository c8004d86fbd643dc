"""JAX's modules in minidl.idioms.jax: names that JAX has, values that NumPy, SciPy and JAX give, collectives and implicit solutions in every mode."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats

import minidl as md
from minidl.idioms import jax
from minidl.idioms.jax import lax, nn, random, tree_util
from minidl.idioms.jax import numpy as jnp
from minidl.idioms.jax.scipy import linalg, ndimage, special, stats
from minidl.idioms.jax.scipy.sparse import linalg as sparse

theirs = pytest.importorskip("jax")
rng = np.random.default_rng(0)
S = rng.normal(size=(4, 4))
ARRAYS = {
    "a": rng.normal(size=(3, 4)), "v": rng.normal(size=4), "w": np.abs(rng.normal(size=6)) + 0.1, "i": np.array([3, 1, 3, 0, 5, 1]), "s": S,
    "p": S @ S.T + np.eye(4),
    "x": np.array([-2.0, -0.5, 0.0, 0.3, 0.7, 1.0, 1.5, 3.0, 8.0]), "q": np.array([0.1, 0.3, 0.5, 0.9]), "k": np.arange(6.0),
}  # fmt: skip
NUMPY = """reshape(a, (4, 3), order='F') | ravel(a, order='F') | sum(a, axis=0, where=a > 0, initial=2.0) | max(a, axis=1, where=a > 0, initial=-9.0)
mean(a, where=a > 0) | var(a, 0, ddof=1) | std(a, axis=1, where=a > -1) | any(a > 0, axis=1, where=a < 1) | linspace(v, 2.0, 5, axis=1)
linspace(0, 1, 5, endpoint=False) | geomspace(1.0, 100.0, 4) | meshgrid(v, v[:2], sparse=True) | mgrid[0:3, 1:4] | mgrid[0:1:5j] | r_[v, 0, 1:3]
c_[v, v] | eye(3, 4, k=1) | diag(v, 1) | diag(a) | tril_indices(3) | triu_indices(3, 1, 4) | nonzero(a > 0) | where(v > 0)
unique(i, return_index=True, return_inverse=True, return_counts=True) | unique(i[:, None] % 2, axis=0) | intersect1d(i, i[:3]) | setdiff1d(i, i[:2])
union1d(i, v) | setxor1d(i, i[:2]) | bincount(i, minlength=9) | compress(v > 0, a, axis=1) | select([a > 1, a > 0], [a, a * 2], -1.0)
choose(i % 3, [w, w * 2, w * 3]) | piecewise(v, [v < 0, v >= 0], [lambda x: -x, lambda x: x * 3]) | unravel_index(i, (3, 2)) | lexsort((w, i))
ravel_multi_index((i % 2, i % 3), (2, 3)) | resize(v, (3, 3)) | rollaxis(a[None], 2) | split(v, [1, 3]) | block([[s, s], [s, s]]) | insert(v, 1, 9.0)
insert(a, [0, 2], 5.0, axis=1) | delete(a, [0, 2], axis=1) | pad(a, ((1, 0), (0, 2)), constant_values=3.0) | pad(v, 2, mode='reflect')
pad(a, ((2, 1), (0, 3)), mode='mean', stat_length=2) | pad(a, 2, mode='median') | pad(i, 2, mode='mean') | pad(a, 1, mode='maximum')
pad(a, ((1, 0), (2, 2)), mode='minimum') | pad(a, ((2, 1), (0, 3)), mode='linear_ramp', end_values=4.0) | frexp(x) | spacing(x) | frexp(x * 1e-320)
intersect1d(i, i[:3], return_indices=True) | intersect1d(i, i[:3] + 0.0) | spacing(x * 1e300) | spacing(x * 1e-310)
histogram(v, bins=3) | bincount(i.astype('int8'))
pad(a, 1, mode='symmetric') | pad(a, 1, mode='wrap') | repeat(a, array([1, 0, 2]), axis=0) | apply_along_axis(lambda x: x * 2, 1, a) | round(a, 1)
vectorize(lambda x, y: x @ y, signature='(n),(n)->()')(a, v) | vectorize(lambda x, y: x[:, None] * y, signature='(n),(m)->(n,m)')(a[:, None], a[None])
cbrt(v) | logaddexp2(v, w[:4]) | modf(v) | ldexp(v, i[:4]) | gcd(i, 6) | lcm(i, 4) | unwrap(v * 9) | angle(v + 1j, deg=True) | cov(v, v * 2)
cov(a, ddof=0, fweights=array([1, 2, 1, 1]), aweights=abs(v)) | corrcoef(a) | cross(a[:, :3], a[:, 1:]) | vdot(a, a) | dot(a, v)
inner(a, a) | trace(s)
vander(v, 3, increasing=True) | ediff1d(v, to_end=9.0) | sort(a, axis=None) | sort_complex(v + 1j * w[:4])
histogram2d(v, v * 2, bins=3) | kaiser(6, 3.0)
blackman(6) | poly(v) | polyadd(v, v[:2]) | polymul(v, v[:2]) | polyder(v) | polyint(v, 2) | polyfit(v, w[:4], 2) | sort(roots(v)) | cumsum(a)
median(a, axis=0) | percentile(a, [20, 50]) | nanmean(a, axis=0) | diff(a, axis=0) | roll(a, 1, axis=0) | isin(i, array([1, 2]))
linalg.norm(s, 'nuc')
linalg.norm(a, ord=1, axis=0) | linalg.pinv(a) | linalg.slogdet(s) | linalg.qr(a, mode='r') | ix_(i[:2], i[:3]) | trapezoid(a, dx=0.5)
average(a, axis=0)"""
STATS = """norm.logpdf(x, 0.3, 2.0) | norm.logcdf(x * 5) | norm.ppf(q, 1.0, 2.0) | norm.isf(q) | uniform.logpdf(x) | expon.logpdf(x) | laplace.cdf(x)
logistic.ppf(q) | cauchy.cdf(x) | gamma.logpdf(x, 2.5) | gamma.cdf(x, 2.5, scale=2.0) | gamma.sf(x, 0.5) | chi2.cdf(x, 3.0) | beta.logpdf(x, 2.0, 3.0)
beta.cdf(x, 2.0, 3.0) | pareto.logpdf(x, 2.0) | t.logpdf(x, 3.0) | gennorm.cdf(x, 1.5) | truncnorm.logpdf(x, -1.0, 2.0) | poisson.logpmf(k, 2.0)
poisson.cdf(k, 2.0) | bernoulli.logpmf(k, 0.3) | geom.logpmf(k, 0.3) | binom.logpmf(k, 4, 0.3) | nbinom.logpmf(k, 4.0, 0.3) | gumbel_r.logpdf(x)
betabinom.logpmf(k, 4, 2.0, 3.0) | multivariate_normal.logpdf(s, s[0], p) | sem(s) | rankdata(x)"""
SPECIAL = """xlog1py(x, x * 0.4) | entr(x) | rel_entr(abs(x), x) | log_ndtr(x * 6) | gamma(x + 0.1) | beta(k + 0.5, 2.0) | gammainc(k + 0.5, x[2:8])
gammaincc(k + 0.5, abs(x[2:8]) * 4) | betainc(k + 0.5, 2.5, x[2] + 0.4) | zeta(k + 1.5, 2.0) | polygamma(2, k + 1.0) | i1(x) | i0e(x * 30)
i1e(x * 30) | logsumexp(s, axis=0, b=s, return_sign=True) | erfcx(x * 3) | comb(5.0, k) | multigammaln(k[3], 3)"""
LINALG = """cholesky(p) | solve(p, v, assume_a='pos') | lu(s) | lu_solve(lu_factor(s), v) | lu_solve(lu_factor(s), v, trans=1) | block_diag(s, s[:2])
toeplitz(v[:3], x[:4]) | hankel(x) | circulant(v) | sqrtm(p) | polar(s) | solve_triangular(p, v, lower=True) | cho_solve(cho_factor(p), v)"""


@pytest.fixture(autouse=True)
def _floats():
    before = md.get_default_dtype()
    md.set_default_dtype(md.float64)
    yield
    md.set_default_dtype(before)


def flat(found):
    if isinstance(found, (tuple, list)):
        return [x for v in found for x in flat(v)]
    return [np.asarray(found.numpy() if isinstance(found, md.Tensor) else found)]


def evaluated(text, room, arrays):
    words = [w for w in re.findall(r"\w+", text) if w not in arrays and hasattr(room, w)]
    return flat(eval(text, {"abs": abs} | {w: getattr(room, w) for w in words} | arrays))


@pytest.mark.parametrize(
    ("ours", "known", "table"),
    [(jnp, np, NUMPY), (stats, scipy.stats, STATS), (special, scipy.special, SPECIAL), (linalg, scipy.linalg, LINALG)],
    ids=["numpy", "stats", "special", "linalg"],
)
def test_the_values_are_numpys_and_scipys(ours, known, table):
    tensors = {n: md.asarray(v) for n, v in ARRAYS.items()}
    for text in table.replace("\n", " | ").split(" | "):
        with np.errstate(all="ignore"):
            wanted = evaluated(text, known, ARRAYS)
        got = evaluated(text, ours, tensors)
        assert [g.shape for g in got] == [w.shape for w in wanted], text
        for g, w in zip(got, wanted, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-11, err_msg=text)


BESIDE = [
    (jnp, """linspace(v, 2.0, 5, axis=1) | insert(v, 1, 9.0) | delete(a, [0, 2], axis=1) | ldexp(v, i[:4]) | gcd(i, 6) | lcm(i, 4) | polyint(v, 2)
    ediff1d(v, to_end=9.0) | trapezoid(a, dx=0.5)"""),
    (stats, "norm.logpdf(x, 0.3, 2.0) | beta.cdf(x, 2.0, 3.0) | poisson.logpmf(k, 2.0)"),
    (special, "gammainc(k + 0.5, x[2:8]) | betainc(k + 0.5, 2.5, 0.4) | zeta(k + 1.5, 2.0) | comb(5.0, k) | xlog1py(0.5, k)"),
    (lax, "shift_right_logical(i, 1) | clz(i)"),
]  # fmt: skip


@pytest.mark.parametrize(("room", "table"), BESIDE, ids=["numpy", "stats", "special", "lax"])
def test_numbers_lie_beside_the_tensors_that_they_meet(room, table):
    here, there = ({n: md.asarray(v, backend=b) for n, v in ARRAYS.items()} for b in ("numpy", "torch"))
    for text in table.replace("\n", " | ").split(" | "):
        for g, w in zip(evaluated(text.strip(), room, there), evaluated(text.strip(), room, here), strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-11, err_msg=text)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_incomplete_gamma_function_of_large_numbers_keeps_its_digits(dtype):
    a = np.array([40.0, 60.0, 3e3, 1e5, 1e6])[:, None]
    x = a * np.array([0.9, 1.0, 1.003, 1.3])
    for name in ("gammainc", "gammaincc"):
        found = getattr(special, name)(md.asarray(a, dtype=dtype), md.asarray(x, dtype=dtype)).numpy()
        wanted = getattr(scipy.special, name)(a.astype(dtype), x.astype(dtype))
        np.testing.assert_allclose(found, wanted, rtol=1e-9 if dtype == "float64" else 2e-3, atol=1e-12 if dtype == "float64" else 2e-4)


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 5e-6), ("float64", 1e-13)])
def test_the_incomplete_gamma_function_needs_no_more_steps_for_a_larger_number(dtype, rtol, backend):
    a = np.array([1.1e5, 1e7, 1e12])[:, None]
    x = a * np.array([0.5, 1.0, 1.0, 1.0, 2.0]) + np.sqrt(a) * np.array([0.0, -3.0, 0.5, 6.0, 0.0])
    a = np.append(a + 0 * x, [np.inf, np.inf, np.inf, 2.0]).astype(dtype)
    x = np.append(x, [0.0, 1e30, np.inf, np.inf]).astype(dtype)
    for name in ("gammainc", "gammaincc"):
        found = getattr(special, name)(md.asarray(a, backend=backend), md.asarray(x, backend=backend)).numpy()
        np.testing.assert_allclose(found, getattr(scipy.special, name)(a, x), rtol=rtol, atol=1e-30)
    if dtype == "float64":  # the density; the rounding of a * log(x) alone is 1e-10 of the difference
        slope = md.grad(special.gammainc, (0, 1))(md.asarray(1.2e5, dtype=dtype), md.asarray(1.203e5, dtype=dtype))
        around = (scipy.special.gammainc(1.2e5 + 1, 1.203e5) - scipy.special.gammainc(1.2e5 - 1, 1.203e5)) / 2
        np.testing.assert_allclose(slope[0].item(), around, rtol=1e-6)
        np.testing.assert_allclose(slope[1].item(), scipy.stats.gamma.pdf(1.203e5, 1.2e5), rtol=1e-9)


def test_places_between_the_elements_of_an_image():
    from scipy.ndimage import map_coordinates

    image, places = ARRAYS["a"], rng.uniform(-0.4, 2.4, size=(2, 20))
    for order, mode in ((0, "nearest"), (1, "nearest"), (1, "mirror"), (1, "reflect")):
        got = ndimage.map_coordinates(md.asarray(image), [md.asarray(p) for p in places], order, mode)
        np.testing.assert_allclose(got.numpy(), map_coordinates(image, places, order=order, mode=mode), rtol=1e-9, err_msg=mode)


#: As NumPy has them too, and what JAX alone has: the value that it gives.
EDGES = """cumsum(array([100, 100], int8)) = [100, -56] | nanargmax(array([[nan, nan], [nan, 1.0]]), axis=1) = [-1, 1]
take(array([1, 2]), array([-1, 5]), mode='clip') = [1, 2] | take_along_axis(array([1.0, 2.0]), array([1, 7]), 0) = [2.0, nan]
take_along_axis(array([[1, 2]]), array([1, -1, -2]), None) = [2, 2, 1]
ldexp(array([0.0, inf, 1e300]), array([2000, -2000, -1000])) = [0.0, inf, 1e300 * 2.0**-1000]
diff(array([1.0, 3.0]), prepend=0.0) = [1.0, 2.0] | diff(array([True, True, False])) = [False, True] | logical_xor(array([0, 2]), 1) = [True, False]
roll(arange(4), (1, 2), axis=0) = [1, 2, 3, 0] | outer(array([[1, 2]]), 3) = [[3], [6]] | unique(array([1j, 0, 1j])) = [0, 1j]
argsort(array([1j, 1, 0])) = [2, 0, 1] | fill_diagonal(zeros((3, 3)), array([1.0, 2.0]), inplace=False) = [[1, 0, 0], [0, 2, 0], [0, 0, 1]]"""


def test_edges_are_jaxs():
    for case in EDGES.replace("\n", " | ").split(" | "):
        text, _, wanted = case.partition(" = ")
        words = {w: getattr(jnp, w) for w in re.findall(r"\w+", text) if w not in ("True", "False") and hasattr(jnp, w)}
        assert_equal = np.testing.assert_array_equal
        assert_equal(eval(text, dict(words)).numpy(), eval(wanted, {"nan": np.nan, "inf": np.inf}), err_msg=text)
    assert md.jit(lambda x: jnp.allclose(x, x))(md.ones(2)).item() is True
    small = md.asarray(np.array([100, 100, -1], np.int8))
    for f, wanted in (
        (lax.cumsum, [100, -56, -57]), (lambda x: lax.reduce_sum(x, (0,)), -57), (lax.population_count, [3, 3, 8]),
        (lambda x: lax.bitcast_convert_type(x, np.uint8), [100, 100, 255]),
    ):  # fmt: skip
        found = f(small)
        assert found.tolist() == wanted and found.dtype.bits == 8
    lost = [special.log_ndtr, stats.norm.logpdf, stats.norm.cdf, stats.expon.sf, stats.logistic.logpdf, lambda x: special.xlog1py(0.0, x)]
    assert all(np.isnan(f(md.tensor(math.nan)).item()) for f in lost)
    np.testing.assert_allclose(special.poch(md.tensor([-0.3, -2.3]), 2.0).numpy(), [-0.21, 2.99])
    x = md.arange(8.0).reshape(2, 2, 2)
    for f in (
        lambda v, a: lax.all_gather(v, "i", axis=a, tiled=True), lambda v, a: lax.psum_scatter(v, "i", scatter_dimension=a),
        lambda v, a: lax.all_to_all(v, "i", a, a, tiled=True),
    ):  # fmt: skip
        one, other = (jax.vmap(lambda v: f(v, a), axis_name="i")(x).tolist() for a in (-1, 1))  # noqa: B023
        assert one == other


def test_every_name_is_one_of_jaxs():
    for name in ("numpy", "numpy.linalg", "lax", "nn", "nn.initializers", "random", "scipy.special", "scipy.linalg", "tree", "tree_util"):
        known = importlib.import_module(f"jax.{name}")
        room = importlib.import_module(f"minidl.idioms.jax.{name}")
        names = [*getattr(room, "NAMES", getattr(room, "__all__", [])), *getattr(room, "_SAME", "").split()]
        assert not [n for n in names if not hasattr(known, n) and n not in ("fix", "rint")], name
        assert not [n for n in names if getattr(room, n, None) is None and n != "newaxis"], name
    with pytest.raises(AttributeError, match=r"no attribute 'rng_uniform'; jax.random.uniform"):
        _ = lax.rng_uniform
    with pytest.raises(TypeError, match=r"argmax: out=1 has no counterpart"):
        jnp.argmax(jnp.ones(2), out=1)


def test_sizes_that_are_given_can_be_traced():
    def f(x):
        return jnp.nonzero(x > 1, size=4, fill_value=-1), jnp.unique(x, size=3, return_counts=True), jnp.repeat(x, x, total_repeat_length=7)

    x = np.array([3, 1, 3])
    for run in (f, md.jit(f)):
        got = flat(run(md.asarray(x)))
        for g, w in zip(got, ([0, 2, -1, -1], [1, 3, 1], [1, 2, 0], [3, 3, 3, 1, 3, 3, 3]), strict=True):
            assert g.tolist() == w
    assert jnp.einsum(jnp.eye(2), [0, 1], jnp.ones(2), [1]).tolist() == [1.0, 1.0] and jnp.where(md.tensor([0, 2]), 1.0, 5.0).tolist() == [5.0, 1.0]
    assert jnp.diff(md.asarray(x), prepend=1).tolist() == [2, -2, 2] and jnp.searchsorted(md.asarray([1, 3]), 2, method="sort").item() == 1
    with pytest.raises(TypeError, match="give size="):
        md.jit(lambda x: jnp.unique(x))(md.asarray(x))


#: name -> f(lax, vmap, x, y) of x [4, 3, 2] and y [4, 4, 2].
COLLECTIVES = {
    "psum": lambda lax, vmap, x, y: vmap(lambda v: v / lax.psum(v**2, "i") + lax.pmean(v, "i"), axis_name="i")(x),
    "gather": lambda lax, vmap, x, y: vmap(lambda v: lax.all_gather(v, "i", axis=1, tiled=True) * lax.axis_index("i"), axis_name="i")(x),
    "scatter": lambda lax, vmap, x, y: vmap(lambda v: lax.psum_scatter(v, "i") * lax.psum(1, "i"), axis_name="i")(y),
    "permute": lambda lax, vmap, x, y: vmap(
        lambda v: lax.fori_loop(0, 3, lambda k, c: c * 0.5 + v * lax.ppermute(c, "i", [(k, (k + 1) % 4) for k in range(4)]), v), axis_name="i"
    )(x),
    "all to all": lambda lax, vmap, x, y: vmap(lambda v: v * lax.all_to_all(v, "i", 0, 0), axis_name="i")(y),
    "nested": lambda lax, vmap, x, y: vmap(
        vmap(lambda v: v / lax.psum(v**2, "i") + lax.psum(v, "j") * lax.psum(v, ("i", "j")), axis_name="j"), axis_name="i"
    )(x),
    "scan": lambda lax, vmap, x, y: vmap(
        lambda v: lax.scan(lambda c, w: (c + lax.psum(w * c, "i") * 0.1, c), v[0], v)[1] + lax.axis_index("i"), axis_name="i"
    )(x),
}  # fmt: skip


def test_collectives_compute_and_differentiate_as_jaxs():
    """On NumPy: nothing is left of a collective when a backend sees the program."""
    x, y = rng.normal(size=(4, 3, 2)).astype(np.float32), rng.normal(size=(4, 4, 2)).astype(np.float32)

    def all_of(lax, vmap, sin):
        values = lambda x, y: [f(lax, vmap, x, y) for f in COLLECTIVES.values()]
        return values, lambda x, y: sum(sin(v).sum() for v in values(x, y))

    (values, total), (wanted, whole) = all_of(lax, jax.vmap, md.sin), all_of(theirs.lax, theirs.vmap, theirs.numpy.sin)
    want, gradients = theirs.jit(lambda x, y: (wanted(x, y), theirs.grad(whole, (0, 1))(x, y)))(x, y)
    tensors = md.asarray(x), md.asarray(y)
    for run in (lambda f: f, md.jit):
        got, slopes = run(lambda x, y: (values(x, y), md.grad(total, (0, 1))(x, y)))(*tensors)
        for g, w, name in zip((*got, *slopes), (*want, *gradients), (*COLLECTIVES, "dx", "dy"), strict=True):
            np.testing.assert_allclose(g.numpy(), w, rtol=2e-3, atol=2e-3, err_msg=name)
    moved = md.jvp(total, tensors, tensors)[1].item()
    assert abs(moved - sum(float((g * v).sum()) for g, v in zip(gradients, (x, y), strict=True))) < 1e-2 * (1 + abs(moved))


def test_collectives_name_what_is_not_mapped():
    with pytest.raises(NameError, match="the axis 'k' is not mapped here"):
        jax.vmap(lambda x: lax.psum(x, "k"), axis_name="i")(md.ones(2))
    assert jax.pmap(lambda n, x: x * n + lax.psum(x, "i"), axis_name="i", static_broadcasted_argnums=0)(2, md.ones(3)).tolist() == [5.0] * 3


def test_solutions_differentiate_as_what_they_solve():
    a, b = md.asarray(S), md.asarray(ARRAYS["v"])
    positive = lambda a: a @ a.T + 2.0 * md.eye(4)
    ways = {
        "cg": (lambda a, b: sparse.cg(lambda v: positive(a) @ v, b, tol=1e-13)[0], lambda a, b: md.linalg.solve(positive(a), b)),
        "bicgstab": (lambda a, b: sparse.bicgstab(positive(a), b, tol=1e-13)[0], lambda a, b: md.linalg.solve(positive(a), b)),
        "gmres": (lambda a, b: sparse.gmres(positive(a), b, tol=1e-13)[0], lambda a, b: md.linalg.solve(positive(a), b)),
        "linear": (
            lambda a, b: lax.custom_linear_solve(lambda x: a @ x, b, lambda f, r: md.linalg.solve(a, r), lambda f, r: md.linalg.solve(a.T, r)),
            md.linalg.solve,
        ),
        "root": (
            lambda a, b: lax.custom_root(
                lambda x: x**3 - md.exp(b) * a[0],
                md.ones(4),
                lambda f, x: lax.fori_loop(0, 60, lambda i, x: x - f(x) / (3 * x * x + 1e-30), x),
                lambda g, y: y / g(md.ones_like(y)),
            ),
            lambda a, b: jnp.cbrt(md.exp(b) * a[0]),
        ),
    }
    for name, (found, wanted) in ways.items():
        first = lambda f: md.grad(lambda a, b: md.sum(md.sin(f(a, b))), (0, 1))
        second = lambda f: md.grad(lambda a, b: sum(md.sum(md.cos(g)) for g in first(f)(a, b)), (0, 1))  # noqa: B023
        for order in (lambda f: f, first, second, lambda f: lambda a, b: md.jvp(f, (a, b), (a.T, b))[1]):
            want = flat(order(wanted)(a, b))
            for run in (order(found), md.jit(order(found))):
                for g, w in zip(flat(run(a, b)), want, strict=True):
                    np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-9 + 1e-7 * np.abs(w).max(), err_msg=name)


def test_paths_and_types_of_ones_own():
    @tree_util.register_dataclass
    @dataclasses.dataclass
    class Layer:
        w: object
        name: str = dataclasses.field(metadata={"static": True}, default="first")

    tree = {"b": [1, (2,)], "a": Layer(3)}
    pairs, structure = tree_util.tree_flatten_with_path(tree)
    assert [(tree_util.keystr(p), v) for p, v in pairs] == [("['a'].w", 3), ("['b'][0]", 1), ("['b'][1][0]", 2)]
    assert tree_util.tree_unflatten(structure, [30, 10, 20])["a"] == Layer(30)
    assert tree_util.tree_map_with_path(lambda p, x, y: (len(p), x + y[0]), [1], [(2, 3)]) == [(1, 3)]
    assert tree_util.tree_structure(Layer(1, "x")) != tree_util.tree_structure(Layer(1, "y"))


def test_graphs_and_shapes_without_values():
    shape = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    assert jax.eval_shape(lambda x: {"y": x @ x.T}, shape) == {"y": jax.ShapeDtypeStruct((2, 2), md.float32)}
    lowered = jax.jit(lambda x: md.sin(x) @ x.T).lower(shape)
    assert "sin" in lowered.as_text() and lowered.cost_analysis()["flops"] == 6 + 2 * 2 * 2 * 3 and lowered.out_info.shape == (2, 2)
    assert lowered.compile()(md.ones(2, 3, dtype=md.float32)).shape == (2, 2)
    with pytest.raises(TypeError, match="compiled for"):
        lowered.compile()(md.ones(3, 3))
    assert jax.vjp(lambda x: x * 3.0, md.tensor(1.0))[1](2.0)[0].item() == 6.0  # a number for a cotangent
    f = jax.custom_jvp(lambda x, y: x * y)
    f.defjvps(lambda t, out, x, y: t * 5.0, None)
    assert [g.item() for g in jax.jit(jax.grad(f, (0, 1)))(md.tensor(2.0), md.tensor(3.0))] == [5.0, 0.0]


def test_callbacks_run_where_values_are(capsys):
    assert jax.pure_callback(np.sort, jax.ShapeDtypeStruct((2,), md.float64), md.tensor([2.0, 1.0])).tolist() == [1.0, 2.0]
    with pytest.raises(TypeError, match="pure_callback: the arguments have no values"):
        md.jit(lambda x: jax.pure_callback(np.sort, x, x))(md.ones(2))
    from minidl.idioms.jax import debug

    debug.print("x = {}", md.ones(1))
    assert capsys.readouterr().out == "x = [1.]\n"
    with pytest.warns(UserWarning, match="left out"):
        md.jit(lambda x: [debug.print("{}", x), x * 2][1])(md.ones(2))


def test_draws_and_activations_are_jaxs():
    """In float32, which needs no setting of JAX's."""
    md.set_default_dtype(md.float32)
    key, draws = theirs.random.PRNGKey(7), theirs.random
    x = np.array([-2.0, -0.3, 0.0, 0.7, 3.0], np.float32)
    cases = {
        "maxwell": lambda r, k: r.maxwell(k, (4,)), "rayleigh": lambda r, k: r.rayleigh(k, 2.0, (4,)), "wald": lambda r, k: r.wald(k, 1.5, (4,)),
        "triangular": lambda r, k: r.triangular(k, 0.0, 0.3, 1.0, (5,)), "geometric": lambda r, k: r.geometric(k, 0.3, (5,)),
        "pareto": lambda r, k: r.pareto(k, 2.0, (4,)), "rademacher": lambda r, k: r.rademacher(k, (5,)),
        "weibull": lambda r, k: r.weibull_min(k, 1.0, 2.0, (3,)),
    }  # fmt: skip
    for name, draw in cases.items():
        np.testing.assert_allclose(draw(random, random.PRNGKey(7)).numpy(), draw(draws, key), rtol=1e-5, err_msg=name)
    for name in ("glorot_uniform", "he_normal", "lecun_normal"):
        got, want = getattr(nn.initializers, name)()(random.key(7), (3, 4)), getattr(theirs.nn.initializers, name)()(key, (3, 4))
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=1e-6, err_msg=name)
    names = ("gelu", "celu", "elu", "silu", "mish", "hard_silu", "squareplus", "sparse_plus", "log_sigmoid", "standardize")
    acts = {n: lambda N, v, n=n: getattr(N, n)(v) for n in names}
    acts |= {"exact": lambda N, v: N.gelu(v, approximate=False), "masked": lambda N, v: N.softmax(v, where=v > 0)}
    wanted = theirs.jit(lambda v: [f(theirs.nn, v) for f in acts.values()])(x)
    for (name, f), want in zip(acts.items(), wanted, strict=True):
        np.testing.assert_allclose(f(nn, md.asarray(x)).numpy(), want, rtol=1e-5, atol=1e-6, err_msg=name)


def test_solutions_may_read_integers():
    labels, a = md.tensor([1, 0]), md.tensor([[2.0, 0.5], [0.5, 3.0]])

    def f(b):
        row = lambda v: (a @ v)[labels][labels]
        return jnp.sum(lax.custom_linear_solve(row, b, lambda mv, r: jnp.linalg.solve(a, r), symmetric=True) ** 2)

    known = md.grad(lambda b: md.sum(md.linalg.solve(a, b) ** 2))(md.ones(2))
    np.testing.assert_allclose(jax.jit(jax.grad(f))(md.ones(2)).numpy(), known.numpy(), rtol=1e-12)


def test_trees_turn_inside_out_without_a_structure_for_the_inside():
    assert jax.tree.transpose(jax.tree.structure([0, 0]), None, [(1, {"a": 2}), (3, {"a": 4})]) == ([1, 3], {"a": [2, 4]})


def test_numpys_reductions_take_tensors():
    x = md.asarray(ARRAYS["a"])
    for name in ("sum", "mean", "std", "var", "max", "min", "prod", "argmax"):
        for axis in (None, 1):
            found = getattr(np, name)(x, axis=axis)
            assert isinstance(found, md.Tensor)
            np.testing.assert_allclose(found.numpy(), getattr(np, name)(ARRAYS["a"], axis=axis), rtol=1e-12)
    assert np.any(x > 0).item() and not np.all(x > 0).item()
    with pytest.raises(TypeError, match="out"):
        x.sum(out=md.zeros(()))


def test_weights_are_counted_as_floats_and_no_element_has_no_mean():
    assert jnp.histogram(md.tensor([0.0, 1.0]), 2, weights=md.tensor([1, 2], dtype=md.int32))[0].dtype.is_float
    for mode in ("mean", "minimum"):
        with pytest.raises(ValueError, match="stat_length"):
            jnp.pad(md.ones(3), 1, mode=mode, stat_length=0)


def test_dtypes_are_made_of_names_and_are_instances():
    assert jnp.dtype("int32") is jnp.dtype(np.int32) is jnp.int32
    assert isinstance(jnp.ones(2).dtype, jnp.dtype) and not isinstance("int32", jnp.dtype)


def test_axes_are_transposed_by_integers():
    x = md.ones((2, 3, 4, 5))
    assert x.transpose(0, 2, 1, 3).shape == x.transpose((0, 2, 1, 3)).shape == (2, 4, 3, 5) and x.transpose(0, 1).shape == (3, 2, 4, 5)
    with pytest.raises(ValueError, match="permute_dims"):
        x.transpose(0, 1, 2)


def test_structures_count_their_nodes():
    for tree in (1, None, [1, (2, None)], {"a": [1], "b": ()}):
        ours, known = jax.tree.structure(tree), theirs.tree.structure(tree)
        assert (ours.num_leaves, ours.num_nodes) == (known.num_leaves, known.num_nodes)
