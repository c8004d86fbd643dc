"""Quantization: exact integer arithmetic on every backend, small files, accuracy on real digits and real text."""

from __future__ import annotations

import importlib
import os
import re
import runpy

import numpy as np
import pytest
import torch

import minidl as md
from minidl import nn, optim, quantize
from minidl.nn import functional as F

EIGHT = np.random.default_rng(0)


def numbers(*shape):
    return md.tensor(EIGHT.normal(size=shape).astype(np.float32))


# ---- rounding ------------------------------------------------------------------------------------------------------------------------------
def test_rounding_is_half_to_even_and_symmetric(backend):
    x = md.tensor([-1.27, -0.005, 0.0, 0.015, 0.025, 1.27, 5.0, -5.0])
    assert quantize.quantize(x, md.tensor(0.01)).tolist() == [-127, 0, 0, 2, 2, 127, 127, -127]
    scale = quantize.scale_of(md.tensor([[1.0, -2.54], [0.0, 0.0]]), -1)
    assert scale.shape == (2, 1) and abs(scale[0, 0].item() - 0.02) < 1e-8 and scale[1, 0].item() == 1.0
    y = md.tensor([0.3, 2.0, -2.0])
    f = lambda y: (quantize.fake_quantize(y, md.tensor(0.01)) * md.tensor([1.0, 2.0, 3.0])).sum()
    for g in (md.grad(f), md.jit(md.grad(f)), lambda y: md.vjp(f, y)[1](md.tensor(1.0))[0]):
        assert g(y).tolist() == [1.0, 0.0, 0.0]


def test_the_rounding_in_training_is_torchs():
    for scale in (0.02, 1 / 3):
        x = np.append(EIGHT.normal(size=40) * 3, np.array([127.0, -127.0, 127.4, 127.6, -127.4, -128.0]) * scale).astype(np.float32)
        theirs = torch.tensor(x, requires_grad=True)
        out = torch.fake_quantize_per_tensor_affine(theirs, scale, 0, -127, 127)
        out.sum().backward()
        f = lambda v, scale=scale: quantize.fake_quantize(v, md.tensor(scale))
        np.testing.assert_allclose(f(md.asarray(x)).numpy(), out.detach().numpy(), rtol=1e-6)
        assert np.array_equal(md.grad(lambda v, f=f: f(v).sum())(md.asarray(x)).numpy(), theirs.grad.numpy())
    weight = numbers(50, 5)  # the largest of each row is 127 scales, more or less by a rounding: it is trained like the others
    scale = quantize.scale_of(weight, 1)
    assert (md.grad(lambda v: quantize.fake_quantize(v, scale).sum())(weight) == 1).all().item()
    assert quantize.scale_of(md.tensor([1e-44, 0.0])).item() == 1.0


# ---- integer arithmetic ------------------------------------------------------------------------------------------------------------------
def test_products_of_int8_are_exact(backend):
    x, w = (md.tensor(EIGHT.integers(-128, 128, s).astype(np.int8)) for s in ((2, 3, 1500), (4, 1500)))
    want = x.numpy().astype(np.int64) @ w.numpy().astype(np.int64).T
    assert abs(want).max() > 2**16
    row = lambda x: md.matmul_int8(x, w)
    for f in (row, md.jit(row), md.vmap(row), lambda x: md.vmap(md.matmul_int8, in_axes=(None, 0))(x, w[None])[0]):
        out = f(x)
        assert out.dtype is md.int32 and np.array_equal(out.numpy(), want)
    both = md.vmap(md.matmul_int8)(x, md.stack([w, w]))
    assert np.array_equal(both.numpy(), want)
    assert md.matmul_int8(x[:0], w).shape == (0, 3, 4)
    with pytest.raises(TypeError, match=r"matmul_int8: f32\[2,3\] with rows i8\[4,1500\]: both must be int8"):
        md.matmul_int8(md.ones((2, 3)), w)
    with pytest.raises(ValueError, match=r"want i8\[m,k\] and i8\[n,k\]"):
        md.matmul_int8(x[0], w[:, :5])


@pytest.mark.parametrize("per_channel", [True, False])
def test_layers_compute_what_their_integers_say(backend, per_channel):
    linear, conv, embedding = nn.Linear(12, 5), nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Embedding(9, 4)
    x, image, words = numbers(7, 12), numbers(2, 4, 8, 8), md.tensor([[1, 2, 8], [0, 0, 3]])
    q = quantize.QuantizedLinear(linear, per_channel)
    assert q.weight_int8.dtype is md.int8 and q.scale.size == (5 if per_channel else 1)
    xs = np.abs(x.numpy()).max(1, keepdims=True) / 127
    xi = np.clip(np.rint(x.numpy() / xs), -127, 127)
    want = (xi @ q.weight_int8.numpy().astype(np.float64).T) * xs * q.scale.numpy().reshape(-1) + linear.bias.detach().numpy()
    for f in (q, md.jit(q)):
        assert np.allclose(f(x).numpy(), want, atol=1e-5)
    assert abs(q(x) - linear(x)).max().item() < 0.05
    assert abs(quantize.QuantizedConv(conv, per_channel)(image) - conv(image)).max().item() < 0.05
    assert abs(quantize.QuantizedEmbedding(embedding, per_channel)(words) - embedding(words)).max().item() < 0.03
    assert np.array_equal(q.weight.numpy(), (q.weight_int8.to(md.float32) * q.scale).numpy())


def test_each_channel_has_a_scale_of_its_own_unless_told():
    linear, embedding = nn.Linear(4, 3), nn.Embedding(5, 4)
    assert quantize.QuantizedLinear(linear).scale.shape == quantize.dynamic(linear).scale.shape == (3, 1)
    assert quantize.QuantizedEmbedding(embedding).scale.shape == quantize.dynamic(embedding).scale.shape == (5, 1)
    assert quantize.dynamic(linear, per_channel=False).scale.size == 1


def test_a_convolution_adds_up_more_products_than_float32_holds():
    conv = nn.Conv1d(1041, 1, 1, bias=False).to(md.float64)
    with md.no_grad():
        conv.weight.fill_(1.0)
    found = quantize.QuantizedConv(conv)(md.ones((1, 1041, 1), dtype=md.float64)).item()
    assert found == pytest.approx(1041, rel=1e-14) and 1041 * 127**2 > 2**24


def test_masks_become_zeros_of_the_integers():
    layer = nn.utils.prune.l1_unstructured(nn.Linear(8, 4), "weight", amount=0.5)
    small = quantize.dynamic(layer)
    assert (small.weight_int8 == 0).sum().item() == 16 and abs(small.weight - layer.weight).max().item() < 0.002
    assert nn.utils.prune.is_pruned(layer) and not nn.utils.prune.is_pruned(quantize.prepare(layer, aware=True).layer)


@pytest.mark.parametrize("dtype", [md.float16, md.bfloat16])
def test_sums_that_half_precision_does_not_hold(dtype):
    linear, conv = nn.Linear(600, 3), nn.Conv2d(32, 3, 5)
    x, image = md.abs(numbers(2, 600)), md.abs(numbers(1, 32, 6, 6))
    for layer, data, small in ((linear, x, quantize.QuantizedLinear), (conv, image, quantize.QuantizedConv)):
        with md.no_grad():
            layer.weight.assign(md.abs(layer.weight))  # so that the sums of integers are above 65,504
        want = layer(data).detach().numpy()
        q = small(layer.to(dtype))
        for scale in (None, quantize.scale_of(data).to(dtype)):
            q.input_scale = scale
            got = q(data.to(dtype))
            assert got.dtype is dtype and np.allclose(got.to(md.float32).numpy(), want, rtol=0.02)


def test_inputs_that_are_no_ordinary_floats(backend):
    nan = float("nan")
    for layer, x, place in ((nn.Linear(2, 3), md.tensor([[1.0, 2.0], [nan, 1.0]]), (1,)), (nn.Conv1d(1, 3, 1), md.tensor([[[1.0]], [[nan]]]), (1,))):
        q = quantize.dynamic(layer, (nn.Linear, nn.Conv1d))
        out = md.isnan(q(x))
        assert out[place].all().item() and not out[0].any().item()  # what is no number does not become one, nor its neighbours nan
        whole = md.ones(x.shape, dtype=md.int64)
        assert q(whole).dtype is layer(whole).dtype is md.float32 and abs(q(whole) - layer(whole)).max().item() < 0.02
        observed = quantize.prepare(layer)
        assert observed(x[:0]).shape == layer(x[:0]).shape and observed.input_max.item() == 0
    with pytest.raises(ValueError, match="prepare: the model has observed layers already"):
        quantize.prepare(observed)


def test_a_weight_that_something_else_computes_with_is_what_its_integers_stand_for():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(20, 8)

        def forward(self, x):
            return F.linear(self.words(x), self.words.weight)

    model, words = Tied().eval(), md.tensor([[0, 5, 19]])
    small = quantize.dynamic(model)
    assert list(small.state_dict()) == ["words.weight_int8", "words.scale"]
    assert abs(small(words) - model(words)).max().item() < 0.2 < abs(model(words)).max().item()


@pytest.mark.cpu
def test_backends_agree_to_the_bit_on_static_integers():
    md.manual_seed(1)
    layer = nn.Linear(16, 8, bias=False)
    results = []
    for name in ("numpy", "numba", "torch", "jax"):
        q = quantize.QuantizedLinear(layer, input_scale=md.tensor(0.03125)).to(backend=name)
        x = md.tensor(np.random.default_rng(3).normal(size=(4, 16)).astype(np.float32), backend=name)
        results.append(md.matmul_int8(quantize.quantize(x, q.input_scale), q.weight_int8).numpy())
    assert all(np.array_equal(r, results[0]) for r in results)


# ---- the workflow ------------------------------------------------------------------------------------------------------------------------
def small_net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 3))


def test_static_quantization_measures_then_converts(backend):
    md.manual_seed(0)
    net = small_net().eval()
    images = numbers(8, 1, 8, 8)
    observed = quantize.prepare(net)
    run = md.jit(observed)  # ranges are state of the jitted function, too
    assert abs(run(images) - net(images)).max().item() < 1e-5
    assert abs(observed[0].input_max.item() - np.abs(images.numpy()).max()) < 1e-6
    run(images * 0.5)
    assert abs(observed[0].input_max.item() - np.abs(images.numpy()).max()) < 1e-6
    small = quantize.convert(observed)
    assert [type(m).__name__ for m in small] == ["QuantizedConv", "ReLU", "Flatten", "QuantizedLinear", "ReLU", "QuantizedLinear"]
    assert abs(small(images) - net(images)).max().item() < 0.05
    assert isinstance(net[0], nn.Conv2d) and type(net[3]) is nn.Linear  # the model itself is as it was
    again = quantize.convert(observed)
    assert (again(images) == small(images)).all().item()


def test_training_aware_of_rounding_improves_on_rounding_afterwards():
    md.manual_seed(0)
    rng = np.random.default_rng(0)  # its own: with other data, which would follow the order of tests, a sum may lie between two levels of rounding
    x = md.tensor(rng.normal(size=(256, 8)).astype(np.float32))
    y = md.tanh(x @ md.tensor(rng.normal(size=(8, 2)).astype(np.float32)))
    net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))
    aware = quantize.prepare(net, aware=True)
    assert sorted(aware[0].layer.state_dict()) == ["bias", "weight_float"] and isinstance(aware[0].layer, nn.Linear)
    optimizer = optim.Adam(aware.parameters(), lr=0.02)

    @md.jit
    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(aware(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(150)]
    assert losses[-1] < 0.1 * losses[0]
    aware.eval()
    small = quantize.convert(aware)
    assert [type(m).__name__ for m in small] == ["QuantizedLinear", "Tanh", "QuantizedLinear"]
    assert abs(small(x) - aware(x)).max().item() < 1e-4  # what was trained is what is shipped


def test_ranges_follow_the_batches_in_training_only():
    aware = quantize.prepare(nn.Linear(2, 2), aware=True)
    assert aware.training and not quantize.prepare(nn.Linear(2, 2).eval(), aware=True).training
    for size, wanted in ((1.0, 1.0), (-2.0, 1.1), (0.1, 1.0)):
        aware(md.full((3, 2), size))
        assert aware.input_max.item() == pytest.approx(wanted)
    aware.eval()(md.full((3, 2), 9.0))
    assert aware.input_max.item() == pytest.approx(1.0)


def test_wrong_use_says_so():
    for make in (quantize.prepare, quantize.convert):
        with pytest.raises(TypeError, match="a Module is wanted, not function"):
            make(lambda x: x)
    with pytest.raises(ValueError, match="Linear computes its weight from others, which cannot be rounded in training"):
        quantize.prepare(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), aware=True)
    with pytest.raises(ValueError, match="the model has no observed layer"):
        quantize.convert(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="0 saw no data, or zeros only"):
        quantize.convert(quantize.prepare(nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(TypeError, match="BatchNorm1d has no quantized form"):
        quantize.dynamic(nn.Sequential(nn.BatchNorm1d(2)), (nn.BatchNorm1d,))
    with pytest.raises(TypeError, match="a Module is wanted, not function"):
        quantize.dynamic(lambda x: x)
    shared = nn.Linear(2, 2)
    twice = quantize.dynamic(nn.Sequential(shared, shared))
    assert twice[0] is twice[1]


# ---- real data ---------------------------------------------------------------------------------------------------------------------------
def fit(net, batches, epochs, rate):
    """Train by cross-entropy, jitted."""
    optimizer = optim.SGD(net.parameters(), lr=rate, momentum=0.9)

    @md.jit
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(epochs):
        for x, y in batches:
            step(x, y)
    return net.eval()


def accuracy(f, x, y):
    return (md.argmax(f(x), axis=1) == y).to(md.float32).mean().item()


def sizes(net, small, folder):
    """Bytes of the saved tensors of both."""
    for name, model in (("float", net), ("int8", small)):
        md.saving.save_tensors(folder / name, model.state_dict())
    return os.path.getsize(folder / "int8") / os.path.getsize(folder / "float")


def test_digits_in_8_bits(tmp_path):
    from minidl.data import digits
    from minidl.demo import Net

    md.manual_seed(0)
    (x, y), (tx, ty) = (data.tensors for data in digits())
    net = fit(Net(), [(x[i : i + 32], y[i : i + 32]) for i in range(0, 1408, 32)], 12, 0.02)
    before = accuracy(net, tx, ty)
    assert before > 0.9
    small = quantize.dynamic(net, (nn.Linear, nn.Conv2d))
    observed = quantize.prepare(net)
    observed(x[:256])
    fixed = quantize.convert(observed)
    for model in (small, fixed):
        assert accuracy(model, tx, ty) > before - 0.01
        assert sizes(net, model, tmp_path) <= 0.3
    file, npz = md.export(fixed, (tx[:4],), tmp_path / "digits8.py", dynamic_batch=True)
    got = runpy.run_path(str(file))["predict"](tx.numpy())
    assert (got.argmax(1) == ty.numpy()).mean() > before - 0.01 and os.path.getsize(npz) < 0.3 * 4 * sum(p.size for p in net.parameters())


def paragraphs():
    """(words, label) of paragraphs of Python's own documentation: of files, or of numbers."""
    found = {}
    for label, names in enumerate(("os shutil pathlib tarfile zipfile io", "math statistics fractions decimal random")):
        for name in names.split():
            module = importlib.import_module(name)
            methods = [m for c in vars(module).values() if isinstance(c, type) for m in vars(c).values()]
            objects = [module, *vars(module).values(), *methods]
            for text in {d for o in objects if isinstance(d := getattr(o, "__doc__", None), str)}:
                for part in re.split(r"\n\s*\n", text):
                    words = tuple(re.findall(r"[a-z]+", part.lower())[:24])
                    if len(words) >= 5:
                        found.setdefault(words, set()).add(label)
    return sorted((words, labels.pop()) for words, labels in found.items() if len(labels) == 1)


class Text(nn.Module):
    """The mean of a text's word vectors, classified."""

    def __init__(self, words):
        super().__init__()
        self.embedding, self.fc1, self.fc2 = nn.Embedding(words, 64, padding_idx=0), nn.Linear(64, 32), nn.Linear(32, 2)

    def forward(self, x):
        count = (x != 0).sum(axis=1, keepdims=True).to(md.float32)
        return self.fc2(F.relu(self.fc1(self.embedding(x).sum(axis=1) / count)))


def test_text_in_8_bits(tmp_path):
    md.manual_seed(0)
    pairs = paragraphs()
    known = {w: i + 1 for i, w in enumerate(sorted({w for words, _ in pairs for w in words}))}
    x = md.asarray([[known[w] for w in words] + [0] * (24 - len(words)) for words, _ in pairs])
    y = md.asarray([label for _, label in pairs])
    test = md.asarray(np.arange(len(pairs)) % 5 == 0)
    tx, ty, x, y = x[test], y[test], x[~test], y[~test]
    net = fit(Text(len(known) + 1), [(x[i : i + 64], y[i : i + 64]) for i in range(0, len(x) - 63, 64)], 8, 0.3)
    before = accuracy(net, tx, ty)
    assert before > 0.8 and len(ty) > 200
    small = quantize.dynamic(net)
    assert accuracy(small, tx, ty) > before - 0.01 and sizes(net, small, tmp_path) <= 0.3
