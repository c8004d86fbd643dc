"""Parametrized weights and folded batch norms against torch's."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minidl as md
from minidl import nn

torch = pytest.importorskip("torch")
LAYERS = {"Linear": ((4, 3), (2, 4)), "Conv2d": ((2, 3, 2), (1, 2, 5, 5)), "ConvTranspose1d": ((2, 3, 2), (1, 2, 4))}


def twins(name, change):
    """minidl's layer and torch's in float64, changed by `change(utils, layer)`, with torch's state."""
    args, shape = LAYERS[name]
    ours, theirs = (change(lib.nn.utils, getattr(lib.nn, name)(*args).double()) for lib in (md, torch))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, np.random.default_rng(0).normal(size=shape)


def same(ours, theirs, x, steps=1):
    """Outputs, gradients and state after some steps of training."""
    for _ in range(steps):
        for lib, layer in ((md, ours), (torch, theirs)):
            opt = lib.optim.SGD(layer.parameters(), lr=0.1)
            opt.zero_grad()
            (layer(lib.asarray(x)) ** 2).sum().backward()
            opt.step()
    np.testing.assert_allclose(ours(md.asarray(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-9, atol=1e-11)
    for (k, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-11, err_msg=k)
    for (k, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-8, atol=1e-10, err_msg=k)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_trains_as_torchs(name, dim):
    same(*twins(name, lambda utils, layer: utils.parametrizations.weight_norm(layer, dim=dim)), steps=3)


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm_trains_as_torchs(name):
    ours, theirs, x = twins(name, lambda utils, layer: utils.parametrizations.spectral_norm(layer))
    ours.eval(), theirs.eval()
    same(ours, theirs, x)
    for layer in (ours, theirs):  # one reading of the weight for each pass, where torch reads it as often
        layer.train()
    same(ours, theirs, x, steps=3)


class Symmetric(nn.Module):
    """At module level, so that it is pickled."""

    def forward(self, x):
        return md.triu(x) + md.triu(x, k=1).T


def test_own_parametrizations_are_applied_copied_jitted_and_removed():
    layer = nn.utils.parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    register, remove = nn.utils.parametrize.register_parametrization, nn.utils.parametrize.remove_parametrizations
    register(layer, "weight", nn.Tanh())
    assert nn.utils.parametrize.is_parametrized(layer, "weight") and isinstance(layer, nn.Linear)
    x = md.ones((2, 3))
    want = layer(x).detach().numpy()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (other(x).detach().numpy() == want).all() and type(other).__name__ == "Linear"
    twin, losses = copy.deepcopy(layer), []
    for net, run in ((layer, md.jit), (twin, lambda f: f)):
        opt = md.optim.SGD(net.parameters(), lr=0.01)

        def step(net=net, opt=opt):
            opt.zero_grad()
            loss = (net(x) ** 2).sum()
            loss.backward()
            opt.step()
            return loss

        step = run(step)
        losses.append([step().item() for _ in range(5)])
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert losses[0] == sorted(losses[0], reverse=True) and losses[0][-1] < 0.9 * losses[0][0]
    weight = layer.weight.detach().numpy()
    np.testing.assert_allclose(weight, weight.T)
    assert (remove(layer, "weight").weight.detach().numpy() == weight).all() and list(layer.state_dict()) == ["bias", "weight"]
    assert not nn.utils.parametrize.is_parametrized(layer)
    norm = nn.utils.parametrize.register_parametrization(nn.BatchNorm1d(2), "running_mean", nn.ReLU())
    assert "parametrizations.running_mean.original" in norm.state_dict()
    assert isinstance(remove(norm, "running_mean", leave_parametrized=False)._buffers["running_mean"], md.Tensor)
    for call in (
        lambda: register(nn.Linear(2, 2), "wait", nn.ReLU()), lambda: register(nn.Linear(2, 2), "weight", nn.Flatten(0)),
        lambda: remove(nn.Linear(2, 2), "weight"), lambda: nn.utils.parametrizations.spectral_norm(nn.ReLU()),
        lambda: remove(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "weight", leave_parametrized=False),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="parametriz|spectral_norm"):
            call()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_folded_batch_norms_equal_torchs(name, bias, affine):
    args, shape = LAYERS[name]
    n = {"Linear": "1d", "Conv2d": "2d", "ConvTranspose1d": "1d"}[name]
    pairs = [(getattr(lib.nn, name)(*args, bias=bias), getattr(lib.nn, f"BatchNorm{n}")(3, affine=affine)) for lib in (md, torch)]
    x, g = np.random.default_rng(0).normal(size=shape), np.random.default_rng(1)
    for mine, other in zip(*pairs, strict=True):
        other.double()
        other.load_state_dict({k: torch.tensor(g.uniform(0.5, 2, size=tuple(v.shape))) for k, v in other.state_dict().items()})
        mine.double().load_state_dict(other.state_dict())
    found = []
    for lib, (layer, norm) in zip((md, torch), pairs, strict=True):
        layer.eval(), norm.eval()
        if lib is torch and name == "Linear" and not affine:  # which torch cannot fold
            continue
        t = lib.tensor(x)
        fused = lib.nn.utils.fuse_linear_bn_eval(layer, norm) if name == "Linear" else lib.nn.utils.fuse_conv_bn_eval(layer, norm, "Tr" in name)
        np.testing.assert_allclose(fused(t).detach().numpy(), norm(layer(t)).detach().numpy(), rtol=1e-10, atol=1e-12)
        found.append([p.detach().numpy() for p in fused.parameters()])
    for a, b in zip(found[0], found[-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    with pytest.raises(ValueError, match="evaluation"):
        nn.utils.fuse_conv_bn_eval(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["Parameter", "Tensor"])
def test_assigning_to_a_parametrized_name_changes_its_originals_as_in_torch(name, kind):
    ours, theirs, x = twins(name, lambda utils, layer: utils.parametrizations.weight_norm(layer))
    keys, params = list(ours.state_dict()), list(ours.parameters())
    value = np.random.default_rng(1).normal(size=ours.weight.shape)
    ours.weight = nn.Parameter(md.asarray(value)) if kind == "Parameter" else md.asarray(value)
    theirs.weight = torch.tensor(value)  # of a Parameter torch raises KeyError
    np.testing.assert_allclose(ours.weight.detach().numpy(), value, rtol=1e-12)
    assert list(ours.state_dict()) == keys and all(a is b for a, b in zip(ours.parameters(), params, strict=True))
    same(ours, theirs, x)
    ours.bias = nn.Parameter(md.asarray(np.zeros(ours.bias.shape)))  # other names as before
    assert not ours.bias.detach().numpy().any() and list(ours.state_dict()) == keys


def test_assigning_what_cannot_be_inverted_names_the_parametrization_and_changes_nothing():
    register = nn.utils.parametrize.register_parametrization
    symmetric, normed = register(nn.Linear(2, 2), "weight", Symmetric()), nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    pruned = nn.utils.prune.l1_unstructured(nn.Linear(2, 2), "weight", 1)
    aware = md.quantize.Observed(nn.Linear(2, 2), aware=True).layer
    for layer, value, error, match in (
        (symmetric, nn.Parameter(md.ones((2, 2))), RuntimeError, "Linear.*'weight'.*by Symmetric.*no right_inverse"),
        (symmetric, md.ones((2, 2)), RuntimeError, "by Symmetric"),
        (normed, nn.Parameter(md.ones((3, 2))), ValueError, r"by _WeightNorm.*\(3, 1\).*\(2, 1\)"),
        (normed, md.ones((2, 2)).to(md.float64), ValueError, "float64.*float32"),
        (normed, None, TypeError, "'weight', which is parametrized.*NoneType"),
        (pruned, nn.Parameter(md.ones((2, 2))), AttributeError, "Linear.*'weight' is pruned.*weight_orig.*remove"),
        (pruned, md.ones((2, 2)), AttributeError, "is pruned"),
        (aware, nn.Parameter(md.ones((2, 2))), AttributeError, "'weight' is computed at every reading, by Rounded"),
    ):
        before = {k: v.tolist() for k, v in layer.state_dict().items()}
        with pytest.raises(error, match=match):
            layer.weight = value
        assert {k: v.tolist() for k, v in layer.state_dict().items()} == before


def test_a_parametrization_evaluates_where_its_module_does():
    for lib in (md, torch):
        layer = lib.nn.utils.parametrizations.spectral_norm(lib.nn.Linear(4, 3).eval())
        before = layer.parametrizations.weight[0]._u.tolist()
        layer(lib.ones((1, 4)))
        assert layer.parametrizations.weight[0]._u.tolist() == before and not layer.parametrizations.weight[0].training
        lib.nn.utils.parametrize.register_parametrization(layer, "weight", lib.nn.Dropout(0.5))
        assert layer(lib.ones((1, 4))).tolist() == layer(lib.ones((1, 4))).tolist()
        training = lib.nn.utils.parametrize.register_parametrization(lib.nn.Linear(4, 3), "weight", lib.nn.Dropout(0.5).eval())
        assert training.parametrizations.weight[0].training


def test_a_second_parametrization_keeps_shape_and_dtype_or_is_refused():
    for lib in (md, torch):

        class First(lib.nn.Module):
            def forward(self, x):
                return x[:1]

        class Half(lib.nn.Module):
            def forward(self, x, dtype=lib.float16):
                return x.to(dtype)

        register = lib.nn.utils.parametrize.register_parametrization
        layer = register(lib.nn.Linear(3, 3), "weight", lib.nn.ReLU())
        for bad in (First(), Half()):
            with pytest.raises(ValueError, match="shape|dtype"):
                register(layer, "weight", bad)
        assert len(layer.parametrizations.weight) == 1
        assert tuple(register(layer, "weight", First(), unsafe=True).weight.shape) == (1, 3)
    with pytest.raises(TypeError, match="nn.Module, not function"):
        nn.utils.parametrize.register_parametrization(nn.Linear(2, 2), "weight", lambda x: x)


def test_weight_norm_takes_minus_one_for_all_as_torch_does():
    ours, theirs, x = twins("Linear", lambda utils, layer: utils.parametrizations.weight_norm(layer, dim=-1))
    assert ours.parametrizations.weight.original0.shape == tuple(theirs.parametrizations.weight.original0.shape) == ()
    same(ours, theirs, x)


@pytest.mark.parametrize("n", [0, -1])
def test_spectral_norm_iterates_at_least_once(n):
    for lib in (md, torch):
        with pytest.raises(ValueError, match="n_power_iterations"):
            lib.nn.utils.parametrizations.spectral_norm(lib.nn.Linear(3, 3), n_power_iterations=n)


@pytest.mark.parametrize("bias", [True, False])
def test_folding_keeps_the_dtype_of_the_convolution(bias):
    for lib in (md, torch):
        fused = lib.nn.utils.fuse_conv_bn_eval(lib.nn.Conv2d(2, 3, 1, bias=bias).half().eval(), lib.nn.BatchNorm2d(3).eval())
        assert fused.weight.dtype == fused.bias.dtype == lib.float16


@pytest.mark.parametrize("computed", ["spectral_norm", "weight_norm"])
def test_folding_takes_the_weight_of_now(computed):
    md.manual_seed(0)
    conv = getattr(nn.utils.parametrizations, computed)(nn.Conv1d(2, 3, 2)).eval()
    norm = nn.BatchNorm1d(3).eval()
    with md.no_grad():
        norm.running_mean.assign(md.tensor([1.0, -2.0, 0.5]))
        norm.running_var.assign(md.tensor([4.0, 0.25, 9.0]))
    before, x = list(conv.state_dict()), md.random.normal(md.random.key(1), (2, 2, 7))
    fused = nn.utils.fuse_conv_bn_eval(conv, norm)
    np.testing.assert_allclose(fused(x).detach().numpy(), norm(conv(x)).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert set(fused.state_dict()) == {"bias", "weight"}
    assert list(conv.state_dict()) == before


def stacked(lib, np_weight):
    """The two parametrizations of PyTorch's tutorial, each with an inverse, on a layer of this weight."""

    class Skew(lib.nn.Module):
        def forward(self, x):
            return lib.triu(x, 1) - lib.triu(x, 1).T if lib is torch else md.triu(x, k=1) - md.triu(x, k=1).T

        def right_inverse(self, a):
            return lib.triu(a, 1) if lib is torch else md.triu(a, k=1)

    class Cayley(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("eye", lib.eye(3, dtype=lib.float64))

        def forward(self, x):
            return lib.linalg.solve(self.eye + x, self.eye - x)

        right_inverse = forward

    layer = lib.nn.Linear(3, 3).to(dtype=lib.float64)
    layer.load_state_dict({"weight": lib.tensor(np_weight), "bias": lib.tensor(np.zeros(3))})
    opt = lib.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)  # before the weight is parametrized, as PyTorch allows
    for module in (Skew(), Cayley()):
        lib.nn.utils.parametrize.register_parametrization(layer, "weight", module)
    return layer, opt


def test_several_parametrizations_with_inverses_train_as_torchs_and_keep_the_parameter_of_the_optimizer():
    weight, x = np.random.default_rng(0).normal(size=(3, 3)), np.random.default_rng(1).normal(size=(4, 3))
    found = []
    for lib in (md, torch):
        layer, opt = stacked(lib, weight)
        values = [layer.weight.detach().numpy()]

        def step(layer=layer, opt=opt, lib=lib):
            opt.zero_grad()
            loss = (layer(lib.tensor(x)) - 1.0).abs().sum() if lib is torch else md.abs(layer(md.tensor(x)) - 1.0).sum()
            loss.backward()
            opt.step()
            return loss

        run = md.jit(step) if lib is md else step
        for _ in range(3):
            values.append(np.asarray(run().detach().numpy()))
        values.append(layer.weight.detach().numpy())
        layer.weight = layer.weight.detach().T  # orthogonal, too
        values.append(layer.parametrizations.weight.original.detach().numpy().copy())
        original = layer.parametrizations.weight.original
        lib.nn.utils.parametrize.remove_parametrizations(layer, "weight")
        assert layer.weight is original
        for _ in range(2):
            values.append(np.asarray(run().detach().numpy()))
        values.append(layer.weight.detach().numpy())
        found.append(values)
        normed = lib.nn.utils.parametrizations.weight_norm(lib.nn.Linear(3, 3))
        lib.nn.utils.parametrize.register_parametrization(normed, "weight", lib.nn.ReLU())
        assert bool((normed.weight >= 0).all())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_what_a_parametrization_trains_of_its_own_is_its_own_affair():
    for lib in (md, torch):
        for frozen in (True, False):
            layer, own = lib.nn.Linear(2, 2), lib.nn.PReLU()
            layer.weight.requires_grad_(not frozen)
            own.weight.requires_grad_(frozen)
            lib.nn.utils.parametrize.register_parametrization(layer, "weight", own)
            assert own.weight.requires_grad is frozen and layer.parametrizations.weight.original.requires_grad is not frozen


def test_an_orthogonal_weight_is_assigned_in_a_program_or_not_at_all():
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(3, 4))
    before = layer.weight.tolist()
    with pytest.raises(ValueError, match="float32.*float64"):
        layer.weight = md.eye(4)[:, :3].to(md.float64)
    assert layer.weight.tolist() == before

    @md.jit
    def assign(w):
        layer.weight = w
        return layer.weight

    for sign in (1.0, -1.0):
        got = assign(md.eye(4)[:, :3] * sign)
        np.testing.assert_allclose(got.detach().numpy(), sign * np.eye(4)[:, :3], atol=1e-6)
        np.testing.assert_allclose(layer.weight.detach().numpy(), sign * np.eye(4)[:, :3], atol=1e-6)


def test_parametrizations_that_are_shared_leave_the_first_module_as_it_was():
    first, second = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)), nn.Linear(3, 3)
    with md.no_grad():
        first.parametrizations.weight.original.assign(md.ones((3, 3)))
    before = first.weight.tolist()
    nn.utils.parametrize.transfer_parametrizations_and_params(first, second)
    assert first.weight.tolist() == second.weight.tolist() == before
    nn.utils.parametrize.register_parametrization(second, "weight", nn.ReLU())
    assert first.weight.tolist() == before and bool(md.all(second.weight >= 0.0))


class Failing(nn.Module):
    def forward(self, x):
        return x * self.scale


def test_a_parametrization_that_lacks_an_attribute_says_so_and_is_no_weight_that_is_not_there():
    for layer, name, x in ((nn.Linear(3, 2), "bias", md.ones((1, 3))), (nn.RNN(3, 2), "bias_ih_l0", md.ones((4, 1, 3)))):
        nn.utils.parametrize.register_parametrization(layer, name, nn.Identity())
        layer.parametrizations[name].append(Failing())
        with pytest.raises(RuntimeError, match=f"{type(layer).__name__}: computing '{name}' failed: 'Failing' object has no attribute 'scale'"):
            layer(x)


def test_an_orthogonal_weight_moves_to_another_backend():
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))
    want = layer.weight.tolist()
    weight = layer.to("torch").weight
    assert weight.backend == "torch"
    np.testing.assert_allclose(weight.tolist(), want, atol=1e-6)


@pytest.mark.parametrize("given", [5, [], (5,), None])
def test_an_inverse_that_gives_no_tensor_is_refused_and_changes_nothing(given):
    class Odd(nn.Module):
        def forward(self, x):
            return x

        def right_inverse(self, value):
            return given

    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="right_inverse: a Tensor, or a tuple or list of them, is wanted, not"):
        nn.utils.parametrize.register_parametrization(layer, "weight", Odd())
    assert list(layer.state_dict()) == ["weight", "bias"]
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Identity())
    with pytest.raises(ValueError, match="register_parametrization: a parametrization gives a Tensor"):
        nn.utils.parametrize.register_parametrization(layer, "weight", Odd())
    assert len(layer.parametrizations.weight) == 1


def test_what_became_of_another_shape_stays_so_without_its_parametrization():
    class First(nn.Module):
        def forward(self, w):
            return w[:1]

    layer = nn.Linear(3, 2)
    first = layer.weight[:1].tolist()
    nn.utils.parametrize.register_parametrization(layer, "weight", First(), unsafe=True)
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert layer.weight.tolist() == first and isinstance(layer.weight, nn.Parameter)
