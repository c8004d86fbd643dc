"""Libraries of the Array API standard on minidl's tensors, unchanged: array-api-compat, array-api-extra, einops and SciPy, on every backend.

einops has two doors. `einops.array_api` is the one for every library of the standard. The plain functions (`einops.rearrange`) and the layers know
arrays by type: einops looks through the subclasses of a class of its own, and `minidl.nn.einops` defines one when it is imported. Before, the plain
functions say "Tensor type unknown to einops": importing einops whenever minidl is, or a hook in Python's imports, would be the other ways.

SciPy's functions of the array API mode are called by hundreds below, and compared with what SciPy makes of the NumPy arrays. Those that do not
support the standard (SciPy lists them as "np_only") convert to NumPy and answer with NumPy's arrays, as they do for every other library. Left out
are three that SciPy itself marks as beyond the standard: RBFInterpolator (`d.view(float)`), and nsum and tanhsinh up to infinity, which write through
views of NumPy's memory.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl as md

HERE = Path(__file__).resolve().parent


def test_array_api_compat(backend):
    import array_api_compat

    x = md.asarray([1.0, 2.0])
    assert array_api_compat.array_namespace(x, md.ones(2)) is md and array_api_compat.is_array_api_obj(x)
    assert array_api_compat.device(x) == x.device and array_api_compat.to_device(x, x.device) is x and array_api_compat.size(x) == 2


# ---- einops -----------------------------------------------------------------------------------------------------------------------------
def test_einops(backend):
    import einops.array_api as einops

    data = np.arange(24.0).reshape(2, 3, 4)
    x = md.asarray(data)
    assert np.array_equal(einops.rearrange(x, "a b c -> c (a b)").numpy(), data.transpose(2, 0, 1).reshape(4, 6))
    assert np.array_equal(einops.rearrange(x, "(p a) b c -> p b (a c)", p=2).numpy(), data)
    assert np.array_equal(einops.rearrange([x, x], "n a b c -> a b c n").numpy(), np.stack([data, data], axis=-1))
    assert einops.rearrange(x, "a b c -> a 1 b c").shape == (2, 1, 3, 4)
    for how in ("sum", "mean", "max", "min", "prod"):
        assert np.allclose(einops.reduce(x, "a b c -> b", how).numpy(), getattr(data, how)(axis=(0, 2)))
    assert np.array_equal(einops.reduce(x > 5, "a b c -> b", "any").numpy(), (data > 5).any((0, 2)))
    assert np.array_equal(einops.repeat(x, "a b c -> a (b d) c", d=2).numpy(), np.repeat(data, 2, axis=1))
    packed, shapes = einops.pack([x, x[:, 0]], "a * c")
    assert packed.shape == (2, 4, 4) and [tuple(s) for s in shapes] == [(3,), ()]
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(einops.unpack(packed, shapes, "a * c"), (x, x[:, 0]), strict=True))
    assert isinstance(einops.asnumpy(x), np.ndarray) and np.array_equal(einops.asnumpy(x), data)
    assert np.array_equal(md.einsum("a b c, a b c -> b", x, x).numpy(), np.einsum("abc,abc->b", data, data))
    grad = md.grad(lambda v: einops.reduce(v * v, "a b c -> b", "sum")[1])
    for g in (grad, md.jit(grad)):
        assert np.array_equal(g(x).numpy(), 2 * data * np.array([0, 1, 0]).reshape(1, 3, 1))
    assert np.array_equal(md.jit(lambda v: einops.rearrange(v, "a b c -> (c b a)"))(x).numpy(), data.transpose(2, 1, 0).reshape(-1))
    assert np.array_equal(md.vmap(lambda v: einops.rearrange(v, "b c -> (c b)"))(x).numpy(), data.transpose(0, 2, 1).reshape(2, -1))


def test_einops_by_its_own_functions_and_layers():
    torch = pytest.importorskip("torch")
    import einops
    from einops.layers import torch as theirs

    from minidl.nn import einops as ours

    data = np.random.default_rng(0).normal(size=(2, 4, 6))
    x = md.asarray(data)
    for how in ("min", "max", "sum", "mean", "prod"):
        assert np.allclose(einops.reduce(x, "a (b c) d -> b d", how, c=2).numpy(), einops.reduce(data, "a (b c) d -> b d", how, c=2))
    assert np.array_equal(einops.repeat(x, "a b c -> a (b r) c q", r=2, q=3).numpy(), einops.repeat(data, "a b c -> a (b r) c q", r=2, q=3))
    assert np.allclose(einops.einsum(x, x, "a b c, a d c -> a b d").numpy(), data @ data.transpose(0, 2, 1))
    rows = md.vmap(lambda v: einops.rearrange(v, "b (c d) -> (b d) c", d=2))(x)
    assert np.array_equal(rows.numpy(), einops.rearrange(data, "a b (c d) -> a (b d) c", d=2))
    with pytest.raises(einops.EinopsError, match="can't divide axis"):
        ours.Rearrange("a b (c d) -> a b c d", d=4)(x)
    pattern, sizes = "b (h p) c -> b h (p d)", {"weight_shape": "p c d h", "bias_shape": "d", "h": 2, "p": 2, "c": 6, "d": 3}
    mine, other = ours.EinMix(pattern, **sizes).double(), theirs.EinMix(pattern, **sizes).double()
    mine.load_state_dict({name: md.asarray(value.numpy()) for name, value in other.state_dict().items()})
    net, of_torch = md.nn.Sequential(mine, ours.Reduce("b h c -> b c", "max")), theirs.Reduce("b h c -> b c", "max")
    t = torch.tensor(data, requires_grad=True)
    of_torch(other(t)).sum().backward()
    for g in (md.grad(lambda v: net(v).sum()), md.jit(md.grad(lambda v: net(v).sum()))):
        assert np.allclose(g(x).detach().numpy(), t.grad.numpy())


def test_the_plain_functions_of_einops_know_arrays_by_type():
    code = """
import einops, minidl as md
try:
    einops.rearrange(md.ones((2, 3)), "a b -> b a")
except RuntimeError as error:
    assert "Tensor type unknown to einops" in str(error)
import minidl.nn.einops
assert einops.rearrange(md.ones((2, 3)), "a b -> b a").shape == (3, 2)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- array-api-extra --------------------------------------------------------------------------------------------------------------------
def test_array_api_extra(backend):
    import array_api_extra as xpx

    x = md.asarray([3.0, 1.0, 2.0])
    assert xpx.at(x)[1].set(9.0, copy=True).tolist() == [3.0, 9.0, 2.0] and xpx.at(x, x > 1).multiply(2, copy=True).tolist() == [6.0, 1.0, 4.0]
    y = xpx.at(x, 0).add(1.0, copy=True)
    assert y.tolist() == [4.0, 1.0, 2.0] and x.tolist() == [3.0, 1.0, 2.0]
    xpx.at(y, 1).power(3.0, copy=False), xpx.at(y, 2).min(1.0, copy=False), xpx.at(y, 0).subtract(1.0)
    assert y.tolist() == [3.0, 1.0, 1.0]
    m = np.array([[1.0, 2.0, 4.0], [3.0, 1.0, 0.0]])
    assert np.allclose(xpx.cov(md.asarray(m)).numpy(), np.cov(m)) and np.allclose(xpx.kron(md.asarray(m), x).numpy(), np.kron(m, [3.0, 1.0, 2.0]))
    assert xpx.create_diagonal(x).tolist() == np.diag([3.0, 1.0, 2.0]).tolist() and xpx.atleast_nd(x, ndim=3).shape == (1, 1, 3)
    assert xpx.one_hot(md.asarray([0, 2]), 3).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]] and xpx.pad(x, 1).tolist() == [0.0, 3.0, 1.0, 2.0, 0.0]
    assert xpx.apply_where(x > 1, x, lambda v: v * 2, fill_value=0.0).tolist() == [6.0, 0.0, 4.0]
    assert xpx.apply_where(x > 1, (x, x), lambda v, w: v + w, lambda v, w: v - w).tolist() == [6.0, 0.0, 4.0]
    assert xpx.setdiff1d(md.asarray([1, 2, 3]), md.asarray([2])).tolist() == [1, 3] and int(xpx.nunique(md.asarray([1, 1, 2]))) == 2
    assert xpx.isclose(x, x + 1e-9).tolist() == [True] * 3 and xpx.nan_to_num(md.asarray([math.nan, 1.0])).tolist() == [0.0, 1.0]
    assert np.allclose(xpx.sinc(x).numpy(), np.sinc([3.0, 1.0, 2.0]), atol=1e-6) and xpx.partition(x, 0)[0].item() == 1.0
    assert sorted(xpx.argpartition(x, 0).tolist()) == [0, 1, 2]
    assert xpx.default_dtype(md) == md.float32 and xpx.lazy_apply(np.cos, x, as_numpy=True).backend == backend
    assert md.grad(lambda v: md.sum(xpx.kron(v, v)))(x).tolist() == [12.0] * 3
    assert md.jit(lambda v: xpx.create_diagonal(v))(x).tolist() == np.diag([3.0, 1.0, 2.0]).tolist()


# ---- SciPy ------------------------------------------------------------------------------------------------------------------------------
#: Expressions of the arrays below and of xp, the namespace: each must give arrays of the backend, and SciPy's values.
SPECIAL = """
cbrt cosdg cosm1 cotdg ellipk ellipkm1 entr erf erfc erfcx erfinv exp1 exp10 exp2 expi expit exprel gamma gammaln gammasgn i0 i0e i1 i1e j0 j1 k0 k0e
k1 k1e log_ndtr logit loggamma ndtr ndtri psi rgamma sinc sindg spence tandg y0 y1 zetac log_softmax softmax logsumexp
""".split()
SPECIAL2 = """
betaln binom boxcox boxcox1p chdtr chdtrc chdtri gammainc gammaincc gammainccinv gammaincinv huber inv_boxcox inv_boxcox1p kl_div poch pseudo_huber
rel_entr stdtr stdtrit xlog1py xlogy
""".split()
EXPRESSIONS = {
    "special": """
        zeta(p + 1.5, q); polygamma(1, p); multigammaln(p + 2, 3); expn(k, p); yn(k, p); betainc(p, q, p); betaincc(p, q, p); betaincinv(p, q, p)
        bdtr(k * 1., k + 3, p); bdtrc(k * 1., k + 3, p); fdtr(p, q, p); fdtrc(p, q, p); fdtri(p, q, p); gdtr(p, q, p); gdtrc(p, q, p)
        hyp1f1(p, q, p); lpmv(k * 1., k * 1., p); nbdtr(k, k, p); nbdtrc(k, k, p); pdtr(k * 1., p); pdtrc(k * 1., p); radian(p, q, p)
        logsumexp(x, axis=0); logsumexp(x, axis=1, b=p); softmax(x, axis=1)
    """,
    "fft": """
        fft(z); ifft(z); rfft(v); irfft(z); hfft(z); ihfft(v); fft2(im); ifft2(im + 0j); fftn(im); ifftn(im + 0j); rfft2(im); rfftn(im)
        irfft2(im + 0j); irfftn(im + 0j); hfft2(im + 0j); hfftn(im + 0j); ihfft2(im); ihfftn(im); fht(v, .1, .5); ifht(v, .1, .5)
        fftfreq(8, xp=xp); rfftfreq(8, xp=xp); fftshift(im); ifftshift(im); dct(im); dst(im); idct(im); idst(im); dctn(im); dstn(im); idctn(im)
    """,
    "vq": "whiten(x); vq(x, x[:2, :]); kmeans(x, x[:2, :])[0]; kmeans2(x, x[:2, :], minit='matrix')",
    "hierarchy": """
        linkage(x); average(x); centroid(x); complete(x); median(x); single(x); ward(x); weighted(x); fcluster(linkage(x), 3, "maxclust")
        cophenet(linkage(x)); inconsistent(linkage(x)); maxdists(linkage(x)); leaves_list(linkage(x)); optimal_leaf_ordering(linkage(x), x)
        fclusterdata(x, 1.); to_mlab_linkage(linkage(x))
    """,
    "integrate": """
        trapezoid(v); cumulative_trapezoid(im); cumulative_simpson(im); romb(v[:17]); tanhsinh(lambda t: xp.exp(-t * t), zero, one).integral
        cubature(lambda t: xp.sum(t * t, axis=-1), zero * v[:2], zero * v[:2] + 1).estimate; nsum(lambda t: 1 / t**2, one, one + 50).sum
    """,
    "interpolate": """
        CubicSpline(u, v)(u[:4]); PchipInterpolator(u, v)(u[:4]); Akima1DInterpolator(u, v)(u[:4]); CubicHermiteSpline(u, v, w)(u[:4])
        make_interp_spline(u, v)(u[:4]); make_smoothing_spline(u, v)(u[:4]); make_splrep(u, v)(u[:4]); PPoly(im[:3, :4], u[:5])(u[:3])
        RegularGridInterpolator((u[:8], u[:9]), im)(xp.stack([u[:4], u[:4]], axis=-1)); BPoly(im[:3, :4], u[:5])(u[:3])
    """,
    "linalg": "orthogonal_procrustes(x, y); block_diag(sq, sq); fiedler(v)",
    "ndimage": """
        gaussian_filter(im, 1.); gaussian_laplace(im, 1.); gaussian_gradient_magnitude(im, 1.); laplace(im); prewitt(im); sobel(im)
        median_filter(im, 3); maximum_filter(im, 3); minimum_filter(im, 3); uniform_filter(im, 3); percentile_filter(im, 20, 3)
        rank_filter(im, 2, 3); convolve(im, im[:3, :3]); convolve1d(im, v[:3]); correlate(im, im[:3, :3]); correlate1d(im, v[:3])
        vectorized_filter(im, xp.mean, size=3); generic_filter(im, np.mean, 3); fourier_gaussian(im + 0j, 1.); fourier_shift(im + 0j, 1.)
        affine_transform(im, sq[:2, :2]); map_coordinates(im, im[:2, :]); rotate(im, 30.); shift(im, .5); zoom(im, 2.); spline_filter(im)
        center_of_mass(im * im); extrema(im); label(im > 0)[0]; histogram(im, -2, 2, 5); maximum(im, lab, xp.arange(3)); mean(im, lab, xp.arange(3))
        median(im, lab, xp.arange(3)); standard_deviation(im, lab, xp.arange(3)); sum_labels(im, lab, xp.arange(3)); binary_closing(im > 0)
        binary_dilation(im > 0); binary_fill_holes(im > 0); distance_transform_edt(im > 0); grey_closing(im, 3); grey_dilation(im, 3)
        morphological_laplace(im, 3); white_tophat(im, 3)
    """,
    "optimize": "rosen(v); rosen_der(v); rosen_hess(v); rosen_hess_prod(v, w)",
    "signal": """
        convolve(v, w); correlate(v, w); fftconvolve(v, w); oaconvolve(v, w); convolve2d(im, im); correlate2d(im, im); deconvolve(v, w); detrend(v)
        hilbert(v); hilbert2(im); lfilter(w[:3], pos[:3], v); lfilter_zi(w[:3], pos[:3]); medfilt(v, 3); medfilt2d(im, 3); resample(v, 30)
        resample_poly(v, 3, 2); sosfilt(xp.asarray(signal.butter(3, .3, output="sos")), v); filtfilt(w[:3], pos[:3], v, padlen=3); wiener(v)
        envelope(v); savgol_filter(v, 5, 2); upfirdn(w[:3], v, 2); gauss_spline(v, 3); cspline1d(v); freqz(w[:3], pos[:3]); freqs(w[:3], pos[:3])
        group_delay((w[:3], pos[:3])); bilinear(w[:3], pos[:3]); zpk2tf(z[:3], z[3:6], 1.); tf2sos(w[:3], pos[:3]); lp2lp(w[:3], pos[:3])
        minimum_phase(pos[:9]); windows.hann(8, xp=xp); windows.kaiser(8, 2., xp=xp); windows.chebwin(8, 50, xp=xp); windows.tukey(8, xp=xp)
    """,
    "stats": """
        zscore(x); zmap(x, y); gzscore(x * x + 1); skew(x); kurtosis(x); moment(x, 2); variation(x); ttest_ind(x, y).pvalue; ttest_rel(x, y).pvalue
        ttest_1samp(x, 0.).pvalue; pearsonr(v, w).statistic; pearsonr(v, w).pvalue; spearmanrho(v, w).statistic; chatterjeexi(v, w).statistic
        entropy(p); differential_entropy(x); gmean(p); hmean(p); pmean(p, 2); gstd(p); iqr(x); median_abs_deviation(x); mode(k).mode; rankdata(x)
        sem(x); sigmaclip(v)[0]; trim_mean(x, .1); tmean(x); tmin(x); tmax(x); tsem(x); tstd(x); tvar(x); describe(x).variance; skewtest(x).pvalue
        kurtosistest(x).pvalue; normaltest(x).pvalue; jarque_bera(x).pvalue; chisquare(xp.astype(k, xp.float64)).statistic; kruskal(v, w).pvalue
        power_divergence(xp.astype(k, xp.float64)).pvalue; friedmanchisquare(x[:, 0], x[:, 1], x[:, 2]).pvalue; alexandergovern(v, w).pvalue
        f_oneway(v, w).pvalue; combine_pvalues(p).pvalue; ks_1samp(v, special.ndtr).pvalue; lmoment(v); bartlett(v, w).pvalue; levene(v, w).pvalue
        fligner(v, w).pvalue; mood(v, w).pvalue; ansari(v, w).pvalue; wilcoxon(v, w).pvalue; mannwhitneyu(v, w).pvalue; circmean(v); circstd(v)
        cramervonmises(v, special.ndtr).pvalue; cramervonmises_2samp(v, w).pvalue; epps_singleton_2samp(v, w).pvalue; circvar(v); kstat(v)
        directional_stats(x).mean_direction; false_discovery_control(u); kstatvar(v); boxcox_llf(.5, pos); yeojohnson_llf(.5, pos)
        quantile(v, u[:3]); bootstrap((v,), lambda a, axis: xp.mean(a, axis=axis), n_resamples=20, rng=1).standard_error
        permutation_test((v, w), lambda a, b, axis: xp.mean(a, axis=axis) - xp.mean(b, axis=axis), n_resamples=20, rng=1).pvalue
    """,
    "differentiate": "derivative(xp.exp, v[:3]).df; jacobian(xp.exp, v[:3]).df; hessian(lambda t: xp.sum(t * t * t, axis=0), v[:2]).ddf",
    "constants": "convert_temperature(v, 'C', 'K'); lambda2nu(pos); nu2lambda(pos)",
    "Rotation": """
        from_quat(quat).as_matrix(); from_quat(quat).as_rotvec(); from_quat(quat).as_euler("xyz"); from_euler("xyz", x).as_mrp()
        from_rotvec(x[:5, :]).apply(x[:5, :]); (Rotation.from_rotvec(x) * Rotation.from_rotvec(y)).inv().magnitude()
        align_vectors(x, y)[0].as_matrix()
    """,
    "RigidTransform": "from_translation(x[:5, :]).apply(x[:5, :]); from_exp_coords(xp.concat([x, y], axis=1)).as_matrix()",
}  # fmt: skip
LINES = [f"special.{f}(p)" for f in SPECIAL] + [f"special.{f}(p, q)" for f in SPECIAL2]
for _home, _text in EXPRESSIONS.items():
    _calls = [call.strip() for line in _text.splitlines() for call in line.split(";") if call.strip()]
    LINES += [call if call.startswith("(") else f"{_home}.{call}" for call in _calls]

#: Under jit and grad as well: functions that ask for no values on the way.
TRACED = """
special.logsumexp(x, axis=0); special.softmax(x, axis=1); special.log_softmax(x, axis=1); stats.zscore(x); stats.skew(x); stats.kurtosis(x)
stats.sem(x); stats.trim_mean(x, .1); stats.gmean(p); vq.whiten(x); integrate.trapezoid(v); integrate.romb(v[:17]); optimize.rosen(v)
optimize.rosen_der(v); signal.fftconvolve(v, w); signal.envelope(v); signal.gauss_spline(v, 3); fft.irfft(fft.rfft(v)); fft.ihfft(v)
""".replace("\n", ";").split(";")
TRACED = [line.strip() for line in TRACED if line.strip()]

#: XLA compiles each eager operation for each shape: what it runs of the table.
JAX = ("special.", "ndimage.", "vq.", "constants.", "stats.zscore", "stats.pearsonr", "stats.ttest_ind", "stats.variation", "signal.lfilter(",
       "signal.medfilt(", "fft.fft(", "fft.dct(")  # fmt: skip

PROGRAM = """
import numpy as np
import minidl as md
from scipy import constants, differentiate, fft, integrate, interpolate, linalg, ndimage, optimize, signal, special, stats
from scipy.cluster import hierarchy, vq
from scipy.cluster.hierarchy import linkage
from scipy.spatial.transform import RigidTransform, Rotation

md.set_default_dtype(md.float64)  # SciPy makes its constants of the default dtype, and NumPy's is float64
rng = np.random.default_rng(0)
arrays = dict(
    x=rng.normal(size=(20, 3)), y=rng.normal(size=(20, 3)), p=rng.uniform(0.1, 0.9, (20, 3)), q=rng.uniform(0.1, 0.9, (20, 3)), v=rng.normal(size=20),
    w=rng.normal(size=20), k=rng.integers(1, 5, (20, 3)), im=rng.normal(size=(8, 9)), z=rng.normal(size=16) + 1j * rng.normal(size=16),
    sq=rng.normal(size=(3, 3)), pos=rng.uniform(0.5, 2, 20), u=np.sort(rng.uniform(0, 1, 20)), quat=rng.normal(size=(5, 4)),
    lab=rng.integers(0, 4, (8, 9)), zero=np.asarray(0.0), one=np.asarray(1.0),
)
shared = {k: v for k, v in globals().items() if k != "arrays"}


def leaves(out):
    return [leaf for part in out for leaf in leaves(part)] if isinstance(out, (tuple, list)) else [out]


wrong, n = [], 0
for name in names:
    with md.use_backend(name):
        tensors = {k: md.asarray(v) for k, v in arrays.items()}
        for line in lines:
            if name == "jax" and not line.startswith(jax):
                continue
            want = leaves(eval(line, {**shared, **arrays, "xp": np}))
            try:
                got = leaves(eval(line, {**shared, **tensors, "xp": md}))
                for g, w in zip(got, want, strict=True):
                    assert not isinstance(w, (np.ndarray, np.generic)) or (isinstance(g, md.Tensor) and g.backend == name), type(g)
                    g = g.numpy() if isinstance(g, md.Tensor) else np.asarray(g)
                    assert g.shape == np.shape(w) and np.allclose(g, w, rtol=1e-8, atol=1e-8, equal_nan=True), (g, w)
                n += 1
            except Exception as error:
                wrong.append(f"{name}: {line}: {type(error).__name__}: {error}")
        names_of = {line: [k for k in tensors if f"({k}" in line or f" {k})" in line or f" {k}," in line] for line in traced}
        run = lambda line, given: eval(line, {**shared, **given, "xp": md})
        total = lambda line, given: md.sum(md.real(run(line, given)))
        all_values = lambda given: [run(line, given) for line in traced]
        slopes = lambda given: [md.grad(lambda g, line=line: total(line, g))({k: given[k] for k in names_of[line]}) for line in traced]
        for what, f in (("value", all_values), ("gradient", slopes)):
            if name == "jax" and what == "value":
                continue
            eager = f(tensors) if name != "jax" else None
            for line, a, b in zip(traced, md.jit(f)(tensors), eager or reference[what], strict=True):
                for g, w in zip(md.tree.leaves(a), md.tree.leaves(b), strict=True):
                    if not np.allclose(g.numpy(), w.numpy(), rtol=1e-9, atol=1e-9):
                        wrong.append(f"{name}: {what} of {line} under jit: {g}, eager {w}")
            reference = {**globals().get("reference", {}), what: eager or reference[what]}
print(n)
assert not wrong, "\\n".join(wrong)
"""


@pytest.mark.parametrize("names", [("numpy", "torch"), ("numba",), ("numpy", "jax")], ids=lambda names: names[-1])
def test_scipy_in_its_array_api_mode(names):
    """In a process of its own, since SciPy reads SCIPY_ARRAY_API when it is imported."""
    given = f"{names = }\nlines = {LINES!r}\ntraced = {TRACED!r}\njax = {JAX!r}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", given + PROGRAM],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        cwd=HERE.parent,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) >= (len(LINES) if "jax" not in names else 0)
