"""Pruning against torch.nn.utils.prune, and masks that survive training, copying, saving, jit and export."""

from __future__ import annotations

import copy
import pickle
import runpy

import numpy as np
import pytest
from test_nn_parity import FIRST, combinations, draw, leaves

import minidl as md
from minidl import nn, optim
from minidl.nn.utils import prune

torch = pytest.importorskip("torch")
theirs_prune = pytest.importorskip("torch.nn.utils.prune")


def twins(make, seed=0):
    """The same layer of torch and minidl with the same weights, in float64."""
    torch.manual_seed(seed)
    theirs, ours = make(torch.nn).double(), make(nn).to(md.float64)
    ours.load_state_dict({k: md.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return theirs, ours


LINEAR = lambda lib: lib.Linear(7, 5)
CONV = lambda lib: lib.Conv2d(3, 6, 3)


@pytest.mark.parametrize("make", [LINEAR, CONV])
@pytest.mark.parametrize(
    "steps",
    [
        [("l1_unstructured", {"amount": 0.5})],
        [("l1_unstructured", {"amount": 3}), ("l1_unstructured", {"amount": 0.3})],
        [("ln_structured", {"amount": 2, "n": 2, "dim": 0})],
        [("l1_unstructured", {"amount": 0.6}), ("ln_structured", {"amount": 2, "n": 1, "dim": 0})],  # slices are scored by what is left of them
        [("ln_structured", {"amount": 0.4, "n": 1, "dim": 1}), ("ln_structured", {"amount": 1, "n": float("inf"), "dim": 0})],
        [("ln_structured", {"amount": 1, "n": 2, "dim": -2}), ("l1_unstructured", {"amount": 4})],
        [("identity", {})],
    ],
)
def test_masks_are_torchs(make, steps):
    theirs, ours = twins(make)
    for name, options in steps:
        getattr(theirs_prune, name)(theirs, "weight", **options)
        getattr(nn.utils.prune, name)(ours, "weight", **options)
        assert sorted(theirs.state_dict()) == sorted(ours.state_dict())
        assert np.array_equal(theirs.weight_mask.numpy(), ours.weight_mask.numpy())
        assert np.array_equal(theirs.weight.detach().numpy(), ours.weight.detach().numpy())
    theirs_prune.remove(theirs, "weight")
    prune.remove(ours, "weight")
    assert sorted(theirs.state_dict()) == sorted(ours.state_dict()) == ["bias", "weight"]
    assert np.array_equal(theirs.weight.detach().numpy(), ours.weight.detach().numpy()) and type(ours) in (nn.Linear, nn.Conv2d)
    assert not prune.is_pruned(ours) and isinstance(ours.weight, nn.Parameter)


def test_global_masks_and_importance_are_torchs():
    pairs = [twins(LINEAR, 1), twins(CONV, 2)]
    T = theirs_prune
    T.global_unstructured([(t, "weight") for t, _ in pairs], pruning_method=T.L1Unstructured, amount=0.6)
    prune.global_unstructured([(o, "weight") for _, o in pairs], pruning_method=prune.L1Unstructured, amount=0.6)
    for t, o in pairs:
        assert np.array_equal(t.weight_mask.numpy(), o.weight_mask.numpy())
    theirs, ours = twins(LINEAR, 3)
    scores = np.random.default_rng(0).random((5, 7))
    T.l1_unstructured(theirs, "weight", 6, importance_scores=torch.tensor(scores))
    prune.l1_unstructured(ours, "weight", 6, importance_scores=md.tensor(scores))
    assert np.array_equal(theirs.weight_mask.numpy(), ours.weight_mask.numpy())


def every(lib, base, arange):
    """A method of the user's own, written once for both libraries: of what is left, every step-th element goes."""

    class Every(base):
        PRUNING_TYPE = "unstructured"

        def __init__(self, step):
            self.step = step

        def compute_mask(self, t, default_mask):
            return default_mask * ((arange(t.shape[0]) % self.step) != 0)

    return Every


def test_methods_of_the_users_own_are_asked_as_torchs_are():
    theirs, ours = twins(LINEAR)
    for module, lib, arange in ((theirs, theirs_prune, torch.arange), (ours, prune, md.arange)):
        lib.l1_unstructured(module, "weight", 5)
        method = every(lib, lib.BasePruningMethod, arange).apply(module, "weight", step=3)
    assert np.array_equal(theirs.weight_mask.numpy(), ours.weight_mask.numpy()) and ours.weight_mask.sum().item() == 20
    assert np.array_equal(method.apply_mask(ours).detach().numpy(), ours.weight.detach().numpy())
    method.remove(ours)
    assert not prune.is_pruned(ours) and (ours.weight == 0).sum().item() == 15

    class Whole(prune.BasePruningMethod):
        PRUNING_TYPE = "all"

        def compute_mask(self, t, default_mask):
            return default_mask

    with pytest.raises(ValueError, match="PRUNING_TYPE is"):
        Whole.apply(ours, "weight")
    with pytest.raises(TypeError, match="abstract"):
        prune.BasePruningMethod()
    with pytest.raises(TypeError, match="LnStructured is structured; an unstructured method is wanted"):
        prune.global_unstructured([(ours, "weight")], prune.LnStructured, amount=1, n=2)


def test_methods_as_classes_are_torchs():
    g = np.random.default_rng(0)
    x, scores, mask = g.normal(size=(4, 6)), g.random((4, 6)), (g.random((4, 6)) < 0.7).astype("float64")
    kinds = ("L1Unstructured", (7,)), ("L1Unstructured", (0.5,)), ("LnStructured", (2, 2, 1)), ("LnStructured", (0.5, 1)), ("Identity", ())
    for kind, args in kinds:
        for more in ({}, {"importance_scores": scores}, {"default_mask": mask}):
            if kind == "Identity" and "default_mask" in more:
                continue
            ours = getattr(prune, kind)(*args).prune(md.tensor(x), **{k: md.tensor(v) for k, v in more.items()})
            theirs = getattr(theirs_prune, kind)(*args).prune(torch.tensor(x), **{k: torch.tensor(v) for k, v in more.items()})
            assert np.array_equal(ours.numpy(), theirs.numpy()), (kind, args, list(more))
    theirs, ours = twins(LINEAR)
    s = g.random((5, 7))
    theirs_prune.ln_structured(theirs, "weight", 2, 2, 0, importance_scores=torch.tensor(s))
    prune.ln_structured(ours, "weight", 2, 2, 0, importance_scores=md.tensor(s))
    assert np.array_equal(theirs.weight_mask.numpy(), ours.weight_mask.numpy())
    pairs = [twins(LINEAR, 1), twins(LINEAR, 2)]
    s = [g.random((5, 7)) for _ in pairs]
    for k, (lib, wrap) in enumerate(((theirs_prune, torch.tensor), (prune, md.tensor))):
        where = [(pair[k], "weight") for pair in pairs]
        lib.global_unstructured(where, lib.L1Unstructured, importance_scores=dict(zip(where, map(wrap, s), strict=True)), amount=0.3)
    for t, o in pairs:
        assert np.array_equal(t.weight_mask.numpy(), o.weight_mask.numpy())


def test_chance_prunes_as_many_as_asked():
    md.manual_seed(0)
    layer = nn.Linear(20, 10)
    assert int((prune.random_unstructured(layer, "weight", 0.25).weight_mask == 0).sum()) == 50
    assert int((prune.random_unstructured(layer, "weight", 10).weight_mask == 0).sum()) == 60
    conv = prune.random_structured(nn.Conv2d(2, 8, 3), "weight", 3, dim=0)
    assert sorted(conv.weight_mask.sum(axis=(1, 2, 3)).tolist()) == [0.0] * 3 + [18.0] * 5
    both = nn.Sequential(layer, conv)
    assert 0.3 < prune.sparsity(both) < 0.5 and prune.is_pruned(both)


def test_wrong_arguments():
    layer = nn.Linear(2, 2)
    for call, kind, text in [
        (lambda: prune.l1_unstructured(layer, "weights", 0.5), AttributeError, "Linear has no parameter 'weights'; it has weight, bias"),
        (lambda: prune.l1_unstructured(layer, "weight", 1.5), ValueError, "amount 1.5 is no fraction"),
        (lambda: prune.l1_unstructured(layer, "weight", 5), ValueError, "amount 5 is more than the 4 that are left"),
        (lambda: prune.l1_unstructured(layer, "weight", "all"), TypeError, "amount is a fraction"),
        (lambda: prune.ln_structured(layer, "bias", 1, 2, 0), ValueError, "an axis of at least two is wanted"),
        (lambda: prune.custom_from_mask(layer, "weight", md.ones((3,))), ValueError, r"a mask of shape \(3,\) for 'weight' of shape \(2, 2\)"),
        (lambda: prune.remove(layer, "weight"), ValueError, "'weight' of Linear is not pruned"),
    ]:
        with pytest.raises(kind, match=text):
            call()
    assert sorted(layer.state_dict()) == ["bias", "weight"]


def test_masks_survive_training_jit_copies_and_export(backend, tmp_path):
    md.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    x = md.random.normal(md.random.key(0), (16, 6))
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    @md.jit
    def step(x):
        optimizer.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    step(x)
    prune.l1_unstructured(net[0], "weight", 0.5)  # and the jitted step follows
    mask, before = net[0].weight_mask.numpy().copy(), net[0].weight_orig.detach().numpy().copy()
    for _ in range(3):
        step(x)
    after = net[0].weight_orig.detach().numpy()
    assert (net[0].weight.detach().numpy()[mask == 0] == 0).all() and (after != before)[mask == 1].all() and mask.sum() == 24
    net.eval()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert prune.is_pruned(twin) and isinstance(twin[0], nn.Linear) and (twin(x) == net(x)).all().item()
        assert twin[0].weight_orig is not net[0].weight_orig
    fresh = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    prune.identity(fresh[0], "weight")
    fresh.load_state_dict(net.state_dict())
    assert (fresh(x) == net(x)).all().item()
    file, npz = md.export(md.freeze(net), (x,), tmp_path / "pruned.py")
    got = runpy.run_path(str(file))["predict"](x.numpy())
    assert np.allclose(got, net(x).detach().numpy(), atol=1e-6)
    stored = np.load(npz)
    assert any((stored[k] == 0).sum() == 24 for k in stored.files)


def test_the_documents_prune_model():
    def prune_model(model, target_size):
        for module in model.modules():
            if isinstance(module, nn.Linear):
                if module.weight.shape[0] > target_size:  # torch's size(0)
                    nn.utils.prune.l1_unstructured(module, name="weight", amount=0.5)
        return model

    net = prune_model(nn.Sequential(nn.Linear(8, 200), nn.ReLU(), nn.Linear(200, 100)), 128)
    assert [round(1 - m.weight_mask.mean().item(), 3) if prune.is_pruned(m) else 0.0 for m in (net[0], net[2])] == [0.5, 0.0]


def test_every_parameter_of_every_layer_may_be_computed():
    """Under a mask of ones each layer gives what it gave: none reads its parameters past their names."""
    checked = 0
    for name, row in FIRST.items():
        options = {k: md.asarray(v) if isinstance(v, np.ndarray) else v for k, v in combinations(row)[0].items()}
        layer = getattr(nn, name)(*row.args, **options).double().eval()
        g = np.random.default_rng(0)
        inputs = [md.asarray(draw(s, g)) for s in row.inputs]
        want = [v.detach().numpy() for v in leaves(layer(*inputs))]
        for dotted in dict(layer.named_parameters()):
            path, _, last = dotted.rpartition(".")
            twin = copy.deepcopy(layer)
            prune.identity(twin.get_submodule(path), last)
            for a, b in zip(want, leaves(twin(*inputs)), strict=True):
                np.testing.assert_array_equal(a, b.detach().numpy(), err_msg=f"{name}.{dotted}")
            checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda m: prune.identity(m, "weight"), "weight_mask"), (lambda m: prune.identity(m, "weight"), "weight_orig"),
        (nn.utils.weight_norm, "weight_v"), (nn.utils.spectral_norm, "weight_u"), (nn.utils.spectral_norm, "weight_orig"),
    ],
)  # fmt: skip
def test_a_name_that_is_taken_leaves_the_weight_as_it_was(change, taken):
    layer = nn.Linear(2, 2)
    setattr(layer, taken, 3)
    weight = layer.weight
    with pytest.raises((AttributeError, ValueError), match=f"Linear has an attribute '{taken}' already"):
        change(layer)
    assert layer.weight is weight and list(layer.state_dict()) == ["weight", "bias"]
