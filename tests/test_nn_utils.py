"""torch.nn.utils: orthogonal weights, norms under PyTorch's first names, readings that are kept, and what else changes modules."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minidl as md
from minidl import nn
from minidl.nn.utils.orthogonal import matrix_exp

torch = pytest.importorskip("torch")


def twins(change, name="Linear", args=(4, 3)):
    """minidl's layer and torch's in float64 with one state, changed by `change(library, layer)`."""
    found = []
    state = None
    for lib in (torch, md):
        layer = getattr(lib.nn, name)(*args).double()
        state = layer.state_dict() if state is None else state
        layer.load_state_dict(state)
        found.append(change(lib, layer))
    return found[1], found[0]


def trained(lib, layer, x, steps=3):
    opt = lib.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(steps):
        opt.zero_grad()
        (layer(lib.asarray(x)) ** 3).mean().backward()
        opt.step()
    return {k: v.detach().numpy() for k, v in layer.state_dict().items()}


def alike(ours, theirs, shape, rtol=1e-9):
    """Training gives the same outputs and states."""
    x = np.random.default_rng(0).normal(size=shape)
    mine, other = trained(md, ours, x), trained(torch, theirs, x)
    assert list(mine) == list(other)
    for k in mine:
        np.testing.assert_allclose(mine[k], other[k], rtol=rtol, atol=1e-11, err_msg=k)
    np.testing.assert_allclose(ours(md.asarray(x)).detach().numpy(), theirs(torch.tensor(x)).detach().numpy(), rtol=rtol, atol=1e-11)


# ---- orthogonal weights -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("trivial", [True, False])
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder", None])
@pytest.mark.parametrize("sizes", [(4, 4), (3, 5), (5, 3)])
def test_orthogonal_weights_train_as_torchs(sizes, kind, trivial):
    ours, theirs = twins(lambda lib, m: lib.nn.utils.parametrizations.orthogonal(m, orthogonal_map=kind, use_trivialization=trivial), args=sizes)
    weight = ours.weight.detach().numpy()
    if sizes[0] == sizes[1] or not trivial:  # else what completes the base is drawn
        np.testing.assert_allclose(weight, theirs.weight.detach().numpy(), rtol=1e-10, atol=1e-13)
    ours.load_state_dict(theirs.state_dict())
    alike(ours, theirs, (5, sizes[0]))
    weight = ours.weight.detach().numpy()
    inner = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
    np.testing.assert_allclose(inner, np.eye(len(inner)), atol=1e-13)


def test_orthogonal_weights_in_batches_and_complex_ones():
    for name, args in (("Conv2d", (2, 3, 3)), ("Bilinear", (2, 4, 3))):
        for kind in ("matrix_exp", "cayley", "householder"):
            ours, theirs = twins(lambda lib, m, kind=kind: lib.nn.utils.parametrizations.orthogonal(m, orthogonal_map=kind), name, args)
            ours.load_state_dict(theirs.state_dict())
            np.testing.assert_allclose(ours.weight.detach().numpy(), theirs.weight.detach().numpy(), rtol=1e-10, atol=1e-13)
    g = np.random.default_rng(0)
    a = g.normal(size=(4, 3)) + 1j * g.normal(size=(4, 3))
    for kind in (None, "cayley"):
        found = []
        for lib, wrap in ((md, md.asarray), (torch, torch.tensor)):
            module = lib.nn.Module()
            module.weight = lib.nn.Parameter(wrap(a))
            lib.nn.utils.parametrizations.orthogonal(module, orthogonal_map=kind)
            found.append(module)
        found[0].load_state_dict({k: md.asarray(v.detach().resolve_conj().numpy()) for k, v in found[1].state_dict().items()})
        ours, theirs = (m.weight.detach().numpy() for m in found)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(ours.conj().T @ ours, np.eye(3), atol=1e-13)


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
def test_orthogonal_weights_on_every_backend_jitted(backend, kind):
    """The gradient of a jitted program is that of eager NumPy."""
    g = np.random.default_rng(0)
    x, base, c = (g.normal(size=(3, 3)) for _ in range(3))
    found = []
    for where, wrap in (("numpy", lambda f: f), (backend, md.jit)):
        with md.use_backend(where):
            layer = nn.utils.parametrizations.orthogonal(nn.Linear(3, 3, dtype=md.float64), orthogonal_map=kind)
            part = layer.parametrizations.weight[0]
            part.base.assign(md.asarray(base))
            found.append(wrap(md.grad(lambda w, part=part: (part(w) * md.asarray(c)).sum()))(md.asarray(x)).numpy())
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-11)


def test_orthogonal_weights_are_computed_in_their_own_dtype_under_autocast():
    for kind in ("matrix_exp", "cayley", "householder"):
        layer = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map=kind)
        with md.no_grad():
            layer.parametrizations.weight.original.assign(md.random.normal(md.random.key(0), (4, 4)))
        want = layer.weight.detach().numpy()
        with md.autocast():
            np.testing.assert_array_equal(layer.weight.detach().numpy(), want)
            out = layer(md.ones((1, 4)))
            assert out.dtype is md.bfloat16
            (out * out).sum().backward()
            np.testing.assert_allclose(md.jit(lambda layer=layer: layer.weight)().detach().numpy(), want, atol=1e-5)


def test_assigning_to_an_orthogonal_weight():
    value = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0]
    for kind in ("matrix_exp", "cayley", "householder"):
        for trivial in (True, False):
            layer = nn.utils.parametrizations.orthogonal(nn.Linear(3, 5).double(), orthogonal_map=kind, use_trivialization=trivial)
            before = layer.weight.detach().numpy()
            if kind != "householder" and not trivial:
                with pytest.raises(NotImplementedError, match=f"'weight', which is parametrized by _Orthogonal: .*{kind} cannot say which original"):
                    layer.weight = md.asarray(value)
                assert (layer.weight.detach().numpy() == before).all()
                continue
            layer.weight = md.asarray(value)
            np.testing.assert_allclose(layer.weight.detach().numpy(), value, atol=1e-13)
            layer.weight = md.asarray(value * [2.0, 0.5, 3.0])  # not orthonormal: the nearest that QR gives
            np.testing.assert_allclose(layer.weight.detach().numpy(), value, atol=1e-13)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (twin.weight == layer.weight).all().item()


@pytest.mark.parametrize(("kind", "trivial"), [("matrix_exp", True), ("cayley", True), ("householder", True), ("householder", False)])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e25])
def test_weights_without_rank_or_of_any_size_become_orthogonal(scale, kind, trivial):
    value = (scale * np.random.default_rng(0).normal(size=(4, 3))).astype("float32")
    found = []
    for lib in (md, torch):
        layer = lib.nn.Linear(3, 4, bias=False)
        layer.load_state_dict({"weight": lib.tensor(value)})
        lib.nn.utils.parametrizations.orthogonal(layer, orthogonal_map=kind, use_trivialization=trivial)
        found.append(layer.weight.detach().numpy())
    np.testing.assert_allclose(found[0].T @ found[0], np.eye(3), atol=1e-5)
    if scale:  # without rank there is more than one Q
        np.testing.assert_allclose(*found, atol=1e-5)


def test_orthogonal_refuses_what_does_not_fit():
    orthogonal, module = nn.utils.parametrizations.orthogonal, nn.Module()
    module.z = nn.Parameter(md.ones((2, 2), dtype=md.complex128))
    for call, match in (
        (lambda: orthogonal(nn.Linear(2, 2), "wait"), "Linear has no parameter or buffer 'wait'"),
        (lambda: orthogonal(nn.Linear(2, 2), "bias"), r"a matrix or a batch of matrices is wanted, got shape \(2,\)"),
        (lambda: orthogonal(nn.Linear(2, 2), orthogonal_map="qr"), "orthogonal_map is one of 'matrix_exp', 'cayley', 'householder', not 'qr'"),
        (lambda: orthogonal(module, "z", "householder"), '"householder" is for real weights'),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 40.0])
def test_the_exponential_of_matrices(scale):
    g = np.random.default_rng(1)
    a, c = g.normal(size=(2, 4, 4)) * scale, g.normal(size=(2, 4, 4))
    a = a - a.swapaxes(-1, -2)
    ours, theirs = md.tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)
    x, y = matrix_exp(ours), torch.matrix_exp(theirs)
    np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), atol=1e-12)
    (x * md.asarray(c)).sum().backward()
    (y * torch.tensor(c)).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-10, atol=1e-11)
    f = lambda lib, e: lambda w: (e(w) ** 2 * lib.asarray(c[0])).sum()
    if scale == 1.0:
        want = torch.autograd.functional.hessian(f(torch, torch.matrix_exp), torch.tensor(a[0])).numpy()
        np.testing.assert_allclose(md.hessian(f(md, matrix_exp))(md.asarray(a[0])).numpy(), want, rtol=1e-9, atol=1e-10)
        each = [md.grad(f(md, matrix_exp))(md.asarray(v)).numpy() for v in (a[0], 30 * a[1])]
        both = md.vmap(md.grad(f(md, matrix_exp)))(md.asarray(np.stack([a[0], 30 * a[1]]))).numpy()
        np.testing.assert_allclose(both, np.stack(each), rtol=1e-10)


# ---- norms under their first names --------------------------------------------------------------------------------------------------------
KINDS = {"Linear": ((4, 3), (2, 4)), "Conv2d": ((2, 3, 2), (1, 2, 5, 5)), "ConvTranspose1d": ((2, 3, 2), (1, 2, 4))}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.filterwarnings("ignore:.*is deprecated in favor of:FutureWarning")
def test_weight_norm_trains_as_torchs(name, dim):
    args, shape = KINDS[name]
    ours, theirs = twins(lambda lib, m: lib.nn.utils.weight_norm(m, dim=dim), name, args)
    alike(ours, theirs, shape)
    weight = ours.weight.detach().numpy()
    ours, theirs = nn.utils.remove_weight_norm(ours), torch.nn.utils.remove_weight_norm(theirs)
    np.testing.assert_allclose(ours.weight.detach().numpy(), weight)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and type(ours) is getattr(nn, name)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("times", [1, 3])
def test_spectral_norm_trains_as_torchs(name, times):
    args, shape = KINDS[name]
    ours, theirs = twins(lambda lib, m: lib.nn.utils.spectral_norm(m, n_power_iterations=times), name, args)
    ours.load_state_dict({k: v.detach().numpy() for k, v in theirs.state_dict().items()})
    alike(ours, theirs, shape)
    ours.eval(), theirs.eval()
    before = ours.weight_u.tolist()
    alike(ours, theirs, shape)
    assert ours.weight_u.tolist() == before
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        twin.train()(md.asarray(np.ones(shape)))
        assert twin.weight_u.tolist() != before and ours.weight_u.tolist() == before
    weight = ours.weight.detach().numpy()
    assert nn.utils.remove_spectral_norm(ours) is ours
    torch.nn.utils.remove_spectral_norm(theirs)
    np.testing.assert_allclose(ours.weight.detach().numpy(), weight)
    assert list(ours.state_dict()) == list(theirs.state_dict()) and not ours._hooks.by_number


@pytest.mark.parametrize("room", [lambda lib: lib.nn.utils, lambda lib: lib.nn.utils.parametrizations], ids=["first", "parametrized"])
def test_spectral_norm_knows_the_users_own_transposed_convolutions(room):
    """By what they are, not by their name."""

    def sizes(lib):
        class Up(lib.nn.ConvTranspose2d):
            pass

        state = room(lib).spectral_norm(Up(2, 3, 2)).state_dict()
        return {k: tuple(v.shape) for k, v in state.items()}

    assert sizes(md) == sizes(torch)


def test_spectral_norm_trains_jitted_as_eagerly(backend):
    losses = []
    for where, wrap in (("numpy", lambda f: f), (backend, md.jit)):
        with md.use_backend(where):
            md.manual_seed(0)
            layer, x = nn.utils.spectral_norm(nn.Linear(3, 2)), md.asarray(np.linspace(-1, 1, 6, dtype="float32").reshape(2, 3))
            opt = md.optim.SGD(layer.parameters(), lr=0.1)

            def step(x, layer=layer, opt=opt):
                opt.zero_grad()
                loss = (layer(x) ** 2).sum()
                loss.backward()
                opt.step()
                return loss

            step = wrap(step)
            losses.append([*(step(x).item() for _ in range(3)), *layer.weight_u.tolist()])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_norms_refuse_what_does_not_fit():
    utils = nn.utils
    for call, match in (
        (lambda: utils.weight_norm(nn.Linear(2, 2), "wait"), "weight_norm: Linear has no parameter 'wait'; it has weight, bias"),
        (lambda: utils.weight_norm(utils.weight_norm(nn.Linear(2, 2))), "weight_norm: Linear has no parameter 'weight'; it has bias, weight_g"),
        (lambda: utils.spectral_norm(nn.Linear(2, 2, bias=False), "bias"), "spectral_norm: Linear has no parameter 'bias'"),
        (lambda: utils.spectral_norm(nn.Linear(2, 2), n_power_iterations=0), "n_power_iterations is 1 or more"),
        (lambda: utils.remove_weight_norm(nn.Linear(2, 2)), "remove_weight_norm: 'weight' of Linear is not normalised so"),
        (lambda: utils.remove_spectral_norm(utils.weight_norm(nn.Linear(2, 2))), "remove_spectral_norm: 'weight' of Linear is not normalised so"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.filterwarnings("ignore:.*is deprecated in favor of:FutureWarning")
def test_weights_of_recurrent_layers_may_be_computed(kind):
    import torch.nn.utils.prune

    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    for change in (
        lambda u, m: u.weight_norm(m, "weight_hh_l0"), lambda u, m: u.parametrizations.weight_norm(m, "weight_ih_l1_reverse"),
        lambda u, m: u.parametrizations.orthogonal(m, "weight_hh_l0"), lambda u, m: u.prune.l1_unstructured(m, "weight_hh_l0", 0.5),
    ):  # fmt: skip
        found, state = [], None
        for lib in (torch, md):
            layer = change(lib.nn.utils, getattr(lib.nn, kind)(3, 4, num_layers=2, bidirectional=True).double())
            state = {k: v.detach().numpy() for k, v in layer.state_dict().items()} if state is None else state
            layer.load_state_dict({k: lib.asarray(v) for k, v in state.items()})
            out = layer(lib.asarray(x))[0]
            (out * out).sum().backward()
            assert [len(w) for w in layer.all_weights] == [4] * 4
            found.append([out, *(layer.get_parameter(k).grad for k, _ in sorted(layer.named_parameters()))])
        for a, b in zip(*found, strict=True):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-8, atol=1e-10)


# ---- readings that are kept, and parametrizations that move -------------------------------------------------------------------------------
def count():
    """What a test puts in its place counts readings."""


class Counted(nn.Module):
    def forward(self, x):
        count()
        return 2.0 * x


def test_a_kept_reading_is_computed_once_and_never_leaves_its_block(monkeypatch):
    P, readings = nn.utils.parametrize, []
    monkeypatch.setitem(globals(), "count", lambda: readings.append(1))
    layer, x = P.register_parametrization(nn.Linear(2, 2), "weight", Counted()), md.ones((1, 2))
    readings.clear()
    with P.cached():
        first = layer(x)
        with P.cached():
            assert (layer(x) == first).all().item() and len(readings) == 1
        with md.no_grad():
            assert not layer.weight.requires_grad
        assert layer.weight.requires_grad and len(readings) == 2
        outputs = [f(x) for f in (md.jit(lambda x: layer(x)), md.vmap(layer), lambda x: md.jvp(layer, (x,), (x,))[0]) for _ in range(2)]
        outputs.append(layer(x))
        assert all(np.allclose(out.detach().numpy(), first.detach().numpy()) for out in outputs)
        first.sum().backward()
    assert layer.parametrizations.weight.original.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    with md.no_grad():
        layer.parametrizations.weight.original.assign(md.zeros((2, 2)))
    assert layer.weight.tolist() == [[0.0, 0.0], [0.0, 0.0]]

    def twice(x):
        with P.cached():
            return layer(x) + layer(x)

    readings.clear()
    graph = md.trace(twice)(x)
    assert len(readings) == 1 and str(graph).count("mul(") == 1


@pytest.mark.parametrize("tensor_name", [None, "weight"])
def test_parametrizations_move_to_another_module_as_torchs(tensor_name):
    for lib in (md, torch):
        P, N = lib.nn.utils.parametrize, lib.nn.utils.parametrizations
        first, second, third = N.weight_norm(lib.nn.Linear(3, 2)), lib.nn.Linear(3, 2), lib.nn.Module()
        for to in (second, third):
            assert P.transfer_parametrizations_and_params(first, to, tensor_name) is to and P.is_parametrized(to, "weight")
            assert to.parametrizations.weight.original0 is first.parametrizations.weight.original0
            assert (to.weight == first.weight).all()
        assert P.type_before_parametrizations(second) is lib.nn.Linear and P.type_before_parametrizations(lib.nn.ReLU()) is lib.nn.ReLU
        plain = lib.nn.Linear(2, 2)
        assert P.transfer_parametrizations_and_params(lib.nn.Linear(2, 2), plain) is plain and not P.is_parametrized(plain)
    with pytest.raises(KeyError, match="'bias' of Linear is not parametrized"):
        nn.utils.parametrize.transfer_parametrizations_and_params(
            nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2), "bias")  # fmt: skip


# ---- the rest -----------------------------------------------------------------------------------------------------------------------------
def test_modules_that_are_made_without_drawing():
    md.manual_seed(0)
    want = md.random.default_generator.next_key()
    md.manual_seed(0)
    made = [nn.utils.skip_init(nn.LSTM, 3, 4), nn.utils.skip_init(nn.MultiheadAttention, 4, 2, bias=False), nn.utils.skip_init(nn.BatchNorm1d, 3)]
    assert (md.random.default_generator.next_key() == want).all().item()
    assert all((p == 0).all().item() for m in made for p in m.state_dict().values())
    made[0].load_state_dict(nn.LSTM(3, 4).state_dict())
    assert (nn.Linear(2, 2).weight != 0).any().item()
    with pytest.raises(TypeError, match="a class of Modules is wanted"):
        nn.utils.skip_init(nn.Linear(2, 2), 2, 2)


def test_packed_sequences_come_apart_as_torchs():
    parts = [np.arange(6.0).reshape(3, 2), np.ones((1, 2)), np.ones((2, 2))]
    found = []
    for lib, wrap in ((md, md.asarray), (torch, torch.tensor)):
        rnn = lib.nn.utils.rnn
        found.append([t.numpy() for t in rnn.unpack_sequence(rnn.pack_sequence([wrap(p) for p in parts], enforce_sorted=False))])
    for a, b, p in zip(*found, parts, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, p)


# ---- a module as a function of its weights --------------------------------------------------------------------------------------------------
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x, scale=1.0):
        return self.b(self.a(x)) * scale


def test_calls_with_given_weights_are_torchs():
    """Outputs, buffers that are updated, gradients (jitted, too) and the gradients of each example."""
    found = []
    for lib, transforms, call in ((md, md, nn.utils.stateless.functional_call), (torch, torch.func, torch.func.functional_call)):
        g = np.random.default_rng(0)
        x = lib.asarray(g.normal(size=(4, 3)))
        net = lib.nn.Sequential(lib.nn.Linear(3, 2), lib.nn.BatchNorm1d(2)).double()
        params = {k: lib.asarray(g.normal(size=tuple(v.shape))) for k, v in net.named_parameters()}
        buffers = {k: lib.asarray(np.ones(2)) for k in ("1.running_mean", "1.running_var")}
        own = {k: v.tolist() for k, v in net.state_dict().items() if "num" not in k}
        out = call(net, (params, buffers), (x,))
        assert {k: v.tolist() for k, v in net.state_dict().items() if "num" not in k} == own
        net.eval()
        loss = lambda p, v, net=net, call=call, buffers=buffers: (call(net, (p, buffers), (v,)) ** 2).sum()
        grad = transforms.grad(loss)
        lane = lambda p, v, loss=loss: loss(p, v[None])
        axes = {"in_axes" if lib is md else "in_dims": (None, 0)}
        each = transforms.vmap(transforms.grad(lane), **axes)(params, x)
        if lib is md:
            jitted, eager = md.jit(grad)(params, x), grad(params, x)
            assert all(np.allclose(jitted[k].numpy(), eager[k].numpy()) for k in params)
        found.append([out, *buffers.values(), *(d[k] for d in (grad(params, x), each) for k in params)])
    assert len(found[0]) == 11
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_calls_with_given_weights_tie_and_refuse():
    call, net, x, w = nn.utils.stateless.functional_call, Tied(), md.ones((1, 3)), 2.0 * md.eye(3)
    own = net.a.weight
    assert call(net, {"a.weight": w}, x, {"scale": 0.5}).tolist() == [[2.0] * 3]
    assert call(net, {"b.weight": w}, x, strict=True).tolist() == [[4.0] * 3]
    assert (call(net, {"a.weight": w}, x, tie_weights=False) == 2.0 * md.matmul(x, own.mT)).all().item()
    for args, error, match in (
        (({"c.weight": w}, x), RuntimeError, r"functional_call of Tied: Unexpected key\(s\): 'c.weight'"),
        (({"a.weight": 3.0}, x), TypeError, "'a.weight' must be a Tensor, not float"),
        ((({"a.weight": w}, {"a.weight": w}), x), ValueError, "'a.weight' is in two of the dicts"),
        (({"a.weight": w, "b.weight": 1 * w}, x), ValueError, "'a.weight', 'b.weight' are tied, but two tensors"),
        (({"a.weight": w}, md.ones((1, 2))), ValueError, "matmul: inner dimensions differ"),
    ):
        with pytest.raises(error, match=match):
            call(net, *args)
        assert net.a.weight is own and net.b.weight is own
    with pytest.raises(RuntimeError, match=r"Missing key\(s\): 'bias'"):
        call(nn.Linear(3, 3), {"weight": w}, x, strict=True)
