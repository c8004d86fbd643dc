"""What nn.functional does beyond its layers, against torch: sampling at places, bags with offsets, weights of losses, chance, errors."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional


@pytest.fixture(autouse=True)
def seeded():
    md.manual_seed(0)


def compare(ours, theirs, *arrays, rtol=1e-11):
    """Value and gradients of the float arrays of one function of both libraries."""
    mine = [md.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    a, b = ours(*mine), theirs(*other)
    assert a.shape == tuple(b.shape)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=1e-12)
    if not b.requires_grad:
        return
    seed = np.random.default_rng(9).normal(size=a.shape)
    a.backward(md.asarray(seed))
    b.backward(torch.tensor(seed))
    for i, (x, y) in enumerate(zip(mine, other, strict=True)):
        if y.grad is not None and not (x.grad is None and not y.grad.any()):
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=rtol, atol=1e-11, err_msg=f"gradient {i}")


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


# ---- sampling at places -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_equals_torch(mode, padding, align):
    for x, grid in ((normal(2, 3, 5, 4), normal(2, 6, 3, 2) * 1.3), (normal(1, 2, 4, 3, 5), normal(1, 3, 2, 2, 3) * 1.3)):
        compare(lambda a, g: F.grid_sample(a, g, mode, padding, align), lambda a, g: TF.grid_sample(a, g, mode, padding, align), x, grid, rtol=1e-9)


@pytest.mark.parametrize("align", [False, True])
def test_affine_grid_equals_torch(align):
    for theta, size in ((normal(2, 2, 3), (2, 3, 4, 5)), (normal(2, 3, 4), (2, 1, 3, 4, 2))):
        compare(lambda t, s=size: F.affine_grid(t, s, align), lambda t, s=size: TF.affine_grid(t, s, align), theta)
    theta = md.asarray([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    image = md.asarray(normal(1, 2, 4, 5).astype("float32"))
    np.testing.assert_allclose(F.grid_sample(image, F.affine_grid(theta, image.shape)).numpy(), image.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mode", "widths"), [
    ("constant", (1, 2)), ("constant", (1, -2, 0, 3)), ("reflect", (2, 1, 1, 3)), ("replicate", (0, 4)), ("circular", (1, 2, 3, 0)),
    ("reflect", (-1, 2)), ("replicate", (1, 1, 0, 2)),
])  # fmt: skip
def test_pad_equals_torch(mode, widths):
    x = normal(2, 3, 4, 5)
    compare(lambda x: F.pad(x, widths, mode), lambda x: TF.pad(x, widths, mode), x if mode == "constant" or len(widths) > 2 else x[0])


def test_resampling_keeps_an_infinity_where_it_is():
    x = np.ones((1, 1, 6))
    x[0, 0, 5] = np.inf
    for mode in ("nearest", "linear", "area"):
        got = F.interpolate(md.asarray(x), size=9, mode=mode).numpy()
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(TF.interpolate(torch.tensor(x), size=9, mode=mode).numpy()))


# ---- looking up -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("last", [False, True])
def test_bags_with_offsets_equal_torch(mode, last):
    weight, index, offsets = normal(10, 4), np.array([1, 2, 4, 5, 4, 3, 2, 9]), np.array([0, 3, 3, 6] + [8] * last)
    call = lambda f: lambda w, i, o: f(i, w, o, mode=mode, include_last_offset=last)
    compare(call(F.embedding_bag), call(TF.embedding_bag), weight, index, offsets)
    layer = nn.EmbeddingBag(10, 4, mode=mode, include_last_offset=last, _weight=md.asarray(weight))
    eager = layer(md.asarray(index), md.asarray(offsets)).detach().numpy()
    np.testing.assert_allclose(md.jit(lambda i, o: layer(i, o))(md.asarray(index), md.asarray(offsets)).detach().numpy(), eager, rtol=1e-12)


def test_bags_with_weights_and_padding_equal_torch():
    weight, index, offsets, scale = normal(10, 4), np.array([1, 2, 4, 5, 4, 3]), np.array([0, 2]), normal(6)
    call = lambda f: lambda w, s, i, o: f(i, w, o, mode="sum", per_sample_weights=s, padding_idx=4)
    compare(call(F.embedding_bag), call(TF.embedding_bag), weight, scale, index, offsets)
    with pytest.raises(ValueError, match="per_sample_weights"):
        F.embedding_bag(md.asarray(index), md.asarray(weight), md.asarray(offsets), per_sample_weights=md.asarray(scale))


def test_long_rows_are_shortened_in_place_as_torchs():
    weight, index = normal(6, 4), np.array([0, 3, 3])
    mine, other = md.tensor(weight), torch.tensor(weight)
    a, b = F.embedding(md.asarray(index), mine, max_norm=0.5), TF.embedding(torch.tensor(index), other, max_norm=0.5)
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
    np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-12)


def test_embedding_from_given_rows():
    rows = md.asarray(normal(5, 3))
    frozen, free = nn.Embedding.from_pretrained(rows), nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=1)
    assert not frozen.weight.requires_grad and free.weight.requires_grad and free.padding_idx == 1
    np.testing.assert_array_equal(frozen(md.asarray([2])).numpy(), rows.numpy()[[2]])
    with pytest.raises(ValueError, match="shape"):
        nn.Embedding(4, 3, _weight=rows)


def test_distances_equal_torch():
    x, y = normal(5, 4), normal(5, 4)[::-1].copy()
    for p in (1.0, 2.0, 3.0, np.inf):
        compare(lambda a, p=p: F.pdist(a, p), lambda a, p=p: TF.pdist(a, p), x)
        compare(lambda a, p=p: F.normalize(a, p, dim=-1), lambda a, p=p: TF.normalize(a, p, dim=-1), x)
    compare(F.cosine_similarity, TF.cosine_similarity, x, y)
    zero = md.tensor(np.zeros((2, 3)), requires_grad=True)
    F.normalize(zero).sum().backward()
    F.cosine_similarity(zero, zero).sum().backward()
    assert np.isfinite(zero.grad.numpy()).all()
    assert F.one_hot(md.asarray([[0, 2]])).tolist() == TF.one_hot(torch.tensor([[0, 2]])).tolist()


# ---- convolution and pooling ------------------------------------------------------------------------------------------------------------
def test_a_transpose_has_the_size_that_is_asked_for():
    ours, theirs = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double(), torch.nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double()
    ours.load_state_dict(theirs.state_dict())
    x = normal(1, 2, 4, 5)
    for size in ((7, 9), (8, 10), (1, 3, 8, 9)):
        a, b = ours(md.asarray(x), output_size=size), theirs(torch.tensor(x), output_size=size)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-11)
    with pytest.raises(ValueError, match="output_size"):
        ours(md.asarray(x), output_size=(9, 9))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_equals_torch(n):
    for x, size in ((normal(2, 3, *(6, 8, 4)[:n]), None), (normal(2, 3, *(7, 5, 4)[:n]), (7, 5, 4)[:n])):
        found = []
        for lib, wrap in ((nn, md.tensor), (torch.nn, torch.tensor)):
            t = wrap(x, requires_grad=True)
            pooled, index = getattr(lib, f"MaxPool{n}d")(2, return_indices=True)(t)
            out = getattr(lib, f"MaxUnpool{n}d")(2)(pooled, index, output_size=size)
            (out * out).sum().backward()
            found.append((out, t.grad))
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="output_size"):
        F.max_unpool2d(md.ones((1, 1, 2, 2)), md.zeros((1, 1, 2, 2), dtype=md.int64), 2, output_size=(9, 4))


def test_a_tie_in_a_pool_goes_to_the_first_as_in_torch():
    x = np.maximum(normal(2, 3, 7, 8), 0.5)
    for ours, theirs in ((lambda t: F.adaptive_max_pool2d(t, 3), lambda t: TF.adaptive_max_pool2d(t, 3)),
                         (lambda t: F.max_pool2d(t, 3, 2, 1), lambda t: TF.max_pool2d(t, 3, 2, 1))):  # fmt: skip
        compare(ours, theirs, x)


# ---- losses -----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_weighted_losses_equal_torch(name, reduction):
    theirs = getattr(TF, name)
    try:
        theirs(torch.zeros(1), torch.zeros(1), weight=torch.ones(1))
    except TypeError:
        theirs = None  # an older torch: the definition itself
    x, y, w = normal(4, 3), normal(3, 4).T.copy(), np.random.default_rng(0).uniform(0.1, 2, (4, 3))

    def defined(a, b, c):
        each = getattr(TF, name)(a, b, reduction="none") * c
        return each if reduction == "none" else each.sum() if reduction == "sum" else each.mean() if name == "huber_loss" else each.sum() / c.sum()

    compare(lambda a, b, c: getattr(F, name)(a, b, reduction=reduction, weight=c),
            (lambda a, b, c: theirs(a, b, reduction=reduction, weight=c)) if theirs else defined, x, y, w)  # fmt: skip


def test_losses_refuse_what_does_not_fit():
    a, b = md.ones((3, 2)), md.ones((3, 1))
    for call in (lambda: F.mse_loss(a, b), lambda: F.kl_div(a, b), lambda: F.soft_margin_loss(a, b), lambda: F.mse_loss(a, a, weight=b),
                 lambda: F.huber_loss(a, a, weight=b), lambda: F.gaussian_nll_loss(a, a, md.ones(7)), lambda: F.margin_ranking_loss(a, a, md.ones(3)),
                 lambda: F.cosine_embedding_loss(a, a, a), lambda: F.multi_margin_loss(a, md.asarray([1]), p=3),
                 lambda: F.triplet_margin_loss(a, a, md.ones(2)), lambda: F.kl_div(a, a, reduction="avg"), lambda: nn.TripletMarginLoss(margin=0.0),
                 lambda: nn.KLDivLoss(reduction="batch")):  # fmt: skip
        with pytest.raises(ValueError):
            call()


# ---- chance -----------------------------------------------------------------------------------------------------------------------------
SHAPES = {"dropout": (40, 50), "dropout1d": (100, 40, 5), "dropout2d": (100, 40, 3, 2), "dropout3d": (100, 40, 2, 3, 2), "alpha_dropout": (40, 50),
          "feature_alpha_dropout": (100, 40, 3, 2)}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_dropouts_have_torchs_values_and_their_share(name):
    shape = SHAPES[name]
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=shape) + 3
    ours, theirs = getattr(F, name)(md.asarray(x), 0.3, True).numpy(), getattr(TF, name)(torch.tensor(x), 0.3, True).numpy()
    scale, shift = (1 / 0.7, 0.0) if "alpha" not in name else _affine(0.3)
    kept = np.isclose(ours, x * scale + shift)
    assert np.isclose(theirs, x * scale + shift).mean() == pytest.approx(kept.mean(), abs=0.04) and abs(kept.mean() - 0.7) < 0.04
    low = np.unique(ours[~kept])
    assert low.max() - low.min() < 1e-12 and np.isclose(low[0], np.unique(theirs[~np.isclose(theirs, x * scale + shift)])[0])
    if len(shape) > 2:  # whole channels
        whole = kept.reshape(shape[0] * shape[1], -1)
        assert (whole.all(1) | ~whole.any(1)).all()
    again = [getattr(F, name)(md.asarray(x), 0.3, True).numpy() for _ in range(2)]
    assert (again[0] != again[1]).any()
    md.manual_seed(0)
    assert (getattr(F, name)(md.asarray(x), 0.3, True).numpy() == ours).all()
    assert getattr(F, name)(md.asarray(x), 0.3, False) is not None and (getattr(F, name)(md.asarray(x), 0.3, False).numpy() == x).all()
    with pytest.raises(ValueError, match="probability"):
        getattr(F, name)(md.asarray(x), 1.5, True)


def _affine(p):
    low = -1.7580993408473766
    scale = ((low * low * p + 1) * (1 - p)) ** -0.5
    return scale, -low * p * scale


def test_alpha_dropout_keeps_mean_and_variance():
    y = F.alpha_dropout(md.asarray(np.random.default_rng(0).normal(size=(300, 300))), 0.4, True).numpy()
    assert abs(y.mean()) < 0.02 and abs(y.std() - 1) < 0.02


def test_dropout_is_the_same_eager_and_jitted_and_differentiates_through_its_mask():
    x = md.asarray(np.ones((8, 16)))
    f = lambda x: (F.dropout(x, 0.4) * F.dropout2d(x[None, :, :, None], 0.4)[0, :, :, 0]).sum()
    found = []
    for g in (md.grad(f), md.jit(md.grad(f))):
        md.manual_seed(5)
        found.append(g(x).numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
    assert 0 < (found[0] == 0).mean() < 1


def test_random_slopes_lie_in_their_range():
    x = md.tensor(-np.ones(5000), requires_grad=True)
    y = F.rrelu(x, 0.1, 0.4, training=True)
    y.sum().backward()
    slope = x.grad.numpy()
    assert slope.min() >= 0.1 and slope.max() < 0.4 and abs(slope.mean() - 0.25) < 0.01 and (y.detach().numpy() == -slope).all()
    layer = nn.RReLU(0.1, 0.4)
    assert layer(x).detach().numpy().std() > 0 and np.allclose(layer.eval()(x).detach().numpy(), -0.25)


def test_gumbel_softmax_samples_its_distribution():
    logits = np.log(np.array([0.1, 0.3, 0.6]))
    x = md.tensor(np.broadcast_to(logits, (20000, 3)).copy(), requires_grad=True)
    hard = F.gumbel_softmax(x, tau=0.5, hard=True)
    assert set(np.unique(np.round(hard.detach().numpy(), 12))) == {0.0, 1.0}
    np.testing.assert_allclose(hard.detach().numpy().mean(0), [0.1, 0.3, 0.6], atol=0.015)
    (hard * md.asarray([1.0, 2.0, 3.0])).sum().backward()
    assert np.isfinite(x.grad.numpy()).all() and np.abs(x.grad.numpy()).max() > 0
    soft = F.gumbel_softmax(x.detach(), tau=2.0)
    np.testing.assert_allclose(soft.numpy().sum(1), 1, rtol=1e-12)


# ---- errors and warnings ----------------------------------------------------------------------------------------------------------------
def test_softmax_without_an_axis_warns_and_chooses_as_torch():
    for f in ("softmax", "log_softmax", "softmin"):
        for shape in ((3,), (3, 4), (2, 3, 4), (2, 2, 3, 4)):
            x = normal(*shape)
            with pytest.warns(UserWarning, match="dim is not given"):
                got = getattr(F, f)(md.asarray(x))
            with pytest.warns(UserWarning):
                want = getattr(TF, f)(torch.tensor(x))
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: F.pad(md.ones((2, 3)), (1, 1), "mirror"), "mode"),
    (lambda: F.pad(md.ones((2, 3)), (3, 1), "reflect"), "at most 2"),
    (lambda: F.pad(md.ones((2, 3)), (1,)), "pair"),
    (lambda: F.pixel_shuffle(md.ones((3, 2, 2)), 2), "pixel_shuffle"),
    (lambda: F.pixel_unshuffle(md.ones((3, 2, 3)), 2), "pixel_unshuffle"),
    (lambda: F.interpolate(md.ones((1, 1, 4)), 3, mode="bilinear"), "mode"),
    (lambda: F.interpolate(md.ones((1, 1, 4))), "either"),
    (lambda: F.interpolate(md.ones((1, 1, 4)), 3, align_corners=True), "align_corners"),
    (lambda: F.interpolate(md.ones((1, 1, 4)), (3, 3)), "sizes"),
    (lambda: F.interpolate(md.ones((1, 1, 4, 4)), 3, antialias=True), "antialias"),  # in mode "nearest"
    (lambda: F.max_pool2d(md.ones((1, 1, 4, 4)), 2, padding=2), "half"),
    (lambda: F.avg_pool2d(md.ones((1, 1, 4, 4)), 2, padding=2), "half"),
    (lambda: F.avg_pool2d(md.ones((1, 1, 4, 4)), 2, divisor_override=0), "divisor_override"),
    (lambda: F.adaptive_avg_pool2d(md.ones((1, 1, 4, 4)), (0, 2)), "at least 1"),
    (lambda: F.unfold(md.ones((1, 1, 2, 2)), 3), "do not fit"),
    (lambda: F.fold(md.ones((1, 4, 5)), 3, 2), "does not hold"),
    (lambda: F.glu(md.ones((2, 3))), "even"),
    (lambda: F.prelu(md.ones((2, 3)), md.ones(2)), "prelu"),
    (lambda: F.softshrink(md.ones(2), -1.0), "negative"),
    (lambda: F.group_norm(md.ones((2, 3)), 2), "groups"),
    (lambda: F.instance_norm(md.ones((2, 3, 1))), "more than one"),
    (lambda: F.bilinear(md.ones((2, 3)), md.ones((2, 3)), md.ones((1, 2, 3))), "bilinear"),
    (lambda: F.grid_sample(md.ones((1, 1, 2, 2)), md.ones((1, 2, 2, 3))), "grid_sample"),
    (lambda: nn.ConvTranspose2d(2, 2, 2, padding="same"), "numbers"),
    (lambda: nn.ConvTranspose2d(2, 2, 2, padding_mode="reflect"), "padding_mode"),
    (lambda: nn.Conv2d(2, 2, 2, padding="same", stride=2), "stride 1"),
    (lambda: nn.LSTM(2, 3, proj_size=3), "proj_size"),
    (lambda: nn.RNN(2, 3, nonlinearity="elu"), "nonlinearity"),
    (lambda: nn.GRU(2, 3)(md.ones((4, 1, 5))), "expected"),
    (lambda: nn.GRU(2, 3)(md.ones((4, 1, 2)), md.ones((1, 2, 3))), "state"),
    (lambda: nn.GRUCell(2, 3)(md.ones((1, 2)), md.ones((2, 3))), "do not fit"),
    (lambda: nn.Hardtanh(1.0, 1.0), "below"),
    (lambda: nn.GroupNorm(2, 3), "groups"),
    (lambda: nn.Unflatten(1, (2, 2))(md.ones((1, 6))), "cannot become"),
    (lambda: nn.Dropout1d()(md.ones(3)), "expected"),
    (lambda: nn.InstanceNorm1d(3, affine=True)(md.ones((2, 4, 5))), "expected"),
    (lambda: nn.ZeroPad2d((1, 2)), "4 of them"),
])  # fmt: skip
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_resampling_again_reads_the_same_places_and_weights(backend):
    run = lambda x: md.nn.functional.interpolate(x, size=5, mode="linear", align_corners=True)
    with md.use_backend(backend):
        for dtype in (md.float64, md.float32):
            x = md.asarray([[[1.0, 2.0, 5.0]]], dtype=dtype)
            first = run(x).tolist()
            out = run(x)
            out += 1.0
            assert first == [[[1.0, 1.5, 2.0, 3.5, 5.0]]]
            assert run(x).tolist() == md.jit(run)(x).tolist() == md.vmap(run)(x[None])[0].tolist() == first
            assert md.grad(lambda x: run(x).sum())(x).tolist() == [[[1.5, 2.0, 1.5]]]


@pytest.mark.parametrize("name", ["multi_margin_loss", "multilabel_margin_loss"])
def test_a_margin_of_a_class_that_is_not_there_is_an_error_or_nothing(name, backend):
    f, x = getattr(F, name), md.tensor([[0.5, 0.25, 1.0], [1.0, 0.0, 0.5]])
    rows = {"multi_margin_loss": ([1, 2], 1, [3, -1]), "multilabel_margin_loss": ([[1, -1, 0], [2, 0, -1]], [1, -1, 2], [[3, -1, 2], [-2, 2, 1]])}
    good, row, bad = rows[name]
    for wrong in bad:
        with pytest.raises(IndexError, match=rf"{name}: the target holds class (3|-1|-2), but the scores have classes 0 to 2"):
            f(x, md.tensor([row, wrong]))
        traced = md.jit(lambda x, t: f(x, t, reduction="none"))(x, md.tensor([row, wrong]))
        assert traced[1].item() == 0.0 and traced[0].item() == f(x[:1], md.tensor([row])).item() > 0
        g = md.jit(md.grad(lambda x, t: f(x, t)))(x, md.tensor([row, wrong]))
        assert g[1].tolist() == [0.0] * 3 and g[0].tolist() != [0.0] * 3
    with md.out_of_bounds("raise-later"):
        loss = md.jit(f)(x, md.tensor([row, bad[0]]))
        with pytest.raises(IndexError, match=f"{name}: the target holds a class that is not there"):
            loss.item()
    with pytest.raises(ValueError, match=f"{name}: the target's numbers of classes are integers, not float32"):
        f(x, md.tensor(good).to(md.float32))
