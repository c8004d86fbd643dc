"""PyTorch's rarer functions and methods: values, gradients and dtypes are torch's, eager and jitted, on the numpy and torch backends, and where their
loops are compiled on numba and jax; what a method says that minidl has not."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md

torch = pytest.importorskip("torch")
rng = np.random.default_rng(0)
X, POSITIVE, SQUARE = rng.normal(size=(3, 4)), rng.uniform(1.5, 4, (3, 4)), rng.normal(size=(2, 3, 3))
HOLES = np.where(rng.random((3, 4)) < 0.3, np.nan, X)
HOLES[1] = np.nan
N, M = np.array([[12, -18, 0, 7], [0, 5, 100, 9]]), np.array([8, 6, 0, -21])
SPD = SQUARE @ SQUARE.transpose(0, 2, 1) + np.eye(3)
FACTOR = np.linalg.cholesky(SPD)
TALL = rng.normal(size=(2, 4, 3))

#: name -> (f of torch or minidl and tensors, the arrays, whether it has a gradient in the first).
CASES = {
    "addbmm": (lambda T, x, a, b: T.addbmm(x, a, b, beta=0.5, alpha=2) + x.addbmm(a, b), (X[:, :3], SQUARE, SQUARE), True),
    "addr": (lambda T, x, a, b: T.addr(x, a, b, beta=0.5, alpha=2) + x.addr(a, b), (X, X[:, 0], X[0]), True),
    "chain_matmul": (lambda T, a, b: T.chain_matmul(a, b), (X.T, SQUARE[0]), True),
    "cholesky_inverse": (lambda T, a: T.cholesky_inverse(a.tril()) + a.tril().mT.cholesky_inverse(upper=True), (FACTOR,), True),
    "cholesky_solve": (lambda T, b, a: b.cholesky_solve(a) + T.cholesky_solve(b, a.mT.contiguous(), upper=True), (TALL[:, :3], FACTOR), True),
    "constant_pad_nd": (lambda T, x: T.constant_pad_nd(x, (1, 2), 3.0), (X,), True),
    "cumulative_trapezoid": (lambda T, x, p: T.cumulative_trapezoid(x, p) + T.cumulative_trapezoid(x, p[0]) + T.cumulative_trapezoid(x, dx=2.0)
                             + T.cumulative_trapezoid(x.T, dim=0).T, (X, POSITIVE), True),
    "diagflat": (lambda T, x: T.diagflat(x, 1) + x.diagflat(1), (X,), True),
    "diagonal_scatter": (lambda T, x, y: T.diagonal_scatter(x, y[0, :3]) + x.diagonal_scatter(y[1, :3], 1) + x.diagonal_scatter(y[0, :2], -1, 0, 1),
                         (X, POSITIVE), True),
    "diagonal_scatter of batches": (lambda T, x, y: x.diagonal_scatter(y[:, :, 0].T.contiguous(), 0, 0, 2), (SQUARE, SQUARE[:, :, :2]), True),
    "float_power": (lambda T, x: T.float_power(x, 2) + x.float().float_power(-0.5) + T.float_power(2, x), (POSITIVE,), True),
    "float_power of integers": (lambda T, n: n.float_power(3), (N,), False),
    "frexp": (lambda T, x: T.frexp(x * 100), (X,), False),
    "gcd": (lambda T, n, m: T.gcd(n, m) + n.gcd(m), (N, M), False),
    "hypot_": (lambda T, x, y: x.clone().hypot_(y), (X, POSITIVE), True),
    "igamma": (lambda T, p, x: T.igamma(p, x) + p.igammac(x / 2) + x.clone().igamma_(p) + x.clone().igammac_(p), (POSITIVE, POSITIVE[::-1]), False),
    "kaiser_window": (lambda T, x: T.kaiser_window(5, dtype=T.float64) + T.kaiser_window(5, False, 3.0, dtype=T.float64), (X,), False),
    "lcm": (lambda T, n, m: T.lcm(n, m) + n.lcm(m), (N, M), False),
    "ldexp": (lambda T, x, n: T.ldexp(x[:2], n) + x[:2].ldexp(n), (X, N), False),
    "ldexp of floats": (lambda T, x, y: T.ldexp(x, y), (X, POSITIVE), True),
    "logaddexp2": (lambda T, x, y: T.logaddexp2(x, y * 9) + x.logaddexp2(y), (X, POSITIVE), True),
    "msort": (lambda T, x: T.msort(x) + x.msort(), (X,), True),
    "mvlgamma": (lambda T, x: T.mvlgamma(x, 3) + x.mvlgamma(2), (POSITIVE,), True),
    "nanmedian": (lambda T, x: [T.nanmedian(x, dim=1)[0], *T.nanmedian(x[0::2], dim=1), *x.nanmedian(dim=0, keepdim=True)], (HOLES,), False),
    "nanquantile": (lambda T, x: T.nanquantile(x, 0.3, dim=1) + x.nanquantile(0.4, dim=-1, interpolation="lower"), (HOLES,), False),
    "narrow_copy": (lambda T, x: x.narrow_copy(1, 1, 2), (X,), True),
    "nonzero_static": (lambda T, n: T.nonzero_static(n, size=9, fill_value=-7), (N,), False),
    "nonzero_static, cut": (lambda T, n: T.nonzero_static(n, size=2), (N,), False),
    "put": (lambda T, x, y: x.put(T.tensor([[0, 5], [11, -2]]), y[:2, :2]), (X, POSITIVE), True),
    "put, summed": (lambda T, x, y: x.put(T.tensor([0, 5, 0]), y[0, :3].contiguous(), accumulate=True), (X, POSITIVE), True),
    "qr": (lambda T, a: (lambda q, r: [q @ r, abs(r)])(*T.qr(a)), (TALL,), True),
    "renorm": (lambda T, x: T.renorm(x, 2, 0, 1.2) + x.renorm(1, 1, 2.0) + x.clone().renorm_(3, -1, 1.0), (X,), True),
    "rsub": (lambda T, x, y: T.rsub(x, y, alpha=2) + T.rsub(x, 2.0), (X, POSITIVE), True),
    "select_scatter": (lambda T, x, y: T.select_scatter(x, y[0], 0, 1) + x.select_scatter(y[:, 0].contiguous(), 1, -1), (X, POSITIVE), True),
    "slice_scatter": (lambda T, x, y: T.slice_scatter(x, y[:2], 0, 1) + x.slice_scatter(y[:, :2].contiguous(), -1, 0, 4, 2), (X, POSITIVE), True),
    "splits": (lambda T, x: T.hsplit(x, 2)[1].sum() + x.hsplit([1, 3])[1].sum() + T.vsplit(x, 3)[2] + x.vsplit((1,))[1].sum()
               + T.dsplit(x[None], 4)[3].sum() + x[0].hsplit(2)[0].sum() + x.unsafe_split(2)[0].sum() + x.unsafe_chunk(2, 1)[1].sum(), (X,), True),
    "sum_to_size": (lambda T, x: x.sum_to_size(1, 4) + x.sum_to_size(4) + x[None].sum_to_size((3, 1)).sum() + x.sum_to_size(3, 4)[0], (X,), True),
    "svd": (lambda T, a: (lambda u, s, v: [u @ T.diag_embed(s) @ v.mT, s])(*T.svd(a)), (TALL,), True),
    "svdvals": (lambda T, a: T.svd(a, compute_uv=False), (TALL,), False),
    "unravel_index": (lambda T, n: T.unravel_index(n.clamp(0, 11), (3, 4)), (N,), False),
    "linalg.lu": (lambda T, a: T.linalg.lu(a), (TALL,), True),
    "linalg.lu, wide": (lambda T, a: T.linalg.lu(a.mT), (TALL,), True),
    "linalg.lu_factor": (lambda T, a: T.linalg.lu_factor(a), (SQUARE,), True),
    "linalg.lu_solve": (lambda T, b, a: T.linalg.lu_solve(*T.linalg.lu_factor(a), b) + T.linalg.lu_solve(*T.linalg.lu_factor(a), b, adjoint=True),
                        (TALL[:, :3], SQUARE), True),
    "linalg.lu_solve, right": (lambda T, b, a: T.linalg.lu_solve(*T.linalg.lu_factor(a), b, left=False) + b.mT.lu_solve(*T.linalg.lu_factor(a)).mT,
                               (TALL, SQUARE), True),
}  # fmt: skip
LOOPS = ("gcd", "linalg.lu", "linalg.lu_solve", "frexp")  # whose programs a backend compiles in its own way


def tensors(T, arrays):
    return [T.tensor(a.copy()) for a in arrays]


def same(ours, theirs):
    several = isinstance(ours, (tuple, list))
    for a, b in zip(ours if several else [ours], theirs if several else [theirs], strict=True):
        assert a.numpy().dtype == b.numpy().dtype
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:torch.*deprecated")
@pytest.mark.parametrize(("name", "backend"), [(n, b) for n in CASES for b in ("numpy", "torch", *(("numba", "jax") if n in LOOPS else ()))])
def test_the_value_and_the_gradient_are_torchs(name, backend):
    with md.use_backend(backend):
        _compare(name)


def _compare(name):
    f, arrays, smooth = CASES[name]
    want = f(torch, *tensors(torch, arrays))
    same(f(md, *tensors(md, arrays)), want)
    if name not in ("constant_pad_nd", "kaiser_window"):
        same(md.jit(lambda *xs: f(md, *xs))(*tensors(md, arrays)), want)
    if not smooth:
        return

    def loss(T, x, *rest):
        out = f(T, x, *rest)
        out = [v for v in (out if isinstance(out, (tuple, list)) else [out]) if v.dtype == T.float64]
        return sum((v * T.tensor(np.random.default_rng(1).normal(size=tuple(v.shape)))).sum() for v in out)

    x, *rest = tensors(torch, arrays)
    loss(torch, x.requires_grad_(), *rest).backward()
    own, *others = tensors(md, arrays)
    for grad in (md.grad(loss, 1), md.jit(md.grad(loss, 1), static_argnums=0)):
        np.testing.assert_allclose(grad(md, own, *others).numpy(), x.grad.numpy(), rtol=1e-8, atol=1e-10)


STORED = {  # name -> arguments, as T makes them
    "addbmm_": lambda T: (T.ones(2, 3, 3, dtype=T.float64), T.ones(2, 3, 4, dtype=T.float64)), "digamma_": lambda T: (), "fix_": lambda T: (),
    "addr_": lambda T: (T.ones(3, dtype=T.float64), T.ones(4, dtype=T.float64)), "float_power_": lambda T: (2,), "greater_": lambda T: (0.1,),
    "greater_equal_": lambda T: (0.1,), "i0_": lambda T: (), "less_": lambda T: (0.1,), "less_equal_": lambda T: (0.1,), "lgamma_": lambda T: (),
    "ldexp_": lambda T: (T.tensor([1, 2, 3, 4]),), "nextafter_": lambda T: (T.ones(4, dtype=T.float64),), "not_equal_": lambda T: (0.1,),
    "polygamma_": lambda T: (1,), "put_": lambda T: (T.tensor([1, 3]), T.ones(2, dtype=T.float64)), "conj_physical_": lambda T: (),
    "renorm_": lambda T: (2, 0, 1.0), "map_": lambda T: (T.ones(3, 4, dtype=T.float64), lambda a, b: a + 2 * b),
    "apply_": lambda T: (lambda v: v * v if v > 0 else 7,),
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_the_form_that_ends_in_an_underscore_stores(name):
    held = [T.tensor(X.copy()) for T in (md, torch)]
    for T, x in zip((md, torch), held, strict=True):
        assert getattr(x, name)(*STORED[name](T)) is x
    same(*held)


def test_integers_are_shifted_in_place_and_functions_store_too():
    for name in ("bitwise_left_shift_", "bitwise_right_shift_", "gcd_", "lcm_"):
        held = [getattr(T.tensor(N), name)(T.tensor([1, 2, 3, 1])) for T in (md, torch)]
        same(*held)
    for T in (md, torch):
        x = T.tensor([-1.0, 2.0])
        assert T.relu_(x) is x and T.neg_(T.sqrt_(x)) is x and T.fill(x, 3.0).tolist() == [3.0, 3.0]
        assert x.tolist() == pytest.approx([0.0, -(2**0.5)])


@pytest.mark.cpu
def test_what_a_tensor_says_of_itself_is_torchs():
    says = lambda T, x: [
        x.is_cpu, x.is_cuda, x.is_meta, x.is_quantized, x.is_mps, x.is_conj(), x.is_neg(), x.is_pinned(), x.is_shared(), x.is_sparse_csr,
        str(x.layout), x.get_device(),
        x.dim_order(), x.name, x.is_same_size(x[0]), T.is_nonzero(x[0, 0]), T.is_signed(x), x.nelement(), x.element_size(),
        tuple(x.new(2, 3).shape), x.new([1, 2]).tolist(), T.CharTensor([1]).dtype == T.int8, tuple(T.ShortTensor(2).shape), x.resolve_conj() is x,
    ]  # fmt: skip
    assert says(md, md.tensor(X)) == says(torch, torch.tensor(X))


def test_grad_fn_is_none_or_names_an_operation():
    x = md.ones(2, requires_grad=True)
    assert x.grad_fn is None and md.ones(2).grad_fn is None and (md.ones(2) * 2).grad_fn is None and (x * 2).detach().grad_fn is None
    assert repr((x * 2).grad_fn) == "<MulBackward0>"
    assert x.exp().grad_fn.name() == torch.ones(2, requires_grad=True).exp().grad_fn.name()
    y = x * 2
    y.register_hook(lambda g: None)
    assert y.grad_fn.name() == "MulBackward0" and md.checkpoint(lambda x: x * x)(x).grad_fn is not None
    with pytest.raises(AttributeError, match=r"md\.trace"):
        _ = y.grad_fn.next_functions

    @md.jit
    def asks(x):
        return x * 2 if (x * x).grad_fn is None else x

    assert asks(x.detach()).tolist() == [2.0, 2.0]


def test_python_functions_are_refused_where_there_are_no_numbers():
    with pytest.raises(TypeError, match="md.vmap"):
        md.jit(lambda x: x.clone().apply_(lambda v: v))(md.ones(2))
    with pytest.raises(TypeError, match="a function"):
        md.ones(2).apply_(3)


def test_draws_have_their_distributions():
    md.manual_seed(0)
    n = 20000
    draws = {
        "cauchy_": lambda T: T.zeros(n).cauchy_(1.0, 2.0), "log_normal_": lambda T: T.zeros(n).log_normal_(0.5, 0.25),
        "geometric_": lambda T: T.zeros(n).geometric_(0.3), "poisson": lambda T: T.poisson(T.full((n,), 3.5)),
        "binomial": lambda T: T.binomial(T.full((n,), 10.0), T.full((n,), 0.3)),
    }  # fmt: skip
    torch.manual_seed(0)
    for draw in draws.values():
        ours, theirs = draw(md), draw(torch)
        assert ours.dtype is md.float32 and ours.shape == (n,)
        np.testing.assert_allclose(np.quantile(ours.numpy(), [0.2, 0.4, 0.6, 0.8]), np.quantile(theirs.numpy(), [0.2, 0.4, 0.6, 0.8]), atol=0.15)
    with pytest.raises(ValueError, match="geometric_"):
        md.ones(2).geometric_(1.5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: x.diagonal_scatter(md.ones(2)), "src of shape"), (lambda x: x.select_scatter(md.ones(2), 0, 1), "src of shape"),
        (lambda x: x.slice_scatter(md.ones(2, 2), 0, 1), "src of shape"), (lambda x: x.put(md.tensor([1]), md.ones(2)), "as many"),
        (lambda x: x.hsplit(3), "equal parts"), (lambda x: x[0].vsplit(2), "at least 2 axes"), (lambda x: x.sum_to_size(2, 4), "cannot be summed"),
        (lambda x: md.linalg.lu(x, pivot=False), "pivot"), (lambda x: md.linalg.lu(x[0]), "matrices"),
        (lambda x: md.linalg.lu_solve(*md.linalg.lu_factor(md.eye(2)), md.ones(3, 1)), r"a B \[..., n, k\] are wanted, not shapes"),
        (lambda x: md.linalg.lu_solve(*md.linalg.lu_factor(md.eye(2)), md.ones(2, 1), left=False), r"a B \[..., k, n\] are wanted, not shapes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(call, text):
    with pytest.raises(ValueError, match=text):
        call(md.tensor(X))


def test_shapes_of_nothing_are_torchs():
    for f in (
        lambda T: T.zeros(0, 3).sum_to_size(1, 3), lambda T: T.nonzero_static(T.zeros(0), size=2), lambda T: T.zeros(2, 0).msort(),
        lambda T: T.zeros(0).diagflat(1), lambda T: T.linalg.lu(T.zeros(0, 3))[2], lambda T: T.linalg.lu_factor(T.zeros(2, 0, 0))[0],
        lambda T: T.nonzero(T.tensor(2.0), as_tuple=False), lambda T: T.nonzero(T.tensor(0.0), as_tuple=False), lambda T: T.argwhere(T.tensor(3)),
        lambda T: T.nonzero(T.tensor(2.0), as_tuple=True)[0], lambda T: T.tensor(2.0).nonzero_static(size=2),
        lambda T: T.tensor(2.0).msort(), lambda T: T.ones(2).new(), lambda T: T.repeat_interleave(T.tensor([2, 0, 1])),
        lambda T: T.gcd(T.ones(2, dtype=T.int8), T.ones(2, dtype=T.int64)), lambda T: T.lcm(T.ones(2, dtype=T.int16), T.ones(1, dtype=T.uint8)),
    ):  # fmt: skip
        same(f(md), f(torch))
