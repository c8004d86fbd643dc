"""Lazy layers against torch's and against the plain ones: when they become these, what they refuse before, and what stays when a call fails."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minidl as md
from minidl import nn

torch = pytest.importorskip("torch")
tnn = torch.nn
INPUTS = {"1d": (2, 4, 9), "2d": (2, 4, 5, 6), "3d": (1, 4, 4, 3, 5)}
GRIDS = {
    "LazyLinear": [((3,), {}), ((3,), {"bias": False})],
    "LazyConv": [((6, 2), {}), ((6, 3), {"padding": 1, "groups": 2, "bias": False}), ((4, 2), {"padding": "same", "padding_mode": "circular"})],
    "LazyConvTranspose": [((6, 2), {}), ((6, 3), {"stride": 2, "output_padding": 1, "groups": 2})],
    "LazyBatchNorm": [((), {}), ((), {"affine": False, "momentum": None}), ((), {"track_running_stats": False})],
    "LazyInstanceNorm": [((), {"affine": False, "track_running_stats": False}), ((), {"affine": True, "track_running_stats": True, "eps": 0.1})],
}
CASES = [(name, *case) for name in nn.__all__ if name.startswith("Lazy") for case in GRIDS[name.rstrip("123d") if name[-1] == "d" else name]]


def shape_of(name: str) -> tuple[int, ...]:
    return INPUTS.get(name[-2:], (2, 4))


@pytest.mark.parametrize(("name", "args", "more"), CASES, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_a_lazy_layer_becomes_torchs_and_the_plain_one(name, args, more):
    ours, theirs = getattr(nn, name)(*args, **more), getattr(tnn, name)(*args, **more)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    waiting = lambda layer, kinds: [isinstance(v, kinds) for v in (*layer.parameters(), *layer.buffers())]
    kinds = [(lib.UninitializedParameter, lib.UninitializedBuffer) for lib in (nn, tnn)]
    assert waiting(ours, kinds[0]) == waiting(theirs, kinds[1]) and ours.has_uninitialized_params() == theirs.has_uninitialized_params()
    x = np.random.default_rng(0).normal(size=shape_of(name))
    ours.double()(md.asarray(x))
    theirs.double()(torch.tensor(x))
    plain = getattr(nn, name.removeprefix("Lazy"))
    assert type(ours) is plain and type(theirs).__name__ == plain.__name__
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [(k, tuple(v.shape)) for k, v in theirs.state_dict().items()]
    ours.load_state_dict(theirs.state_dict())
    t, u = md.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    a, b = ours(t), theirs(u)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-12)
    (a * a).sum().backward()
    (b * b).sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), u.grad.numpy(), rtol=1e-8, atol=1e-10)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-8, atol=1e-10)
    md.manual_seed(0)
    drawn = getattr(nn, name)(*args, **more, dtype=md.float64)
    drawn.initialize_parameters(md.asarray(x))
    md.manual_seed(0)
    made = plain(4, *args, **more, dtype=md.float64)
    assert repr(drawn) == repr(made) and all((p == q).all().item() for p, q in zip(drawn.parameters(), made.parameters(), strict=True))


def network(lib=nn):
    return lib.Sequential(lib.LazyConv1d(3, 2), lib.LazyBatchNorm1d(), lib.ReLU(), lib.Flatten(), lib.LazyLinear(1))


def test_nothing_reads_a_parameter_without_a_shape():
    layer = nn.LazyLinear(3)
    for call in (
        lambda: md.optim.SGD(layer.parameters(), lr=0.1), lambda: md.optim.Adam(layer.parameters()), layer.state_dict, lambda: layer.weight.shape,
        lambda: layer.weight + 1, lambda: 2.0 * layer.weight, lambda: md.sum(layer.weight), lambda: nn.init.zeros_(layer.weight),
        lambda: layer.weight.tolist(), lambda: nn.utils.parametrizations.weight_norm(layer), lambda: md.summary(layer),
        lambda: nn.utils.parameters_to_vector(layer.parameters()), lambda: md.grad(lambda m: m.weight.sum())(layer),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=r"LazyLinear\.weight: this parameter has no shape yet; call the module once"):
            call()
    with pytest.raises(RuntimeError, match=r"LazyBatchNorm1d\.running_mean: this buffer has no shape yet"):
        nn.LazyBatchNorm1d(affine=False).state_dict()
    with pytest.raises(RuntimeError, match="UninitializedParameter: this parameter has no shape"):
        _ = nn.UninitializedParameter().shape


def test_a_first_call_that_fails_changes_nothing():
    net = network()
    before = repr(net)
    with pytest.raises(ValueError, match="LazyConv1d: expected 2-d or 3-d input, got shape"):
        net(md.ones((2, 2, 2, 2)))
    assert repr(net) == before and net[0].has_uninitialized_params()
    with pytest.raises(TypeError, match="LazyLinear: input must be a Tensor, not 5"):
        nn.LazyLinear(3)(5)
    for f in (md.jit(net), md.trace(net), md.jit(md.vmap(net[4]))):
        with pytest.raises(RuntimeError, match=r"Lazy\w+: the first call makes the parameters.*call the module once outside md.jit"):
            f(md.ones((2, 4, 9)))
        assert repr(net) == before and net[0].has_uninitialized_params()


def test_after_one_call_it_trains_eagerly_and_jitted(backend):
    losses = []
    for where, wrap in (("numpy", lambda f: f), (backend, md.jit)):
        with md.use_backend(where):
            md.manual_seed(0)
            net, x = nn.Sequential(nn.LazyLinear(3), nn.Tanh(), nn.LazyLinear(1)), md.asarray(np.linspace(-1, 1, 8, dtype="float32").reshape(4, 2))
            net(x)
            opt = md.optim.SGD(net.parameters(), lr=0.05)

            def step(x, net=net, opt=opt):
                opt.zero_grad()
                loss = (net(x) ** 2).mean()
                loss.backward()
                opt.step()
                return loss

            step = wrap(step)
            losses.append([step(x).item() for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0][-1] < losses[0][0]


def test_dtype_place_freezing_copies_and_hooks_wait_too():
    layer = nn.LazyConv2d(3, 2).double().requires_grad_(False).eval()
    seen = []
    layer.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    layer.register_forward_pre_hook(lambda module, args: (args[0][:, :1],))
    for twin in (layer, copy.deepcopy(layer)):
        twin(md.ones((2, 4, 3, 3), dtype=md.float64))
        assert twin.weight.dtype is md.float64 and not twin.weight.requires_grad and not twin.training and twin.in_channels == 1
    assert seen == [(2, 3, 2, 2)] * 2
    fresh = pickle.loads(pickle.dumps(nn.LazyLinear(3, dtype=md.float64)))
    assert fresh.has_uninitialized_params() and fresh(md.ones((2, 5), dtype=md.float64)).shape == (2, 3)
    with md.use_backend("torch"):
        moved = nn.LazyLinear(3).to(backend="numpy")
    assert moved(md.ones((1, 2), backend="numpy")).backend == "numpy"
    waiting = nn.UninitializedParameter(dtype=md.float64)
    made = waiting.materialize((2, 3))
    assert isinstance(made, nn.Parameter) and made.dtype is md.float64 and made.shape == (2, 3) and made.requires_grad
    assert not isinstance(nn.UninitializedBuffer().materialize((2,)), nn.Parameter)


def test_a_state_gives_them_their_shapes():
    for lib in (nn, tnn):
        net, one = network(lib), (md if lib is nn else torch).ones((2, 4, 9))
        trained = network(lib)
        trained(one)
        net.load_state_dict(trained.state_dict())
        assert [tuple(v.shape) for v in net.state_dict().values()] == [tuple(v.shape) for v in trained.state_dict().values()]
        net(one)
        assert type(net[0]) is lib.Conv1d and net[4].in_features == 24 and (lib is tnn or net[0].in_channels == 4)  # where torch says 0
        assert all((a == b).all() for a, b in zip(net.parameters(), trained.parameters(), strict=True))
    layer = nn.LazyLinear(3)
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict({"weight": md.ones((3, 2))})
    assert isinstance(layer.weight, nn.UninitializedParameter)
    layer.load_state_dict({"weight": md.ones((3, 2))}, strict=False)
    with pytest.raises(ValueError, match=r"weight of shape \(3, 2\) was loaded, but an input of shape \(1, 5\) wants \(3, 5\)"):
        layer(md.ones((1, 5)))
    layer(md.ones((1, 2)))
    assert layer.weight.tolist() == [[1.0, 1.0]] * 3 and layer.bias.shape == (3,)
    assigned = nn.LazyLinear(1)
    assigned.load_state_dict({"weight": md.ones((1, 2), dtype=md.float64), "bias": md.zeros(1, dtype=md.float64)}, assign=True)
    assert assigned.weight.dtype is md.float64 and isinstance(assigned.weight, nn.Parameter)


def test_a_call_with_given_weights_leaves_a_lazy_layer_lazy():
    layer = nn.LazyLinear(2)
    with pytest.raises(RuntimeError, match="LazyLinear.weight: this parameter has no shape yet"):
        nn.utils.stateless.functional_call(layer, {"weight": md.ones((2, 4)), "bias": md.zeros(2)}, md.ones((1, 4)))
    assert layer(md.ones((1, 3))).shape == (1, 2) and layer.weight.shape == (2, 3)


def test_a_layer_whose_state_was_loaded_draws_nothing():
    layer = nn.LazyLinear(2)
    layer.load_state_dict(nn.Linear(3, 2).state_dict())
    md.manual_seed(0)
    want = md.random.default_generator.next_key().tolist()
    md.manual_seed(0)
    layer(md.ones((1, 3)))
    assert md.random.default_generator.next_key().tolist() == want and type(layer) is nn.Linear
