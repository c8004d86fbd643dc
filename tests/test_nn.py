"""Layers, losses and modules against torch.nn in float64, values and gradients; and what makes a Module a Module."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.nn import functional as F

torch = pytest.importorskip("torch")
tnn, TF = torch.nn, torch.nn.functional
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded():
    md.manual_seed(0)


def normal(*shape):
    return rng.normal(size=shape)


def close(got, want, rtol=1e-11, atol=1e-12):
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=rtol, atol=atol)


def compare(ours, theirs, *arrays, rtol=1e-11):
    """Value, gradients of the float inputs and (for modules) of the parameters, all weighted by one random cotangent."""
    mine = [md.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    other = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    a, b = ours(*mine), theirs(*other)
    assert a.shape == tuple(b.shape)
    close(a, b, rtol)
    seed = rng.normal(size=a.shape)
    a.backward(md.asarray(seed))
    b.backward(torch.tensor(seed))
    for x, y in zip(mine, other, strict=True):
        if x.requires_grad:
            close(x.grad, y.grad, rtol)
    if isinstance(ours, nn.Module):
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert p.grad is not None, name
            close(p.grad, q.grad, rtol)


@pytest.mark.cpu
def test_embedding_equals_torch():
    ours, theirs = nn.Embedding(10, 4, padding_idx=3, dtype=md.float64), tnn.Embedding(10, 4, padding_idx=3, dtype=torch.float64)
    assert repr(ours) == repr(theirs) and not ours.weight.detach().numpy()[3].any() and ours.weight.detach().numpy()[2].any()
    ours.load_state_dict(theirs.state_dict())
    compare(ours, theirs, np.array([[1, 3, 3], [9, 1, 0]]))
    assert not ours.weight.grad.numpy()[3].any()
    with pytest.raises(IndexError):
        ours(md.asarray([10]))


LOGITS, CLASSES = normal(6, 4), np.array([0, 3, 1, 1, 2, -100])
PROBABILITY = np.exp(normal(6, 4)) / np.exp(normal(6, 4)).sum(1, keepdims=True)
WEIGHT = np.array([0.5, 2.0, 1.0, 0.1])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_equals_torch(reduction, smoothing, weighted):
    w = (md.asarray(WEIGHT), torch.tensor(WEIGHT)) if weighted else (None, None)
    for ignore in (-100, 1):
        targets = CLASSES if ignore == -100 else np.abs(CLASSES) % 4
        compare(
            lambda x, t, i=ignore: F.cross_entropy(x, t, w[0], i, reduction, smoothing),
            lambda x, t, i=ignore: TF.cross_entropy(x, t, w[1], ignore_index=i, reduction=reduction, label_smoothing=smoothing),
            LOGITS, targets,
        )  # fmt: skip
    for x, t in ((LOGITS, PROBABILITY), (normal(2, 4, 3, 2), rng.integers(0, 4, (2, 3, 2))), (normal(4), np.array(2))):
        compare(
            nn.CrossEntropyLoss(w[0], reduction=reduction, label_smoothing=smoothing),
            tnn.CrossEntropyLoss(w[1], reduction=reduction, label_smoothing=smoothing), x, t,
        )  # fmt: skip


def test_cross_entropy_accepts_narrow_targets_and_masked_classes():
    labels = np.array([1, 2, 3, 0, 1, 2])
    for dtype in ("uint8", "int8", "int32"):
        narrow, wide = (F.cross_entropy(md.asarray(LOGITS), md.asarray(t)).item() for t in (labels.astype(dtype), labels))
        assert narrow == pytest.approx(wide, rel=1e-14)
    x = LOGITS.copy()
    x[:, 1] = -np.inf
    t = md.tensor(x, requires_grad=True)
    loss = F.cross_entropy(t, md.asarray([0, 2, 3, 0, 2, 3]))
    loss.backward()
    assert math.isfinite(loss.item()) and np.isfinite(t.grad.numpy()).all()


@pytest.mark.cpu
def test_cross_entropy_refuses_targets_that_do_not_fit():
    with pytest.raises(ValueError, match=r"targets of shape \(6,\)"):
        F.cross_entropy(md.asarray(LOGITS), md.asarray([[1]]))
    with pytest.raises(ValueError, match="probabilities of the scores"):
        F.cross_entropy(md.asarray(LOGITS), md.asarray([1.0]))
    with pytest.raises(IndexError, match="class 4"):
        F.cross_entropy(md.asarray(LOGITS), md.asarray([0, 1, 2, 3, 4, 0]))


def test_bce_is_cut_as_in_torch():
    x, t = md.tensor([1.0, 0.0], md.float64, requires_grad=True), md.tensor([0.0, 1.0], md.float64)
    loss = F.binary_cross_entropy(x, t, reduction="none")
    loss.backward(md.ones_like(loss))
    assert loss.tolist() == [100.0, 100.0] and x.grad.tolist() == [1e12, -1e12]
    with pytest.raises(ValueError, match="mse_loss"):
        F.mse_loss(md.ones(3), md.ones((3, 1)))


CONVENTIONS = [  # the convention table's rows for functions that live here: (function, x, value, derivative)
    (F.relu6, 0.0, 0.0, 0.0), (F.relu6, 6.0, 6.0, 0.0), (F.elu, 0.0, 0.0, 1.0), (F.selu, 0.0, 0.0, 1.7580993408473766), (F.celu, 0.0, 0.0, 1.0),
    (F.hardsigmoid, 3.0, 1.0, 0.0), (F.hardsigmoid, -3.0, 0.0, 0.0), (F.hardsigmoid, 0.0, 0.5, 1 / 6),
    (F.celu, -1.0, math.expm1(-1), math.exp(-1)), (F.hardswish, 3.0, 3.0, 1.0), (F.hardswish, -3.0, 0.0, 0.0),
    (F.hardtanh, 1.0, 1.0, 0.0), (F.hardtanh, -1.0, -1.0, 0.0), (F.leaky_relu, 0.0, 0.0, 0.01), (F.relu, 0.0, 0.0, 0.0),
    (F.softplus, 0.0, math.log(2), 0.5), (F.silu, -math.inf, 0.0, 0.0), (F.gelu, -math.inf, 0.0, 0.0), (F.mish, -math.inf, 0.0, 0.0),
    (lambda x: F.gelu(x, "tanh"), -math.inf, 0.0, 0.0), (lambda x: F.gelu(x, "tanh"), 1e30, 1e30, 1.0), (F.gelu, 1e30, 1e30, 1.0),
    (F.silu, 1e300, 1e300, 1.0), (F.elu, 1e300, 1e300, 1.0), (F.hardswish, -math.inf, 0.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("f", "at", "value", "slope"), CONVENTIONS)
def test_activations_follow_the_convention_table(f, at, value, slope):
    x = md.tensor(at, md.float64, requires_grad=True)
    y = f(x)
    y.backward()
    assert y.item() == pytest.approx(value, rel=1e-15, abs=0) and x.grad.item() == pytest.approx(slope, rel=1e-15, abs=0)
    y, tangent = md.jvp(f, (md.tensor(at, md.float64),), (md.tensor(1.0, md.float64),))
    assert tangent.item() == pytest.approx(slope, rel=1e-15, abs=0)


# ---- modules ------------------------------------------------------------------------------------------------------------------------------
def networks():
    """The same class text on minidl and on torch."""
    out = []
    for lib, f in ((nn, F), (tnn, TF)):

        class Net(lib.Module):
            def __init__(self, lib=lib):
                super(Net, self).__init__()  # noqa: UP008 (as PyTorch's users write it)
                self.conv1 = lib.Conv2d(3, 6, 5)
                self.pool = lib.MaxPool2d(2, 2)
                self.conv2 = lib.Conv2d(6, 16, 5)
                self.fc1 = lib.Linear(16 * 5 * 5, 120)
                self.fc2 = lib.Linear(120, 84)
                self.fc3 = lib.Linear(84, 10)

            def forward(self, x, F=f):
                x = self.pool(F.relu(self.conv1(x)))
                x = self.pool(F.relu(self.conv2(x)))
                x = x.view(-1, 16 * 5 * 5)
                x = F.relu(self.fc1(x))
                x = F.relu(self.fc2(x))
                x = self.fc3(x)
                return x

        out.append(Net())
    return out


def test_the_documents_network_equals_torch():
    ours, theirs = networks()
    assert repr(ours) == repr(theirs)
    theirs.double()
    ours.double().load_state_dict(theirs.state_dict())
    compare(ours, theirs, normal(2, 3, 32, 32), rtol=1e-9)


def test_default_initialisation_has_torchs_bounds():
    ours, theirs = networks()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        bound = 1 / math.sqrt(math.prod(getattr(theirs, name.split(".")[0]).weight.shape[1:]))
        a, b = p.detach().numpy(), q.detach().numpy()
        assert np.abs(a).max() <= bound and np.abs(b).max() <= bound * (1 + 1e-6)
        if a.size > 500:
            assert np.abs(a).max() > 0.97 * bound and abs(a.std() / (bound / math.sqrt(3)) - 1) < 0.1
    weight = nn.Embedding(200, 50).weight.detach().numpy()
    assert abs(weight.std() - 1) < 0.02 and abs(weight.mean()) < 0.02


def test_one_seed_gives_one_network_on_every_backend():
    want = nn.Linear(5, 3).state_dict()
    for name in ("torch", "jax"):
        pytest.importorskip(name)
        md.manual_seed(0)
        with md.use_backend(name):
            got = nn.Linear(5, 3)
        assert got.weight.backend == name
        for k, v in got.state_dict().items():
            np.testing.assert_array_equal(v.numpy(), want[k].numpy())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.blocks = nn.ModuleList([nn.BatchNorm1d(3), nn.Dropout(0.5)])
        self.by_name = nn.ModuleDict({"act": nn.Tanh()})
        self.scale = nn.Parameter(md.ones(1))
        self.register_buffer("counted", md.zeros(1), persistent=False)
        self.width = 3

    def forward(self, x):
        x = self.second(self.by_name["act"](self.first(x)))
        for block in self.blocks:
            x = block(x)
        return x * self.scale


def test_walks_names_and_modes():
    m = Tied()
    assert [n for n, _ in m.named_parameters()] == ["scale", "first.weight", "first.bias", "second.bias", "blocks.0.weight", "blocks.0.bias"]
    assert [n for n, _ in m.named_buffers()] == ["counted", "blocks.0.running_mean", "blocks.0.running_var", "blocks.0.num_batches_tracked"]
    assert "second.weight" in m.state_dict() and "counted" not in m.state_dict()
    assert [n for n, _ in m.named_modules()][:3] == ["", "first", "second"] and m.get_submodule("blocks.1") is m.blocks[1]
    assert [n for n, _ in m.named_children()] == ["first", "second", "blocks", "by_name"] and len(list(m.modules())) == 8
    assert not m.eval().blocks[1].training and m.train() is m and m.blocks[1].training
    seen = []
    m.apply(lambda child: seen.append(type(child).__name__))
    assert seen[-1] == "Tied" and len(seen) == 8
    assert not any(p.requires_grad for p in m.requires_grad_(False).parameters())
    m.requires_grad_()
    m(md.ones((4, 3))).sum().backward()
    assert m.scale.grad is not None
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())


def test_attributes_are_sorted_into_their_places():
    m = Tied()
    with pytest.raises(TypeError, match="Parameter"):
        m.scale = md.ones(1)
    with pytest.raises(TypeError, match="Module"):
        m.first = 3
    m.first = nn.Linear(3, 3)
    m.counted = md.ones(1)
    assert m.counted.item() == 1 and "counted" not in m.__dict__
    del m.scale
    assert "scale" not in m.state_dict() and not hasattr(m, "scale")
    m.width = nn.Parameter(md.ones(2))
    assert "width" in m.state_dict()

    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="super"):
        Early()
    with pytest.raises(NotImplementedError, match="forward"):
        nn.Module()(1)


def test_sequential_prints_indexes_and_slices_as_torch():
    args = lambda lib: (lib.Linear(2, 3), lib.ReLU(), lib.Sequential(lib.Flatten(), lib.Linear(3, 1)))
    ours, theirs = nn.Sequential(*args(nn)), tnn.Sequential(*args(tnn))
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours[:2]) == repr(theirs[:2]) and ours[-1] is list(ours)[2] and len(ours) == 3
    named = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})
    assert named.a is named[0] and repr(named).splitlines()[1] == "  (a): ReLU()"
    named[1] = nn.Identity()
    assert isinstance(named.b, nn.Identity)
    with pytest.raises(IndexError):
        named[2]


def test_load_state_dict_names_every_problem_and_then_changes_nothing():
    m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = m.state_dict()
    bad = {"0.weight": np.zeros((3, 2)), "0.bias": np.zeros(4), "1.weight": np.zeros((1, 3)), "extra": np.zeros(1)}
    with pytest.raises(RuntimeError) as error:
        m.load_state_dict(bad)
    assert all(
        part in str(error.value)
        for part in ('Missing key(s) in state_dict: "1.bias"', 'Unexpected key(s) in state_dict: "extra"', "0.bias: the state has (4,)")
    )
    assert all((v.numpy() == before[k].numpy()).all() for k, v in m.state_dict().items())
    del bad["0.bias"]
    keys = m.load_state_dict(bad, strict=False)
    assert keys.missing_keys == ["0.bias", "1.bias"] and keys.unexpected_keys == ["extra"]
    assert not m[0].weight.detach().numpy().any() and m[0].weight.requires_grad and m[0].weight.dtype is md.float32
    with md.no_grad():
        m[0].weight.assign(md.ones((3, 2)))
    assert before["0.weight"].numpy().max() < 1  # a saved state does not follow later training


def test_moving_keeps_values_ties_and_integer_buffers():
    pytest.importorskip("jax")
    m = Tied()
    want = m.state_dict()
    m.double()
    assert m.first.weight is m.second.weight and m.first.weight.dtype is md.float64 and m.blocks[0].num_batches_tracked.dtype is md.int64
    m.to("jax")
    assert m.first.weight.backend == "jax" and m.blocks[0].running_var.backend == "jax" and isinstance(m.scale, nn.Parameter)
    m.to(backend="numpy", dtype=md.float32)
    assert all((v.numpy() == want[k].numpy()).all() for k, v in m.state_dict().items())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_independent(duplicate):
    m = Tied()
    twin = duplicate(m)
    assert repr(twin) == repr(m) and isinstance(twin.scale, nn.Parameter) and twin.scale.requires_grad and twin.scale is not m.scale
    with md.no_grad():
        twin.scale.assign(md.zeros(1))
    assert m.scale.item() == 1


# ---- training behaviour -------------------------------------------------------------------------------------------------------------------
def test_dropout_keeps_the_mean_and_rests_in_evaluation():
    x, layer = md.ones((200, 200)), nn.Dropout(0.3)
    y = layer(x).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)} and abs(y.mean() - 1) < 0.02
    assert (layer.eval()(x).numpy() == 1).all() and not F.dropout(x, 1.0).numpy().any()
    channels = nn.Dropout2d(0.5)(md.ones((50, 40, 3, 3))).numpy()
    assert all(len(np.unique(c)) == 1 for c in channels.reshape(2000, 9)) and 0.4 < (channels[..., 0, 0] == 0).mean() < 0.6
    with pytest.raises(ValueError, match="probability"):
        nn.Dropout(1.5)


def test_batch_norm_in_jit_updates_the_same_statistics():
    def statistics(run):
        layer = nn.BatchNorm1d(3)
        step = run(lambda x: layer(x).sum())
        for i in range(3):
            step(md.asarray(np.random.default_rng(i).normal(size=(5, 3)).astype("float32")))
        return {k: v.numpy() for k, v in layer.state_dict().items()}

    eager, jitted = statistics(lambda f: f), statistics(md.jit)
    assert jitted["num_batches_tracked"] == 3
    for k, v in eager.items():
        np.testing.assert_allclose(jitted[k], v, rtol=1e-6)
    with pytest.raises(ValueError, match="more than one value"):
        nn.BatchNorm1d(3)(md.ones((1, 3)))


def test_train_and_eval_are_told_apart_under_jit():
    layer = nn.Dropout(0.5)
    f = md.jit(lambda x: layer(x))
    x = md.ones(64)
    assert 0.0 in f(x).tolist()
    layer.eval()
    assert f(x).tolist() == [1.0] * 64
    layer.train()
    assert 0.0 in f(x).tolist()


def test_a_module_is_a_pytree_of_its_parameters():
    m = Tied()
    leaves, structure = md.tree.flatten(m)
    assert [id(v) for v in leaves] == [id(p) for p in (*m.parameters(),)] or {id(v) for v in leaves} == {id(p) for p in m.parameters()}
    assert structure == md.tree.flatten(m)[1] and hash(structure) == hash(md.tree.flatten(m)[1])
    assert structure != md.tree.flatten(m.eval())[1]
    m.train()
    clone = md.tree.map(lambda p: p.detach() * 0, m)
    assert isinstance(clone, Tied) and clone.first.weight is clone.second.weight and not clone.scale.numpy().any() and m.scale.item() == 1


def test_grad_of_a_function_of_a_module():
    m, x = Tied(), md.asarray(normal(6, 3).astype("float32"))
    m.blocks[1].p = 0.0
    loss = lambda net, x: (net(x) ** 2).sum()
    with md.no_grad():  # else the gradients, of parameters that require grad, are tracked themselves
        value, grads = md.value_and_grad(loss)(m, x)
    assert isinstance(grads, Tied) and m.blocks[0].num_batches_tracked.item() == 1
    loss(m, x).backward()
    for (name, p), g in zip(m.named_parameters(), md.tree.flatten(grads)[0], strict=True):
        np.testing.assert_allclose(p.grad.numpy(), g.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    smaller = md.tree.map(lambda p, g: p.detach() - 0.001 * g, m, grads)
    assert loss(smaller, x).item() < value.item()


def test_a_training_step_is_the_same_eagerly_and_under_jit():
    def train(run):
        md.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)).double()
        optimizer = md.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            return loss

        step = run(step)
        g = np.random.default_rng(1)
        losses = [step(md.asarray(g.normal(size=(16, 4))), md.asarray(g.integers(0, 3, 16))).item() for _ in range(12)]
        return losses, net.state_dict(), step

    eager, state, _ = train(lambda f: f)
    jitted, other, step = train(md.jit)
    np.testing.assert_allclose(jitted, eager, rtol=1e-12)
    for k, v in state.items():
        np.testing.assert_allclose(other[k].numpy(), v.numpy(), rtol=1e-10, atol=1e-13)
    assert step.compiles <= 2


@pytest.mark.parametrize(("call", "message"), [
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups"),
    (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size"),
    (lambda: nn.Conv2d(3, 4, 3, padding="full"), "padding"),
    (lambda: nn.Conv2d(3, 4, 3)(md.ones((2, 3))), "conv2d"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), "padding_idx"),
    (lambda: nn.LayerNorm(3)(md.ones((2, 4))), "layer_norm"),
    (lambda: nn.BatchNorm2d(3)(md.ones((2, 3))), "4-d"),
    (lambda: nn.MSELoss(reduction="avg"), "reduction"),
    (lambda: F.gelu(md.ones(2), "erf"), "approximate"),
    (lambda: nn.Linear(3, 2)(md.ones((2, 4))), "4 != 3"),
])  # fmt: skip
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
