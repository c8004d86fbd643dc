"""A ResNet written in minidl (examples/resnet.py) loads weights by torchvision's names and gives the same outputs, gradients and statistics."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minidl as md

_path = Path(__file__).resolve().parent.parent / "examples" / "resnet.py"
_spec = importlib.util.spec_from_file_location("example_resnet", _path)
assert _spec is not None and _spec.loader is not None
resnet = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(resnet)


def twin(width, classes):
    """torchvision's resnet18 in torch alone, with its names; `width` is 64 there."""
    torch = pytest.importorskip("torch")
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(b)
            self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(b)
            self.downsample = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b)) if a != b else None

        def forward(self, x):
            y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            return F.relu(y + (self.downsample(x) if self.downsample is not None else x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            w = width
            self.conv1, self.bn1 = nn.Conv2d(3, w, 7, 2, 3, bias=False), nn.BatchNorm2d(w)
            self.layer1 = nn.Sequential(Block(w, w, 1), Block(w, w, 1))
            self.layer2 = nn.Sequential(Block(w, 2 * w, 2), Block(2 * w, 2 * w, 1))
            self.layer3 = nn.Sequential(Block(2 * w, 4 * w, 2), Block(4 * w, 4 * w, 1))
            self.layer4 = nn.Sequential(Block(4 * w, 8 * w, 2), Block(8 * w, 8 * w, 1))
            self.fc = nn.Linear(8 * w, classes)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    net = Net().double()
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():  # statistics too, which would hide a mistake as zeros and ones
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            value.copy_(noise.abs() + 0.5 if "var" in name or ("bn" in name and "weight" in name) else noise * 0.1)
    return torch, net


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_outputs_gradients_and_statistics_are_those_of_torch_with_the_same_weights(backend):
    with md.use_backend(backend):
        check_eager()


@pytest.mark.parametrize("backend", ["numba", "jax"])
def test_outputs_of_the_compiled_network(backend):
    """One program, of a network that was made elsewhere: op by op, jax would compile the initialisation of each shape."""
    torch, theirs = twin(4, 5)
    mine = resnet.resnet18(5, width=4).double().eval()
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    mine.to(backend=backend)
    with md.use_backend(backend):
        x = np.random.default_rng(0).normal(size=(2, 3, 40, 33))
        got, want = md.jit(mine)(md.asarray(x)).detach().numpy(), theirs.eval()(torch.from_numpy(x)).detach().numpy()
    assert abs(got - want).max() < 1e-10 * abs(want).max()


def check_eager():
    torch, theirs = twin(4, 5)
    mine = resnet.resnet18(5, width=4).double()
    loaded = mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    assert not loaded.missing_keys and not loaded.unexpected_keys and list(mine.state_dict()) == list(theirs.state_dict())
    x = np.random.default_rng(0).normal(size=(3, 3, 40, 33))
    for training in (False, True):
        mine.train(training), theirs.train(training)
        want = theirs(torch.from_numpy(x))
        got = mine(md.asarray(x))
        assert abs(got.detach().numpy() - want.detach().numpy()).max() < 1e-10 * abs(want).max().item()
    want.square().sum().backward()
    (got * got).sum().backward()
    for name, p in theirs.named_parameters():
        q = dict(mine.named_parameters())[name].grad
        assert abs(q.numpy() - p.grad.numpy()).max() < 1e-8 * max(p.grad.abs().max().item(), 1e-3), name
    for name, b in theirs.named_buffers():
        assert np.allclose(dict(mine.named_buffers())[name].numpy(), b.numpy(), 1e-10, 1e-12), name


def test_the_paper_counts_its_parameters():
    """torchvision's documentation gives this number."""
    assert sum(p.size for p in resnet.resnet18().parameters()) == 11_689_512


def test_weights_of_torchvision_load_by_name():
    import torch
    from torchvision_here import torchvision

    models = torchvision.models

    for name in ("resnet18", "resnet50"):
        torch.manual_seed(0)
        theirs = getattr(models, name)().eval()
        mine = getattr(resnet, name)().eval()
        mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
        assert list(mine.state_dict()) == list(theirs.state_dict())
        x = np.random.default_rng(0).normal(size=(2, 3, 96, 80)).astype(np.float32)
        with torch.no_grad(), md.no_grad():
            want, got = theirs(torch.from_numpy(x)).numpy(), mine(md.asarray(x)).numpy()
        assert abs(got - want).max() < 1e-4 * abs(want).max()
