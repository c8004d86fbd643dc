"""Corners of layers, losses and norms where minidl once differed from torch: extreme values, empty batches, sizes that only some arguments allow."""

from __future__ import annotations

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional
R = np.random.default_rng(0)


def alike(call, *arrays, tolerance=1e-12, **more):
    """Values and gradients of one call, written for both libraries."""
    mine, other = ([t(a, requires_grad=a.dtype.kind == "f") for a in arrays] for t in (md.tensor, torch.tensor))
    a, b = call(F, *mine, **more), call(TF, *other, **more)
    assert a.shape == tuple(b.shape)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)
    weights = np.random.default_rng(1).normal(size=a.shape)
    (a * md.asarray(weights)).sum().backward()
    (b * torch.tensor(weights)).sum().backward()
    for x, y in zip(mine, other, strict=True):
        if y.grad is not None:
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_activations_reach_the_largest_numbers(backend, dtype):
    top = md.finfo(dtype).max
    x = md.tensor([top, -top, top / 2, -top / 2, np.inf, -np.inf], dtype=dtype)
    ends = lambda f: (f(x), md.grad(lambda x: f(x).sum())(x))
    functions = (lambda x: F.gelu(x), lambda x: F.gelu(x, "tanh"), F.silu, F.mish, F.softplus, F.hardswish, F.relu)
    for value, slope in md.jit(lambda: [ends(f) for f in functions])():
        assert value.tolist() == [top, 0, top / 2, 0, np.inf, 0] and slope.tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(("stride", "padding", "extra", "dilation"), [
    (1, 0, 1, 2), ((1, 2), (1, 0), (1, 1), 3), (1, 2, (0, 1), 2), (2, 1, 2, (3, 4)),
])  # fmt: skip
def test_a_transpose_with_room_beyond_its_stride(stride, padding, extra, dilation):
    more = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation}
    alike(lambda f, x, w, **more: f.conv_transpose2d(x, w, **more), R.normal(size=(2, 2, 3, 4)), R.normal(size=(2, 3, 3, 2)), **more)


@pytest.mark.cpu
def test_unpooling_stays_in_its_channel():
    x, places = md.ones((2, 1, 2)), md.tensor([[[0, 5]], [[1, 2]]])
    with pytest.raises(IndexError, match=r"max_unpool1d: indices hold 0 to 5; the output of \(4,\) has places 0 to 3"):
        F.max_unpool1d(x, places, 2)
    assert md.jit(lambda x, i: F.max_unpool1d(x, i, 2))(x, places).tolist() == [[[1, 0, 0, 0]], [[0, 1, 1, 0]]]
    assert F.max_unpool2d(md.ones((0, 1, 2, 2)), md.zeros((0, 1, 2, 2), dtype="int64"), 2).shape == (0, 1, 4, 4)


def test_an_empty_batch_moves_no_statistics():
    for layer, shape in ((nn.BatchNorm1d(3), (0, 3)), (nn.BatchNorm2d(3), (0, 3, 2, 2)), (nn.InstanceNorm1d(3, affine=True), (0, 3, 4))):
        x = md.zeros(shape, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.shape == shape and layer.weight.grad.tolist() == layer.bias.grad.tolist() == [0, 0, 0]
        assert all(md.all(md.isfinite(b)) for b in layer.buffers())
    assert F.local_response_norm(md.zeros((0, 2, 3)), 2).shape == (0, 2, 3)
    assert F.fold(md.zeros((0, 4, 9)), (4, 4), 2).shape == (0, 1, 4, 4)
    assert np.isnan(F.cross_entropy(md.zeros((0, 3)), md.zeros((0, 3))).item())


def test_shapes_of_one_and_none():
    alike(lambda f, x, w: f.prelu(x, w), np.array(-2.0), np.array([0.25]))
    assert nn.Flatten(0)(md.tensor(2.0)).shape == (1,) and nn.Flatten(1, 2)(md.ones((2, 3, 4))).shape == (2, 12)
    alike(lambda f, x, y: f.cosine_similarity(x, y, dim=1), R.normal(size=(2, 3)), R.normal(size=(1, 1)))
    alike(lambda f, x, y: f.cosine_similarity(x, y, dim=0), R.normal(size=(2, 3)), R.normal(size=(3,)))


@pytest.mark.parametrize(("mode", "widths"), [("reflect", (-1, 2)), ("reflect", (2, -2)), ("reflect", (1, -1, -1, 2)), ("replicate", (-2, 3, 2, -1))])
def test_a_border_that_crops_mirrors_what_it_crops(mode, widths):
    alike(lambda f, x: f.pad(x, widths, mode=mode), R.normal(size=(1, 2, 3, 3) if len(widths) == 4 else (2, 3, 3)))


@pytest.mark.parametrize("p", [np.inf, -np.inf])
def test_pools_of_infinite_norm_are_those_of_sizes(p):
    alike(lambda f, x: f.lp_pool1d(x, p, 2, ceil_mode=True), R.normal(size=(2, 2, 5)))
    alike(lambda f, x: f.lp_pool2d(x, p, (2, 3), 1), R.normal(size=(2, 2, 5, 4)))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: nn.BatchNorm1d(2)(md.ones((4, 3))), r"batch_norm: running_mean of shape \(2,\) for input .* one number for each channel"),
    (lambda: nn.InstanceNorm2d(4, track_running_stats=True)(md.ones((2, 2, 3, 3))), r"running_mean of shape \(4,\)"),
    (lambda: F.group_norm(md.ones((2, 4)), 2, weight=md.ones(2)), r"group_norm: weight of shape \(2,\)"),
    (lambda: F.group_norm(md.ones((1, 2)), 2), "group_norm: more than one value per group"),
    (lambda: nn.Flatten(2, 1)(md.ones((2, 3, 4))), "flatten: start_axis 2 lies after end_axis 1"),
    (lambda: nn.Flatten(1)(md.tensor(1.0)), "flatten: axis 1 is out of range"),
    (lambda: F.cross_entropy(md.ones((2, 3)), md.tensor([0, 1]), label_smoothing=1.5), "cross_entropy: label_smoothing is between 0 and 1, not 1.5"),
    (lambda: F.huber_loss(md.ones(2), md.ones(2), delta=0.0), "huber_loss: delta must be positive"),
    (lambda: F.smooth_l1_loss(md.ones(2), md.ones(2), beta=-1.0), "smooth_l1_loss: beta must not be negative"),
    (lambda: F.smooth_l1_loss(md.ones(2), md.ones(3)), r"smooth_l1_loss: input \(2,\) and target \(3,\)"),
    (lambda: F.glu(md.ones(2), dim=1), r"glu: axis 1 of shape \(2,\) must have an even size"),
    (lambda: F.fold(md.ones((1, 9, 1)), (2, 2), 3), "fold: windows of"),
    (lambda: F.fold(md.ones((1, 4, 1)), (2, 2), -1), r"fold: windows of \(-1, -1\)"),
    (lambda: F.unfold(md.ones((1, 2, 4, 4)), 1, dilation=-3), "unfold: windows of .* dilation"),
    (lambda: nn.BatchNorm1d(2, eps=-1.0)(md.ones((3, 2))), "batch_norm: eps must not be negative"),
    (lambda: nn.ZeroPad1d(-2)(md.ones((1, 2, 3))), "pad: widths .* crop more"),
    (lambda: nn.ReflectionPad1d(-2)(md.ones((1, 2, 3))), r"pad: \(-2, -2\) crops more of shape"),
    (lambda: nn.Unflatten(3, (2, 2))(md.ones((4, 4))), "Unflatten: axis 3 is out of range"),
    (lambda: F.interpolate(md.ones((1, 2, 4, 4)), scale_factor=(0.5,)), "interpolate: scale_factor"),
    (lambda: nn.ConvTranspose1d(1, 2, 2)(md.tensor(1.0), [4]), "ConvTranspose1d: expected"),
    (lambda: nn.Transformer(4, 2, 1, 1, 4)(md.tensor(1.0), md.ones((1, 4))), "Transformer: src"),
    (lambda: F.one_hot(md.tensor([0, 5]), 3), "one_hot: the tensor holds 0 to 5; the classes are 0 to 2"),
])  # fmt: skip
@pytest.mark.cpu
def test_what_torch_refuses_is_refused_by_name(call, message):
    with pytest.raises((ValueError, IndexError), match=message):
        call()


@pytest.mark.parametrize("ord", [2, 1, 0, np.inf, -np.inf, 3, -1, -2, 0.5, -0.5, 1.5])
def test_norms_of_what_is_not_finite_equal_torchs(ord):
    for row in ([0.0, 2.0], [np.inf, 1.0], [np.inf, 0.0], [np.nan, 1.0], [np.nan, 0.0], [np.inf, np.nan], [np.inf, -np.inf], [0.0, 0.0]):
        want = torch.linalg.vector_norm(torch.tensor(row, dtype=torch.float64), ord=ord).item()
        assert md.vector_norm(md.tensor(row, dtype="float64"), ord=ord).item() == pytest.approx(want, nan_ok=True, rel=1e-14), row
    half = md.tensor([300.0] * 50, dtype="float16")
    assert md.vector_norm(half, ord=ord).item() == torch.linalg.vector_norm(torch.full((50,), 300.0, dtype=torch.float16), ord=ord).item()


def test_slopes_of_norms_that_are_infinite():
    for ord, large in ((2, 1e30), (3, 1e15), (1.5, 1e30)):
        slopes = md.grad(lambda x, ord=ord: md.vector_norm(x, ord=ord))
        assert slopes(md.tensor([large, 2.0])).tolist() == [0.0, 0.0]  # the power overflows
        assert slopes(md.tensor([np.inf, 2.0])).tolist()[1] == 0.0


@pytest.mark.parametrize("cotangent", [np.inf, -np.inf, np.nan, 1.0])
def test_a_cotangent_that_is_not_finite_gives_batch_norm_one_gradient(backend, cotangent):
    found = []
    for jit in (lambda f: f, md.jit) if backend == "torch" else (lambda f: f,):
        for name in (backend, "numpy"):
            x = md.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 8.0]], backend=name, requires_grad=True)
            w = md.tensor([1.0, 2.0], backend=name, requires_grad=True)
            y = jit(lambda x, w: md.nn.functional.batch_norm(x, None, None, w, training=True))(x, w)
            y.backward(md.tensor([[cotangent, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], backend=name))
            found.append((x.grad.numpy(), w.grad.numpy()))
    for (a, b), (c, d) in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(b, d, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 2, 3, 4)])
def test_attention_that_drops_next_to_nothing_is_attention(shape):
    q, k, v = (md.tensor(R.normal(size=(*shape[:-2], n, shape[-1]))) for n in (shape[-2], 5, 5))
    for more in ({}, {"is_causal": True}, {"scale": 0.3}):
        wanted = F.scaled_dot_product_attention(q, k, v, **more)
        np.testing.assert_allclose(F.scaled_dot_product_attention(q, k, v, dropout_p=1e-12, **more).numpy(), wanted.numpy(), rtol=1e-10)


def test_a_name_that_is_taken_is_not_computed_and_other_wrong_arguments():
    layer = nn.BatchNorm1d(2)
    layer.child = nn.ReLU()
    for name in ("weight", "running_mean", "child"):
        with pytest.raises(ValueError, match=f"compute: BatchNorm1d has '{name}' already; rename it first"):
            nn.computed.compute(layer, name, lambda module: 1.0)
    with pytest.raises(AttributeError, match="restore: BatchNorm1d computes no 'other'"):
        nn.computed.restore(layer, "other")
    with pytest.raises(TypeError, match=r"EmbeddingBag.from_pretrained: embeddings must be a Tensor, not list"):
        nn.EmbeddingBag.from_pretrained([[1.0]])
    for heads in (0, -2, 3):
        with pytest.raises(ValueError, match=f"MultiheadAttention: embed_dim 4 cannot be split into {heads} heads"):
            nn.MultiheadAttention(4, heads)
    with pytest.raises(ValueError, match=r"local_response_norm: expected \[N, C, ...\], got shape \(3, 4\)"):
        F.local_response_norm(md.ones((3, 4)), 2)


#: Layers whose parameters are large enough to tell their distribution.
DRAWN: dict[str, tuple] = {
    "Linear": (60, 50), "Bilinear": (20, 9, 15), "Conv1d": (20, 30, 5), "Conv2d": (8, 30, 3), "Conv3d": (4, 20, 3), "ConvTranspose1d": (20, 30, 5),
    "ConvTranspose2d": (12, 20, 3), "Embedding": (90, 30), "EmbeddingBag": (90, 30), "RNN": (20, 40), "LSTM": (20, 40, 2), "GRU": (20, 40),
    "RNNCell": (20, 40), "LSTMCell": (20, 40), "GRUCell": (20, 40), "MultiheadAttention": (40, 4), "LayerNorm": (9,), "BatchNorm1d": (9,),
    "InstanceNorm1d": (9, 1e-5, 0.1, True), "GroupNorm": (3, 9), "RMSNorm": (9,), "PReLU": (9,), "TransformerEncoderLayer": (40, 4, 60),
    "TransformerDecoderLayer": (40, 4, 60), "AdaptiveLogSoftmaxWithLoss": (40, 90, [30, 60]),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_first_values_are_drawn_as_torchs(name):
    md.manual_seed(0)
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*DRAWN[name]).state_dict()
    ours = getattr(nn, name)(*DRAWN[name]).state_dict()
    assert list(ours) == list(theirs)
    for key, p in theirs.items():
        a, b = ours[key].detach().numpy(), p.detach().numpy()
        if np.ptp(b) == 0:
            np.testing.assert_array_equal(a, b)
        else:  # each within a few of its own deviations; the largest number tells a bell from a box
            np.testing.assert_allclose(a.std(), b.std(), rtol=4 / np.sqrt(a.size), err_msg=key)
            assert abs(a.mean() - b.mean()) < 6 * b.std() / np.sqrt(a.size)
            assert a.size < 500 or abs(np.abs(a).max() / np.abs(b).max() - 1) < 0.3, key


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_knows_of_padding(n):
    x, more = R.normal(size=(2, 3) + (7,) * n), {"kernel_size": 3, "stride": 3, "padding": 1}  # no place twice, which torch has the gradient of twice
    names = f"max_pool{n}d", f"max_unpool{n}d"
    alike(lambda f, x: getattr(f, names[1])(*getattr(f, names[0])(x, **more, return_indices=True), **more), x)


def test_statistics_that_are_reset_are_those_of_a_new_layer():
    layer, fresh = nn.BatchNorm1d(2), nn.BatchNorm1d(2).state_dict()
    layer(md.tensor([[1.0, 2.0], [3.0, 9.0]]))
    moved = layer.state_dict()
    layer.reset_running_stats()
    for key, value in layer.state_dict().items():
        assert value.tolist() == fresh[key].tolist() and (value.tolist() != moved[key].tolist() or key in ("weight", "bias"))
