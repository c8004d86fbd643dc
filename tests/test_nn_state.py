"""state_dict, load_state_dict and containers do what torch.nn does, call for call: hooks, extra state, buffers, names that are refused."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import minidl as md
from minidl import nn

torch = pytest.importorskip("torch")
LIBRARIES = ((md, nn), (torch, torch.nn))


def both(story):
    """What a story tells about minidl and about torch; an error counts by its class."""
    found = []
    for lib, n in LIBRARIES:
        try:
            found.append(story(lib, n))
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            found.append(type(error))
    assert found[0] == found[1]
    return found[0]


def test_extra_state_travels_with_the_tensors():
    def story(lib, n):
        class Counter(n.Module):
            def __init__(self, k):
                super().__init__()
                self.k, self.inner = k, n.Linear(1, 1)

            def get_extra_state(self):
                return {"k": self.k}

            def set_extra_state(self, state):
                self.k = state["k"]

        outer, other = n.Sequential(Counter(3)), n.Sequential(Counter(9))
        state = outer.state_dict()
        other.load_state_dict(state)
        without = {k: v for k, v in state.items() if "extra" not in k}
        missing = other.load_state_dict(without, strict=False).missing_keys
        return list(state), other[0].k, missing

    assert both(story)[1] == 3


def test_hooks_round_saving_and_loading_see_what_torchs_see():
    def story(lib, n):
        net, seen = n.Sequential(n.Linear(2, 2), n.ReLU()), []

        def renames(module, state, prefix, metadata, strict, missing, unexpected, errors):
            seen.append(("before", prefix, strict))
            if prefix + "old" in state:
                state[prefix + "weight"] = state.pop(prefix + "old")

        handles = [
            net.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append(("pre", prefix, keep))),
            net[0].register_state_dict_post_hook(lambda m, state, prefix, metadata: state.__delitem__(prefix + "bias")),
            net[0].register_load_state_dict_pre_hook(renames),
            net[0].register_load_state_dict_post_hook(lambda m, keys: seen.append((list(keys.missing_keys), list(keys.unexpected_keys)))),
            net.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear()),
        ]
        state = dict(net.state_dict())
        state["0.old"] = state.pop("0.weight")
        text = str(net.load_state_dict(state))
        for handle in handles:
            handle.remove()
        return list(state), seen, text, list(net.state_dict())

    both(story)


def test_state_of_batch_norm_without_its_count():
    """As files of old versions of torch are, and safetensors made from them."""
    def story(lib, n):
        norm = n.BatchNorm1d(2)
        state = {k: v for k, v in norm.state_dict().items() if k != "num_batches_tracked"}
        return str(norm.load_state_dict(state)), norm.num_batches_tracked.item()

    assert both(story)[1] == 0


def test_assign_puts_the_given_tensors_in_place():
    def story(lib, n):
        layer = n.Linear(2, 2)
        layer.bias.requires_grad_(False)
        before = layer.weight
        text = str(layer.load_state_dict({"weight": lib.ones((2, 2), dtype=lib.float64), "bias": lib.ones(2)}, assign=True))
        kinds = [isinstance(p, n.Parameter) for p in layer.parameters()]
        return text, str(layer.weight.dtype).split(".")[-1], layer.weight is before, kinds, [p.requires_grad for p in layer.parameters()]

    both(story)


def test_nothing_changes_when_loading_fails_and_the_message_is_torchs():
    net = nn.Sequential(nn.Linear(2, 2))
    before = net.state_dict()
    with pytest.raises(RuntimeError) as told:
        net.load_state_dict({"0.weight": np.ones((3, 2)), "new": np.ones(1)})
    text = str(told.value)
    assert text.index('Missing key(s) in state_dict: "0.bias"') < text.index('Unexpected key(s) in state_dict: "new"') < text.index("size mismatch")
    assert all((v.numpy() == before[k].numpy()).all() for k, v in net.state_dict().items())
    with pytest.raises(TypeError, match="a dict of names"):
        net.load_state_dict([1])


def test_buffers_by_assignment():
    def story(lib, n):
        m = n.Module()
        m.mean, m.scratch = n.Buffer(lib.ones(2)), n.Buffer(lib.zeros(3), persistent=False)
        names = [k for k, _ in m.named_buffers()]
        m.mean = lib.zeros(2)  # a plain tensor takes the place
        return list(m.state_dict()), names, float(m.mean.sum()), copy.deepcopy(m).scratch.shape == (3,)

    both(story)
    m = pickle.loads(pickle.dumps(nn.Buffer(md.ones(2), persistent=False)))
    assert m.tolist() == [1.0, 1.0] and m.persistent is False
    m = nn.Module()
    m.count = nn.Buffer(md.zeros(()))
    step = md.jit(lambda x: (m.count.assign(m.count + 1), x * m.count)[1])
    assert [step(md.ones(())).item() for _ in range(3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["a.b", "", "training"])
def test_names_that_no_state_can_have_are_refused(name):
    both(lambda lib, n: n.Module().register_buffer(name, lib.ones(1)))
    both(lambda lib, n: n.Module().register_parameter(name, n.Parameter(lib.ones(1))))
    assert both(lambda lib, n: n.Module().add_module(name, n.ReLU())) is KeyError
    assert both(lambda lib, n: n.Linear(1, 1).train(1)) is ValueError


def test_walks_take_torchs_arguments():
    def story(lib, n):
        shared = n.Linear(1, 1)
        net = n.ModuleList([shared, shared])
        return (
            len(list(net.modules(remove_duplicate=False))), len(list(net.modules())), [k for k, _ in net.named_modules({shared}, "p")],
            [k for k, _ in net.named_modules(prefix="p", remove_duplicate=False)], [k for k, _ in net.named_parameters("p", True, False)],
        )  # fmt: skip

    both(story)


def test_sequentials_are_repeated_as_lists_are():
    def story(lib, n):
        s = n.Sequential(n.ReLU(), n.Tanh())
        s *= 2
        return repr(s), repr(2 * n.Sequential(n.ReLU()) * 2), len(s * 3)

    both(story)
    assert both(lambda lib, n: n.Sequential(n.ReLU()) * 0) is ValueError


def test_parameter_dict_is_a_dict():
    def story(lib, n):
        p = n.ParameterDict({"b": lib.ones(2), "a": n.Parameter(lib.ones(3))})
        out = [list(p), list(n.ParameterDict(OrderedDict(b=lib.ones(2), a=lib.ones(3))))]
        out += [tuple(p.setdefault("d", lib.ones(9)).shape), tuple(p.pop("b").shape), p.popitem()[0], list(p.copy()), p.get("zz")]
        p["c"] = lib.ones(1)
        p |= {"z": lib.ones(1)}
        out += [list(p), list(p | {"y": lib.ones(1)}), list({"first": lib.ones(1)} | p), list(reversed(p)), list(p.fromkeys("uv", lib.ones(2)))]
        p.clear()
        return [*out, len(p)]

    both(story)


def test_values_that_are_not_numbers_stay_so():
    """softshrink and lp_pool keep nan, and lp_pool with p=1 is a sum, whatever its sign."""
    x = np.array([[[np.nan, 1.0, -3.0, -2.0]]])
    for name, args in (("softshrink", ()), ("lp_pool1d", (1, 2)), ("lp_pool1d", (2, 2)), ("lp_pool1d", (3, 2))):
        ours, theirs = getattr(nn.functional, name)(md.asarray(x), *args), getattr(torch.nn.functional, name)(torch.tensor(x), *args)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch", "numba"])
def test_one_jitted_step_follows_whatever_is_done_to_the_modules(backend):
    """Freezing, modes, hooks that come and go, modules replaced, values assigned and loaded, buffers added, weights parametrized."""
    pytest.importorskip(backend)

    def story(run):
        md.manual_seed(0)
        # no bias in front of the normalisation, which takes it away: Adam would make steps of the rounding errors of its gradient, 0
        net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
        opts, losses = [md.optim.Adam(net.parameters(), lr=0.05)], []
        x = md.asarray(np.random.default_rng(0).normal(size=(6, 3)))

        def step(x):
            opts[0].zero_grad()
            loss = (net(x) ** 2).sum()
            loss.backward()
            opts[0].step()
            return loss

        step = run(step)

        def go():
            losses.extend(step(x).item() for _ in range(2))

        go()
        before = net[0].weight.detach().numpy().copy()
        net[0].requires_grad_(False)
        go()
        assert (net[0].weight.detach().numpy() == before).all()
        net[0].requires_grad_(True)
        net.eval()
        go()
        net.train()
        with net[3].register_forward_hook(lambda m, a, out: out * 2), net[3].register_full_backward_hook(lambda m, gi, go: (gi[0] * 3,)):
            go()
        go()
        net[2] = nn.Tanh()
        opts[0].param_groups[0]["lr"] = 0.06
        go()
        with md.no_grad():
            net[3].weight.assign(net[3].weight.detach() * 0.5)
        saved = net.state_dict()
        go()
        net.load_state_dict(saved)
        net.register_buffer("extra", nn.Buffer(md.ones(2)))
        go()
        nn.utils.parametrizations.weight_norm(net[3])
        opts[0] = md.optim.SGD(net.parameters(), lr=0.01)
        go()
        return [*losses, net[1].num_batches_tracked.item()]

    with md.use_backend(backend):
        eager, jitted = story(lambda f: f), story(md.jit)
    np.testing.assert_allclose(jitted, eager, rtol=1e-9)
    assert eager[-1] == 14  # two passes in evaluation, and two that loading took back
