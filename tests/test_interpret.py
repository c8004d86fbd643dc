"""Attributions: against closed forms, against torch, alike on every backend; and pictures that can be opened."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import minidl as md
from minidl import interpret, nn

RNG = np.random.default_rng(0)


def net():
    """A small CNN in float64 with drawn weights, the same on every backend."""
    md.manual_seed(3)
    layers = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 3, 3))
    return layers.to(md.float64).eval()


def images():
    return md.tensor(np.random.default_rng(1).normal(size=(3, 2, 6, 6)))


def test_attributions_of_a_linear_model_are_its_terms(backend):
    w, x = md.tensor(RNG.normal(size=(4, 3))), md.tensor(RNG.normal(size=(5, 4)))
    base = md.tensor(RNG.normal(size=4))
    f = lambda x: x @ w
    targets = md.tensor([0, 2, 1, 1, 0])
    columns = w.numpy().T[targets.numpy()]
    assert np.allclose(interpret.saliency(f, x, targets).numpy(), abs(columns))
    assert np.allclose(interpret.input_times_gradient(f, x, targets).numpy(), x.numpy() * columns)
    assert np.allclose(interpret.integrated_gradients(f, x, base, targets, steps=3).numpy(), (x.numpy() - base.numpy()) * columns)
    assert np.allclose(interpret.smooth_grad(f, x, 1, samples=3).numpy(), np.broadcast_to(w.numpy()[:, 1], (5, 4)))
    jitted = md.jit(lambda x, t: interpret.integrated_gradients(f, x, base, t, steps=3))
    assert np.allclose(jitted(x, targets).numpy(), (x.numpy() - base.numpy()) * columns)


def test_on_the_way_from_a_baseline_no_derivative_is_constant():
    """Of sums over the inputs the attributions are the differences; f's closed form is by hand."""
    x, b = np.array([[0.8, -0.5], [0.1, 0.7]]), np.array([[-0.3, 0.4]])
    f = lambda x: (x**3).sum(axis=1) + x[:, 0] * x[:, 1]
    for base in (b, 0.5):
        wanted = x**3 - base**3 + (x - base) * (x + base)[:, ::-1] / 2
        given = base if isinstance(base, float) else md.tensor(base)
        np.testing.assert_allclose(interpret.integrated_gradients(f, md.tensor(x), given, steps=2).numpy(), wanted)
        same, bases = (md.tensor(np.broadcast_to(a, (n, 2)).copy()) for a, n in ((x[0], 20_000), (base, 1)))
        np.testing.assert_allclose(interpret.gradient_shap(f, same, bases, samples=1).numpy().mean(axis=0), wanted[0], atol=0.02)
    assert interpret.integrated_gradients(lambda x: x, md.tensor([3.0]), steps=1).item() == 3.0


def test_the_noise_is_a_share_of_the_range_of_its_example():
    x = np.linspace(0.0, 1.0, 3000).reshape(1, 3, 1000) * np.array([1.0, 10.0])[:, None, None] - 4.0
    at = interpret.smooth_grad(lambda x: (x * x).sum(axis=(1, 2)), md.tensor(x), samples=1, noise=0.2).numpy() / 2
    np.testing.assert_allclose((at - x).std(axis=2), np.array([[0.2], [2.0]]) + np.zeros(3), rtol=0.1)


def test_integrated_gradients_are_complete(backend):
    model, x = net(), images()
    for steps, limit in ((8, 0.1), (64, 1e-3)):
        found, delta = interpret.integrated_gradients(model, x, target=1, steps=steps, return_delta=True)
        gained = model(x)[:, 1] - model(x * 0.0)[:, 1]
        assert np.allclose(found.numpy().reshape(3, -1).sum(1) - gained.detach().numpy(), delta.detach().numpy())
        assert abs(delta).max().item() < limit
    assert all(p.grad is None for p in model.parameters())


def test_gradients_and_maps_are_torchs():
    torch = pytest.importorskip("torch")
    model, x = net(), images()
    twin = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(36, 3)
    ).double()
    twin.load_state_dict({k: torch.tensor(v.detach().numpy()) for k, v in model.state_dict().items()})
    tx = torch.tensor(x.numpy(), requires_grad=True)
    maps = twin[1](twin[0](tx))
    maps.retain_grad()
    twin[4](twin[3](twin[2](maps)))[:, 2].sum().backward()
    assert np.allclose(interpret.saliency(model, x, 2).numpy(), tx.grad.abs().numpy(), rtol=1e-12)
    cam = torch.relu((maps * maps.grad.mean((2, 3), keepdim=True)).sum(1)).detach().numpy()
    assert np.allclose(interpret.grad_cam(model, model[1], x, 2).numpy(), cam, rtol=1e-12)
    pooled = interpret.grad_cam(model, model[2], x, 2, resize=False)
    assert pooled.shape == (3, 3, 3)
    grown = torch.nn.functional.interpolate(torch.tensor(pooled.numpy())[:, None], (6, 6), mode="bilinear")[:, 0].numpy()
    assert np.allclose(interpret.grad_cam(model, model[2], x, 2).numpy(), grown, rtol=1e-12)


def test_a_map_of_a_series_is_torchs():
    torch = pytest.importorskip("torch")
    md.manual_seed(1)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 2)).to(md.float64)
    x = md.tensor(np.random.default_rng(1).normal(size=(2, 2, 8)))
    small = interpret.grad_cam(model, model[1], x, 0, resize=False)
    weights = model[3].weight[0].reshape((4, 3)).mean(axis=1)
    np.testing.assert_allclose(small.numpy(), md.relu((model[1](model[0](x)) * weights[:, None]).sum(axis=1)).detach().numpy())
    grown = torch.nn.functional.interpolate(torch.tensor(small.numpy())[:, None], 8, mode="linear")[:, 0]
    np.testing.assert_allclose(interpret.grad_cam(model, model[1], x, 0).numpy(), grown.numpy())


def test_every_backend_gives_the_same():
    results = []
    for name in ("numpy", "numba", "torch", "jax"):
        with md.use_backend(name):
            model, x = net(), images()
            found = (interpret.smooth_grad(model, x, 0, samples=4, key=md.random.key(5)), interpret.grad_cam(model, model[0], x, 0))
            results.append([v.numpy() for v in found])
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert np.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_wrong_use_says_so():
    model, x = net(), images()
    for call, kind, text in [
        (lambda: interpret.saliency(model, x), ValueError, "saliency: the model gives 3 scores for each example; say which by target"),
        (lambda: interpret.saliency(model, x, 3), IndexError, "target 3, but there are 3 classes"),
        (lambda: interpret.saliency(model, x, md.tensor([0])), ValueError, "one target for each of 3 examples"),
        (lambda: interpret.saliency(model[0], x, 0), ValueError, r"scores \[N\] or \[N, classes\]"),
        (lambda: interpret.saliency(lambda x: x.sum(axis=(1, 2, 3)), x, 1), ValueError, "there is no target to choose"),
        (lambda: interpret.integrated_gradients(model, x, target=0, steps=0), ValueError, "steps must be at least 1"),
        (lambda: interpret.smooth_grad(model, x, 0, samples=0), ValueError, "samples must be at least 1"),
        (lambda: interpret.grad_cam(model, nn.ReLU(), x, 0), ValueError, "the model runs the layer ReLU 0 times; once is wanted"),
        (lambda: interpret.grad_cam(model, model[4], x, 0), ValueError, r"\[N, channels, \*spatial\] is wanted"),
        (lambda: interpret.overlay(md.ones((2, 2)), md.ones((3, 3))), ValueError, "differ in height or width"),
        (lambda: interpret.overlay(md.ones((2,)), md.ones((3, 3))), ValueError, r"the image has shape \(2,\)"),
        (lambda: interpret.overlay(md.ones((2, 2)), md.full((2, 2), np.nan)), ValueError, "the attribution holds nan or infinity"),
    ]:
        with pytest.raises(kind, match=text):
            call()
    before = model(x)
    assert (model(x) == before).all().item()  # no hook is left


def test_examples_do_not_influence_each_other():
    x = md.tensor(RNG.normal(size=(2, 4)))
    cube, louder = lambda x: (x**3).sum(axis=1), md.concat([x[:1], x[1:] * 100.0])
    assert np.array_equal(interpret.smooth_grad(cube, x)[0].numpy(), interpret.smooth_grad(cube, louder)[0].numpy())


def test_a_map_is_of_what_the_layer_gave():
    md.manual_seed(0)
    maps = []
    for inplace in (False, True):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(144, 3)).eval()
        model.load_state_dict(maps[0][1] if maps else model.state_dict())
        maps.append((interpret.grad_cam(model, model[0], md.tensor(np.random.default_rng(2).normal(size=(2, 1, 8, 8)), dtype=md.float32), 1),
                     model.state_dict()))  # fmt: skip
    assert (maps[0][0] > 0).any().item() and (maps[0][0] == maps[1][0]).all().item()


def test_targets_of_any_kind_of_integer():
    f, x = lambda x: md.stack([x[:, 0] * 3.0, x[:, 1] ** 2], axis=1), md.tensor([[1.0, 2.0], [3.0, 4.0]])
    want = interpret.saliency(f, x, md.tensor([1, 0])).tolist()
    for target in ([1, 0], (1, 0), np.array([1, 0]), md.tensor([1, 0], dtype=md.int32)):
        assert interpret.saliency(f, x, target).tolist() == want
        assert abs(interpret.integrated_gradients(f, x, 0.0, target, return_delta=True)[1]).max().item() < 1e-5
    assert interpret.saliency(f, x, np.int64(1)).tolist() == interpret.saliency(f, x, 1).tolist()
    twin, there = nn.Linear(2, 2).to(backend="torch"), x.to(backend="torch")
    for target in ([1, 0], np.array([1, 0])):  # where the model is, too
        for method in (interpret.saliency, interpret.integrated_gradients, interpret.kernel_shap):
            assert method(twin, there, target=target).backend == "torch"
    for target in (True, 1.0, "dog", md.tensor([1.0, 0.0]), [0.5, 0.5]):
        with pytest.raises(TypeError, match="saliency: target is a class or one for each example, integers, and"):
            interpret.saliency(f, x, target)


def test_a_picture_can_be_opened(tmp_path):
    image = pytest.importorskip("PIL.Image")
    a = np.array([[1.0, -1.0], [0.0, 0.5]])
    path = tmp_path / "why.svg"
    text = interpret.overlay(np.arange(4.0).reshape(1, 2, 2), a, path, title="a & b")
    assert path.read_text() == text and ET.fromstring(text).tag.endswith("svg") and "a &amp; b" in text
    pictures = [np.asarray(image.open(io.BytesIO(base64.b64decode(d)))) for d in re.findall(r"base64,([^\"]+)", text)]
    assert [p.shape for p in pictures] == [(2, 2, 3)] * 3
    colour = pictures[1].astype(int)
    assert ET.fromstring(text).attrib["viewBox"] == "0 0 736 264"
    lone = np.zeros((20, 20))
    lone[3, 4] = -1.0  # one of 400, beyond the quantile
    data = re.findall(r"base64,([^\"]+)", interpret.overlay(lone, lone))[1]
    assert np.asarray(image.open(io.BytesIO(base64.b64decode(data))))[3, 4].tolist() == interpret.picture._NEGATIVE.tolist()
    assert colour[0, 0, 0] > colour[0, 0, 2] and colour[0, 1, 2] > colour[0, 1, 0] and (colour[1, 0] == 255).all()


def test_a_picture_has_the_whole_range_of_its_image():
    image = pytest.importorskip("PIL.Image")
    colours = np.stack([np.array([[10.0, 13.0], [11.0, 12.0]])] * 3) + np.array([-3.0, 0.0, 3.0])[:, None, None]
    for array, attribution in ((colours, colours - 11.5), (np.moveaxis(colours, 0, -1), np.moveaxis(colours, 0, -1) - 11.5)):
        text = interpret.overlay(array, attribution, size=30)
        grey, colour, both = (np.asarray(image.open(io.BytesIO(base64.b64decode(d)))) for d in re.findall(r"base64,([^\"]+)", text))
        assert grey[..., 1].tolist() == [[0, 255], [85, 170]] and (both == grey // 2 + colour // 2).all()
        assert (colour[1, 0] > colour[0, 0]).any() and (colour[0] == [interpret.picture._NEGATIVE, interpret.picture._POSITIVE]).all()
        tags = {ET.fromstring(part).attrib["x"]: ET.fromstring(part).attrib for part in re.findall("<image.*?/>", text)}
        assert list(tags) == ["0", "38", "76"] and {t["y"] for t in tags.values()} == {"0"} and {t["height"] for t in tags.values()} == {"30"}
        assert ET.fromstring(text).attrib["viewBox"].split()[2:] == ["106", "30"]


def shapley(f, x, base):
    """By the definition: the mean over all orders of what each input brings."""
    from itertools import permutations

    found, orders = np.zeros(len(x)), list(permutations(range(len(x))))
    for order in orders:
        now = base.copy()
        for i in order:
            before = f(now)
            now[i] = x[i]
            found[i] += f(now) - before
    return found / len(orders)


def test_kernel_shap_finds_the_shapley_values(backend):
    w = RNG.normal(size=(4, 4))
    f = lambda x: md.tanh((x @ md.asarray(w)) * x).sum(axis=1) * x[:, 0]
    plain = lambda v: float((np.tanh((v @ w) * v).sum()) * v[0])
    x, base = RNG.normal(size=(2, 4)), RNG.normal(size=4)
    found = interpret.kernel_shap(f, md.tensor(x), md.tensor(base)).numpy()
    assert np.allclose(found, [shapley(plain, v, base) for v in x])
    grouped = interpret.kernel_shap(f, md.tensor(x), md.tensor(base), groups=[0, 1, 1, 0]).numpy()
    pair = lambda v: plain(np.where(np.array([0, 1, 1, 0]) == 0, x[0] * v[0] + base * (1 - v[0]), x[0] * v[1] + base * (1 - v[1])))
    assert np.allclose(grouped[0], shapley(pair, np.ones(2), np.zeros(2))[[0, 1, 1, 0]])


def test_sampled_shapley_values_are_complete_and_those_of_a_linear_model():
    w, x = RNG.normal(size=(12, 3)), RNG.normal(size=(2, 3, 4))
    f = lambda x: x.reshape((-1, 12)) @ md.asarray(w)
    found = interpret.kernel_shap(f, md.tensor(x), target=[2, 0], samples=64)
    assert np.allclose(found.numpy().reshape(2, 12), x.reshape(2, 12) * w.T[[2, 0]])
    again = interpret.kernel_shap(f, md.tensor(x), target=[2, 0], samples=64, key=md.random.key(0))
    assert (again == found).all().item()
    model, images_ = net(), images()
    some = interpret.kernel_shap(model, images_, target=1, samples=40, groups=np.arange(72).reshape(2, 6, 6) // 4)
    parts = some.numpy().reshape(3, 18, 4)
    gained = (model(images_) - model(images_ * 0.0))[:, 1].detach().numpy()
    assert np.allclose(parts[..., 0].sum(1), gained)
    assert (parts == parts[..., :1]).all()
    assert interpret.kernel_shap(lambda x: x[:, 0] * 3.0, md.tensor([[2.0]]), 1.0).tolist() == [[3.0]]
    for bad, message in (({"samples": 20}, "at least 24"), ({"groups": [0, 2]}, "groups are integers"), ({"target": 7}, "3 classes")):
        with pytest.raises((ValueError, IndexError), match=message):
            interpret.kernel_shap(f, md.tensor(x), **{"target": 1, **bad})


def test_sets_are_drawn_with_the_kernels_probabilities():
    sets, weights = interpret.shap._drawn(5, 40_000, None)
    wanted = np.array([1 / (k * (5 - k)) for k in range(1, 5)])
    np.testing.assert_allclose(np.bincount(sets.sum(1), minlength=6)[1:5] / 40_000, wanted / wanted.sum(), atol=0.01)
    assert (sets.mean(axis=0) == 0.5).all() and np.ptp(sets[:20_000].mean(axis=0)) < 0.02 and (weights == 1).all()


def test_gradient_shap_is_the_mean_over_baselines(backend):
    w, x, bases = (md.tensor(RNG.normal(size=s)) for s in ((4,), (3, 4), (5, 4)))
    f = lambda x: x @ w
    one = interpret.gradient_shap(f, x, bases[:1])
    assert np.allclose(one.numpy(), ((x - bases[:1]) * w).numpy())
    many = interpret.gradient_shap(f, x, bases, samples=2000)
    assert np.abs(many.numpy() - ((x - bases.mean(axis=0)) * w).numpy()).max() < 0.2
    few = lambda x: interpret.gradient_shap(f, x, bases, samples=3)
    assert np.allclose(few(x).numpy(), md.jit(few)(x).numpy())
    assert (interpret.gradient_shap(f, x, bases, noise=0.5) != interpret.gradient_shap(f, x, bases)).any().item()
    for wrong in (bases[0], bases[:0], bases[:, :2]):
        with pytest.raises(ValueError, match=r"baselines \[M, ...\]"):
            interpret.gradient_shap(f, x, wrong)
