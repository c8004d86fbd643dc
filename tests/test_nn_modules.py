"""What makes a Module a Module besides its layers: hooks, freezing, surgery, containers, copies and moves; hooks compared with torch's."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

import minidl as md
from minidl import nn

torch = pytest.importorskip("torch")
tnn = torch.nn


@pytest.fixture(autouse=True)
def seeded():
    md.manual_seed(0)


X = np.random.default_rng(0).normal(size=(4, 3))


def networks():
    """The same small network of minidl and of torch, with the same weights."""
    theirs = tnn.Sequential(tnn.Linear(3, 5), tnn.Tanh(), tnn.Linear(5, 2)).double()
    ours = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    ours.load_state_dict(theirs.state_dict())
    return (ours, md), (theirs, torch)


def close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-14)


# ---- forward hooks ----------------------------------------------------------------------------------------------------------------------
def test_forward_hooks_run_in_torchs_order_and_may_replace():
    seen = []
    for net, lib in networks():
        log = []
        net[1].register_forward_pre_hook(lambda m, args, log=log: log.append("pre"))
        net[1].register_forward_pre_hook(lambda m, args: args[0] * 2)
        net[1].register_forward_pre_hook(lambda m, args, kwargs, log=log: log.append(f"kwargs {sorted(kwargs)}"), with_kwargs=True)
        net[1].register_forward_pre_hook(lambda m, args, log=log: log.append("first"), prepend=True)
        net[1].register_forward_hook(lambda m, args, out, log=log: log.append(f"out {tuple(out.shape)} of {len(args)}"))
        net[1].register_forward_hook(lambda m, args, out: out + 1)
        net[2].register_forward_hook(lambda m, args, kwargs, out, log=log: log.append("last"), with_kwargs=True)
        seen.append((net(lib.tensor(X, dtype=lib.float64)), log))
    close(seen[0][0], seen[1][0])
    assert seen[0][1] == seen[1][1] and len(seen[0][1]) == 5


def test_a_pre_hook_may_replace_keyword_arguments():
    class Scale(nn.Module):
        def forward(self, x, by=1.0):
            return x * by

    layer = Scale()
    layer.register_forward_pre_hook(lambda m, args, kwargs: (args, {"by": 3.0}), with_kwargs=True)
    assert layer(md.tensor(2.0), by=5.0).item() == 6.0
    layer.register_forward_pre_hook(lambda m, args, kwargs: 7, with_kwargs=True)
    with pytest.raises(TypeError, match="pre-hook of Scale"):
        layer(md.tensor(2.0))


def test_a_handle_removes_its_hook_and_always_call_sees_failures():
    layer, seen = nn.Linear(2, 2), []
    one = layer.register_forward_hook(lambda *a: seen.append(1))
    with layer.register_forward_hook(lambda *a: seen.append(2)):
        layer(md.ones(2))
    one.remove()
    one.remove()
    layer(md.ones(2))
    assert seen == [1, 2]
    layer.register_forward_hook(lambda m, args, out: seen.append(out), always_call=True)
    with pytest.raises(ValueError):
        layer(md.ones(3))
    assert seen[-1] is None


def test_hooks_survive_copies():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(doubled)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), md.tree.map(lambda p: p, layer)):
        assert twin(md.ones(2)).tolist() == layer(md.ones(2)).tolist() == (nn.functional.linear(md.ones(2), layer.weight, layer.bias) * 2).tolist()


def doubled(module, args, out):
    return out * 2


# ---- backward hooks ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("needs", [True, False])
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_backward_hooks_see_what_torchs_see(needs):
    seen = []
    for net, lib in networks():
        log = []
        for layer in net:
            layer.register_full_backward_hook(lambda m, gi, go, log=log: log.append((type(m).__name__, gi, go)))
            layer.register_full_backward_pre_hook(lambda m, go, log=log: log.append(("pre " + type(m).__name__, (), go)))
        x = lib.tensor(X, dtype=lib.float64, requires_grad=needs)
        (net(x) ** 2).sum().backward()
        seen.append((log, [p.grad for p in net.parameters()], x.grad))
    (ours, mine, dx), (theirs, other, dy) = seen
    assert [name for name, _, _ in ours] == [name for name, _, _ in theirs]
    for (_, *a), (_, *b) in zip(ours, theirs, strict=True):
        for g, h in zip(a[0] + a[1], b[0] + b[1], strict=True):
            assert (g is None) == (h is None)
            if g is not None:
                close(g, h)
    for g, h in zip(mine, other, strict=True):
        close(g, h)
    assert (dx is None) == (dy is None) == (not needs)


def test_backward_hooks_may_replace_gradients():
    got = []
    for net, lib in networks():
        net[1].register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,))
        net[2].register_full_backward_pre_hook(lambda m, go: (go[0] * 2,))
        x = lib.tensor(X, dtype=lib.float64, requires_grad=True)
        net(x).sum().backward()
        got.append((x.grad, net[0].weight.grad, net[2].weight.grad))
    for a, b in zip(*got, strict=True):
        close(a, b)
    net = nn.Tanh()
    net.register_full_backward_hook(lambda m, gi, go: (gi[0], gi[0]))
    with pytest.raises(RuntimeError, match="returned 2 gradients, 1"):
        md.grad(lambda x: net(x).sum())(md.ones(3))


def test_backward_hooks_of_several_inputs_and_outputs():
    class Two(nn.Module):
        def forward(self, a, n, b):
            return {"sum": a + b, "product": a * b * n}

    layer, seen = Two(), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    a, b = md.tensor(2.0, requires_grad=True), md.tensor(5.0)
    out = layer(a, 3.0, b)
    (out["sum"] + out["product"] * 2).backward()
    ((ga, gb), go), = seen
    assert ga.item() == 31.0 and gb is None and sorted(g.item() for g in go) == [1.0, 2.0] and a.grad.item() == 31.0


def test_backward_hooks_do_not_change_second_derivatives():
    layer = nn.Tanh()
    f = lambda x: layer(x * x).sum()
    x = md.tensor([0.3, -0.7], md.float64)
    want = md.hessian(f)(x).tolist()
    layer.register_full_backward_hook(lambda m, gi, go: None)
    np.testing.assert_allclose(md.hessian(f)(x).tolist(), want, rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch"], indirect=True)
def test_hooks_under_jit_store_the_values_of_each_call(backend):
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    kept, listed, gradients = {}, [], {}
    net[0].register_forward_hook(lambda m, args, out: kept.__setitem__("linear", out))
    net[1].register_forward_hook(lambda m, args, out: listed.append(out))
    net[1].register_full_backward_hook(lambda m, gi, go: gradients.update(tanh=gi[0]))
    step = md.jit(lambda x: md.grad(lambda x: net(x).sum())(x))
    kept["linear"] = gradients["tanh"] = md.zeros(1)  # the places exist, so that the second call needs no second trace
    for i in range(3):
        listed.clear()
        x = md.asarray(np.random.default_rng(i).normal(size=(2, 3)).astype("float32"))
        got = step(x)
        linear = nn.functional.linear(x, net[0].weight, net[0].bias).detach()
        np.testing.assert_allclose(kept["linear"].detach().numpy(), linear.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(listed[0].detach().numpy(), np.tanh(linear.numpy()), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradients["tanh"].detach().numpy(), 1 - np.tanh(linear.detach().numpy()) ** 2, rtol=1e-4)
        np.testing.assert_allclose(got.detach().numpy(), gradients["tanh"].detach().numpy() @ net[0].weight.detach().numpy(), rtol=1e-4, atol=1e-6)
        assert len(listed) == 1
    assert step.compiles <= 2


def test_a_hook_that_comes_or_goes_makes_jit_trace_again():
    layer = nn.Identity()
    f = md.jit(lambda x: layer(x))
    assert f(md.tensor(1.0)).item() == 1
    handle = layer.register_forward_hook(lambda m, args, out: out + 10)
    assert f(md.tensor(1.0)).item() == 11
    factor = [2.0]
    other = layer.register_forward_hook(lambda m, args, out: out * factor[0])
    assert f(md.tensor(1.0)).item() == 22
    factor[0] = 3.0
    assert f(md.tensor(1.0)).item() == 33
    handle.remove()
    assert f(md.tensor(1.0)).item() == 3
    other.remove()
    assert f(md.tensor(1.0)).item() == 1


# ---- surgery and freezing ---------------------------------------------------------------------------------------------------------------
def test_frozen_parameters_get_no_gradient_and_others_do():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    net(md.ones((2, 3))).sum().backward()
    assert net[0].weight.grad is None and net[2].weight.grad is not None
    assert [n for n, p in net.named_parameters() if p.requires_grad] == ["2.weight", "2.bias"]


def test_parts_are_found_and_replaced_by_name():
    net = nn.Sequential({"body": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), "head": nn.Linear(4, 2)})
    assert net.get_parameter("body.0.weight") is net.body[0].weight and net.get_buffer("body.1.running_mean").shape == (4,)
    for wrong, call in (("body.7", net.get_submodule), ("body.0.scale", net.get_parameter), ("body.0.weight", net.get_buffer)):
        with pytest.raises(AttributeError, match=re.escape(wrong.rpartition(".")[2])):
            call(wrong)
    with pytest.raises(AttributeError):
        net.get_submodule("body.0.weight")
    net.head = nn.Linear(4, 7)
    net.set_submodule("body.1", nn.Identity())
    assert net(md.ones((2, 3))).shape == (2, 7) and list(net.state_dict()) == ["body.0.weight", "body.0.bias", "head.weight", "head.bias"]
    with pytest.raises(AttributeError, match="nothing"):
        net.set_submodule("body.nothing", nn.Identity(), strict=True)
    del net.body[1]
    net.register_module("tail", nn.ReLU())
    assert len(net.body) == 1 and isinstance(net[-1], nn.ReLU)
    net.head.bias = None
    assert "head.bias" not in net.state_dict() and net(md.ones((2, 3))).shape == (2, 7)
    net.head.weight = nn.Parameter(net.head.weight[:3])
    assert net(md.ones((2, 3))).shape == (2, 3)


def test_tied_weights_are_one_parameter_and_train_as_one():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 1 and list(net.state_dict()) == ["0.weight", "1.weight"]
    twin = copy.deepcopy(net)
    assert twin[0].weight is twin[1].weight
    net(md.asarray([1, 2])).sum().backward()
    want = tnn.Sequential(tnn.Embedding(5, 3), tnn.Linear(3, 5, bias=False))
    want[1].weight = want[0].weight
    want.load_state_dict({k: torch.tensor(v.numpy()) for k, v in net.state_dict().items()})
    want(torch.tensor([1, 2])).sum().backward()
    np.testing.assert_allclose(net[0].weight.grad.numpy(), want[0].weight.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_dtypes_and_backends_of_a_module():
    net = nn.BatchNorm1d(3)
    assert net.half().weight.dtype is md.float16 and net.bfloat16().running_var.dtype is md.bfloat16 and net.num_batches_tracked.dtype is md.int64
    assert net.type(md.float64).weight.dtype is md.float64 and net.float().cpu().weight.device == "cpu"
    assert net.to("torch").weight.backend == "torch" and net.to(backend="numpy", dtype=md.float64).running_mean.dtype is md.float64


def test_state_dicts_have_destinations_and_live_variables():
    net, out = nn.Linear(2, 1), {}
    assert net.state_dict(destination=out, prefix="a.") is out and list(out) == ["a.weight", "a.bias"]
    assert net.state_dict(keep_vars=True)["weight"] is net.weight


# ---- containers -------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_lists_of_modules_change_as_torchs(kind):
    texts = []
    for lib in (nn, tnn):
        make = getattr(lib, kind)
        parts = [lib.ReLU(), lib.Tanh(), lib.Sigmoid(), lib.Tanh(), lib.Tanh()]
        box = make(*parts) if kind == "Sequential" else make(parts)
        log = [repr(box), repr(box[1:3])]
        box.insert(1, lib.Identity())
        log.append(repr(box))
        assert isinstance(box.pop(0), lib.ReLU)
        del box[1]
        log.append(repr(box))
        del box[0:2]
        box += make(lib.Softsign()) if kind == "Sequential" else [lib.Softsign()]
        box.extend([lib.ReLU()])
        log.append(repr(box))
        log.append([len(box), list(box.state_dict()), repr(make())])
        texts.append(log)
    assert texts[0] == texts[1]


def test_dicts_of_modules():
    box = nn.ModuleDict({"a": nn.ReLU()})
    box.update([("b", nn.Tanh())])
    assert list(box.keys()) == ["a", "b"] and isinstance(box.pop("a"), nn.ReLU) and "a" not in box
    del box["b"]
    box["c"] = nn.Linear(1, 1)
    assert list(box.state_dict()) == ["c.weight", "c.bias"]
    box.clear()
    assert len(box) == 0


def test_lists_and_dicts_of_parameters():
    class Net(nn.Module):
        def __init__(self, lib, zeros):
            super().__init__()
            self.many = lib.ParameterList([lib.Parameter(zeros(2)), zeros((3, 4))])
            self.named = lib.ParameterDict({"a": zeros(2)})

    net = Net(nn, md.zeros)
    assert list(net.state_dict()) == ["many.0", "many.1", "named.a"] and all(isinstance(p, nn.Parameter) for p in net.many)
    assert repr(net.many) == repr(tnn.ParameterList([torch.zeros(2), torch.zeros(3, 4)])).replace("torch.", "")
    net.many.append(md.ones(1)).extend([md.ones(1)])
    net.many[0] = md.ones(5)
    assert [p.shape for p in net.many] == [(5,), (3, 4), (1,), (1,)] and net.many[-1].shape == (1,) and len(net.many[1:]) == 3
    net.named["b"] = md.ones(1)
    net.named.update({"c": md.ones(2)})
    del net.named["a"]
    assert list(net.named) == ["b", "c"] and "a" not in net.named and net.named.get("a") is None and len(net.named) == 2
    sum(p.sum() for p in [*net.many, *net.named.values()]).backward()
    assert net.many[0].grad.tolist() == [1.0] * 5 and net.named["c"].grad.tolist() == [1.0, 1.0]
    with pytest.raises(TypeError, match="ParameterList"):
        net.many.append(3)


# ---- initialisation ---------------------------------------------------------------------------------------------------------------------
def test_fixed_initial_values_are_torchs():
    for name, shape, args in [("eye_", (3, 5), ()), ("dirac_", (6, 3, 3), ()), ("dirac_", (6, 2, 3, 4), (2,)), ("dirac_", (2, 3, 3, 3, 3), ()),
                              ("constant_", (2,), (3.5,)), ("ones_", (2,), ()), ("zeros_", (2,), ())]:  # fmt: skip
        got, want = getattr(nn.init, name)(md.zeros(shape), *args), getattr(tnn.init, name)(torch.zeros(shape), *args)
        np.testing.assert_array_equal(got.numpy(), want.numpy())
    for name, param in [("linear", None), ("conv2d", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("leaky_relu", 0.3), ("selu", None)]:
        assert nn.init.calculate_gain(name, param) == tnn.init.calculate_gain(name, param)


def test_drawn_initial_values_have_torchs_distributions():
    cases = [("uniform_", (-1.0, 3.0)), ("normal_", (0.5, 2.0)), ("trunc_normal_", (0.0, 1.0, -0.5, 2.0)), ("xavier_uniform_", (2.0,)),
             ("xavier_normal_", ()), ("kaiming_uniform_", (0.1, "fan_out")), ("kaiming_normal_", ())]  # fmt: skip
    torch.manual_seed(0)
    for name, args in cases:
        got, want = getattr(nn.init, name)(md.zeros((100, 50, 4)), *args).numpy(), getattr(tnn.init, name)(torch.zeros(100, 50, 4), *args).numpy()
        scale = want.std()
        assert abs(got.mean() - want.mean()) < 0.04 * scale and abs(got.std() / scale - 1) < 0.02, name
        for q in (0.01, 0.25, 0.75, 0.99):
            assert abs(np.quantile(got, q) - np.quantile(want, q)) < 0.08 * scale, name


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (40, 40), (4, 2, 3)])
def test_orthogonal_weights(shape):
    w = nn.init.orthogonal_(md.zeros(shape, dtype=md.float64), gain=2.0).numpy().reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-13)


def test_sparse_weights_and_generators():
    w = nn.init.sparse_(md.zeros((10, 6)), 0.35, std=2.0).numpy()
    assert ((w == 0).sum(0) == 4).all() and 0.5 < w[w != 0].std() < 4
    one, two = (nn.init.normal_(md.zeros(5), generator=md.random.Generator(3)).tolist() for _ in range(2))
    assert one == two
    for call in (lambda: nn.init.orthogonal_(md.zeros(3)), lambda: nn.init.eye_(md.zeros(3)), lambda: nn.init.sparse_(md.zeros(3), 0.1),
                 lambda: nn.init.dirac_(md.zeros((2, 2)))):  # fmt: skip
        with pytest.raises(ValueError):
            call()


def test_one_seed_gives_one_initialisation_on_every_backend():
    pytest.importorskip("jax")
    for name in ("trunc_normal_", "orthogonal_", "kaiming_normal_"):
        found = []
        for backend in ("numpy", "torch", "jax"):
            md.manual_seed(3)
            with md.use_backend(backend):
                found.append(getattr(nn.init, name)(md.zeros((4, 6))).numpy())
        for other in found[1:]:
            np.testing.assert_allclose(other, found[0], rtol=1e-6, atol=1e-7)


def test_bags_from_given_rows():
    torch = pytest.importorskip("torch")
    rows, bags = np.arange(8.0).reshape(4, 2), np.array([[0, 1], [3, 3]])
    for options in ({}, {"mode": "sum", "freeze": False}, {"mode": "max", "padding_idx": 3}):
        ours = nn.EmbeddingBag.from_pretrained(md.asarray(rows), **options)
        theirs = torch.nn.EmbeddingBag.from_pretrained(torch.tensor(rows), **options)
        assert ours.weight.requires_grad == theirs.weight.requires_grad
        np.testing.assert_array_equal(ours(md.asarray(bags)).detach().numpy(), theirs(torch.tensor(bags)).detach().numpy())
    with pytest.raises(ValueError, match="from_pretrained"):
        nn.EmbeddingBag.from_pretrained(md.ones(3))


def test_a_subclass_convolves_with_another_weight():
    def make(nn):
        class Standardised(nn.Conv2d):
            def forward(self, x):
                mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
                return self._conv_forward(x, self.weight - mean, self.bias)

        return Standardised(2, 3, 3, stride=2, padding=1, padding_mode="reflect")

    theirs, ours = make(torch.nn), make(nn)
    ours.load_state_dict({k: md.asarray(v.numpy()) for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(ours(md.asarray(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), atol=1e-6)


def test_a_buffer_of_another_library_is_refused_by_its_name():
    with pytest.raises(TypeError, match="register_buffer: 'pe' must be a Tensor or None, not torch.Tensor; md.asarray makes one"):
        nn.Module().register_buffer("pe", torch.ones(2))
