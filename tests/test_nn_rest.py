"""Names of torch.nn that are no layer of one tensor: attention as a function, the adaptive softmax's other methods, drawn windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.nn import functional as F

torch = pytest.importorskip("torch")
tnn, TF = torch.nn, torch.nn.functional


# ---- attention as a function ------------------------------------------------------------------------------------------------------------
CASES = [c for c in itertools.product([False, True], repeat=4) if not (c[0] and c[3])]


def attention(f, wrap, arrays, case):
    """Output, weights and the gradients of what goes in, with bias_k and bias_v, a place of zeros, separate weights, static keys and values."""
    biases, zero, separate, static = case
    t = {k: wrap(v, requires_grad=v.dtype.kind == "f") for k, v in arrays.items()}
    parts = {f"{k}_proj_weight": wrap(v, requires_grad=True) for k, v in zip("qkv", np.split(arrays["w"], 3), strict=True)}
    more = {"use_separate_proj_weight": True, **parts} if separate else {}
    more |= {"static_k": t["static_k"], "static_v": t["static_v"]} if static else {}
    outs = f(
        t["q"], t["k"], t["v"], 6, 2, None if separate else t["w"], t["b"], t["bias_k"] if biases else None, t["bias_v"] if biases else None, zero,
        0.0, t["out"], None, attn_mask=None if static else t["mask"], average_attn_weights=separate, **more,
    )  # fmt: skip
    sum((o * o).sum() for o in outs).backward()
    return [*outs, *(x.grad for x in (*t.values(), *parts.values()) if x.grad is not None)]


@pytest.mark.parametrize("case", CASES)
def test_attention_as_a_function_equals_torchs(case):
    g = np.random.default_rng(0)
    shapes = {"q": (4, 3, 6), "k": (5, 3, 6), "v": (5, 3, 6), "w": (18, 6), "b": (18,), "bias_k": (1, 1, 6), "bias_v": (1, 1, 6), "out": (6, 6),
              "static_k": (6, 7, 3), "static_v": (6, 7, 3)}  # fmt: skip
    arrays = {k: g.normal(size=s) for k, s in shapes.items()} | {"mask": np.eye(4, 5, dtype=bool)}
    ours, theirs = (attention(f.multi_head_attention_forward, t, arrays, case) for f, t in ((F, md.tensor), (TF, torch.tensor)))
    assert len(ours) == len(theirs)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-11, err_msg=str(i))


def test_attention_as_a_function_is_what_the_layer_computes(backend):
    layer, x = nn.MultiheadAttention(6, 2, add_bias_kv=True), md.random.normal(md.random.key(0), (4, 3, 6))
    parts = (layer.in_proj_weight, layer.in_proj_bias, layer.bias_k, layer.bias_v, False, 0.0, layer.out_proj.weight, layer.out_proj.bias)
    run = md.jit(lambda x: (layer(x, x, x, is_causal=True), F.multi_head_attention_forward(x, x, x, 6, 2, *parts, is_causal=True)))
    for a, b in zip(*run(x), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_attention_as_a_function_refuses_what_does_not_fit():
    x, w = md.ones((4, 3, 6)), md.ones((18, 6))
    rest = (False, 0.0, md.ones((6, 6)), None)
    run = lambda *args, biases=(None, None), w=w, **more: F.multi_head_attention_forward(*args, 6, 2, w, None, *biases, *rest, **more)
    bias = md.ones((1, 1, 6))
    for call, match in (
        (lambda: run(x, x[0], x), "must all have 2 or 3 axes"), (lambda: run(x[..., :4], x, x), "wanted are 6 features in 2 heads"),
        (lambda: run(x, x, x, w=None), "in_proj_weight is wanted"), (lambda: run(x, x, x, static_k=x), r"static keys and values are \[6, S, 3\]"),
        (lambda: run(x, x, x, static_k=md.ones((5, 7, 3))), r"static keys and values are \[6, S, 3\], got \(5, 7, 3\)"),
        (lambda: run(x, x, x, use_separate_proj_weight=True), "q_proj_weight, k_proj_weight and v_proj_weight are wanted"),
        (lambda: run(x, x, x, biases=(bias, bias), static_k=md.ones((6, 2, 3))), "cannot be added to static"),
        (lambda: run(x, x, x, biases=(bias, None)), "come together; bias_v is None"), (lambda: run(x, x, x, biases=(None, bias)), "bias_k is None"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"multi_head_attention_forward: .*{match}"):
            call()


# ---- the adaptive softmax -----------------------------------------------------------------------------------------------------------------
def test_the_adaptive_softmax_takes_integers_of_any_kind():
    assert nn.AdaptiveLogSoftmaxWithLoss(9, 12, np.array([3, 6])).cutoffs == [3, 6, 12]
    with pytest.raises(ValueError, match="cutoffs are one or more increasing integers"):
        nn.AdaptiveLogSoftmaxWithLoss(9, 12, [2.5])


def test_the_adaptive_softmax_predicts_as_torchs():
    ours, theirs = (lib.AdaptiveLogSoftmaxWithLoss(9, 12, [3, 6, 7], div_value=2.0).double() for lib in (nn, tnn))
    ours.load_state_dict({k: 3 * v for k, v in theirs.state_dict().items()})
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(30, 9))
    np.testing.assert_allclose(ours.log_prob(md.asarray(x)).detach().numpy(), theirs.log_prob(torch.tensor(x)).detach().numpy(), rtol=1e-11)
    found = ours.predict(md.asarray(x)).numpy()
    np.testing.assert_array_equal(found, theirs.predict(torch.tensor(x)).numpy())
    assert len(np.unique(found)) > 4
    one = ours(md.asarray(x[0]), md.asarray(8)), theirs(torch.tensor(x[0]), torch.tensor(8))
    for a, b in zip(*one, strict=True):
        assert a.shape == tuple(b.shape) == ()
        np.testing.assert_allclose(a.item(), b.item(), rtol=1e-12)


@pytest.mark.cpu
def test_the_adaptive_softmax_refuses_what_does_not_fit():
    for cutoffs in ([], [3, 2], [0, 2], [12], [2, 2], [2.5]):
        with pytest.raises(ValueError, match="cutoffs"):
            nn.AdaptiveLogSoftmaxWithLoss(9, 12, cutoffs)
    layer, x = nn.AdaptiveLogSoftmaxWithLoss(9, 12, [3, 6]), md.ones((2, 9))
    for bad in (md.asarray([1]), md.asarray([[1, 2]]), md.asarray([1.0, 2.0]), md.asarray(1)):
        with pytest.raises(ValueError, match=r"input \[N, 9\] and integer targets"):
            layer(x, bad)
    for bad in (12, -1):
        with pytest.raises(IndexError, match=f"the target holds class {bad}, but there are classes 0 to 11"):
            layer(x, md.asarray([0, bad]))


# ---- drawn windows ------------------------------------------------------------------------------------------------------------------------
def test_drawn_windows_come_from_minidls_stream_and_cover_the_input(backend):
    run = lambda x: F.fractional_max_pool2d(x, 2, (5, 7), return_indices=True)
    found = []
    for where, f in (("numpy", run), (backend, md.jit(run))):
        with md.use_backend(where):
            md.manual_seed(0)
            x = md.reshape(md.arange(81.0), (1, 1, 9, 9))
            found.append([[v.numpy() for v in f(x)] for _ in range(4)])
    for want, got in zip(*found, strict=True):
        for a, b in zip(want, got, strict=True):
            np.testing.assert_array_equal(a, b)
        value, index = want
        assert value.shape == (1, 1, 5, 7) and (np.arange(81.0)[index] == value).all()
        assert value[0, 0, -1, -1] == 80.0 and (np.diff(value[0, 0]) > 0).all()  # windows in order, the last one at the end
    assert len({index.tobytes() for _, index in found[0]}) > 1


def test_ratios_say_how_many_windows_there_are():
    layer = nn.FractionalMaxPool3d(2, output_ratio=(0.5, 0.4, 0.9))
    assert layer(md.ones((2, 3, 6, 5, 4))).shape == (2, 3, 3, 2, 3) and layer(md.ones((3, 6, 5, 4))).shape == (3, 3, 2, 3)


def test_drawn_windows_refuse_what_does_not_fit():
    x = md.ones((1, 2, 5, 5))
    for call, match in (
        (lambda: F.fractional_max_pool2d(x, 2), "either output_size or output_ratio"),
        (lambda: F.fractional_max_pool2d(x, 2, 3, 0.5), "either output_size or output_ratio"),
        (lambda: nn.FractionalMaxPool2d(2, output_ratio=1.5), "FractionalMaxPool2d: output_ratio is one number between 0 and 1"),
        (lambda: F.fractional_max_pool2d(x, 2, 5), r"\(5, 5\) windows of \(2, 2\) do not fit into \(5, 5\)"),
        (lambda: F.fractional_max_pool2d(x, 2, 3, _random_samples=md.ones((1, 2, 3))), r"_random_samples are \(1, 2, 2\)"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
