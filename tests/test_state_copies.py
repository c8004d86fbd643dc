"""What a user holds can be copied and pickled: the copy goes on from where the original was, and neither changes the other."""

import copy
import pickle

import numpy as np
import pytest

import minidl as md
from minidl import nn


class Numbers(md.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return md.tensor([float(i)])


def nothing(*args):
    return None


def doubled(x):
    return x * 2


def drawn():
    g = md.Generator()
    g.manual_seed(3)
    md.rand(2, generator=g)
    return g


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.generator, self.fast = nn.Linear(2, 2), drawn(), md.jit(doubled)

    def forward(self, x):
        return self.fast(self.layer(x)) + md.rand(2, generator=self.generator)


def hooked():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net.register_forward_hook(nothing)
    net[0].register_full_backward_hook(nothing)
    net.register_state_dict_post_hook(nothing)
    return net


def trained():
    net = Noisy()
    optimizer = md.optim.Adam(net.parameters())
    net(md.ones(2, 2)).sum().backward()
    optimizer.step()
    return net, optimizer, md.optim.lr_scheduler.StepLR(optimizer, 2)


MADE = {
    "generator": drawn,
    "module": Noisy,
    "hooked module": hooked,
    "training": trained,
    "normed": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    "pruned": lambda: nn.utils.prune.l1_unstructured(nn.Linear(2, 2), "weight", 0.5),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(3), nn.ReLU()),
    "scaler": md.amp.GradScaler,
    "loader": lambda: md.data.DataLoader(Numbers(), batch_size=2, shuffle=True, generator=drawn()),
    "jitted": lambda: md.jit(doubled),
    "averaged": lambda: md.optim.swa_utils.AveragedModel(Noisy(), multi_avg_fn=md.optim.swa_utils.get_ema_multi_avg_fn(0.9)),
    "averaged singly": lambda: md.optim.swa_utils.AveragedModel(Noisy(), avg_fn=md.optim.swa_utils.get_ema_avg_fn(0.9)),
    "averaged equally": lambda: md.optim.swa_utils.AveragedModel(Noisy(), multi_avg_fn=md.optim.swa_utils.get_swa_multi_avg_fn()),
    "no_grad": md.no_grad,
    "autocast": lambda: md.autocast("cpu"),
}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("what", MADE)
def test_what_a_user_holds_is_copied(what, how):
    original = MADE[what]()
    made = COPIES[how](original)
    assert type(made).__name__ == type(original).__name__
    if isinstance(original, nn.Module) and what != "lazy":
        for a, b in zip(original.state_dict().values(), made.state_dict().values(), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
            before = a.numpy()
            b.zero_()
            np.testing.assert_array_equal(a.numpy(), before)


@pytest.mark.parametrize("how", [*COPIES.values(), copy.copy])
def test_a_copied_stream_goes_on_by_itself(backend, how):
    fresh, used = md.Generator(), drawn()
    for g in (fresh, used):
        twin = how(how(g))
        first = md.rand(3, generator=g).tolist()
        assert md.rand(3, generator=twin).tolist() == first
        md.rand(3, generator=g)
        assert md.rand(1, generator=g).tolist() != md.rand(1, generator=twin).tolist()
    twin = how(used)
    twin.manual_seed(3)
    assert md.rand(2, generator=twin).tolist() == md.rand(2, generator=md.Generator().manual_seed(3)).tolist()


def test_a_copied_training_goes_on_alike():
    net, optimizer, scheduler = trained()
    again, opt, _ = copy.deepcopy((net, optimizer, scheduler))
    step = {}
    for n, o in ((net, optimizer), (again, opt)):

        @md.jit
        def once(n=n, o=o):
            o.zero_grad()
            loss = (n(md.ones(2, 2)) ** 2).sum()
            loss.backward()
            o.step()
            return loss

        step[n] = [once().item() for _ in range(3)]
    assert step[net] == step[again] and opt.param_groups[0]["params"][0] is again.layer.weight


class Tied(nn.Module):
    """A buffer, a piece of it, a piece of that behind one that is gone, and the whole by another name."""

    def __init__(self, late):
        super().__init__()
        whole = md.zeros(2, 3)
        if not late:
            self.register_buffer("whole", whole)
        self.register_buffer("row", whole[1])
        self.register_buffer("last", whole.reshape(-1)[1:][4:])
        self.register_buffer("same", whole.detach())
        self.kept = nn.Buffer(whole[0])
        if late:
            self.register_buffer("whole", whole)


@pytest.mark.parametrize("late", [False, True])
def test_copies_of_views_are_views_of_copies(backend, late):
    net = Tied(late)
    other = copy.deepcopy(copy.deepcopy(net))
    for n in (other, net):
        n.row.add_(1.0), n.last.add_(1.0), n.same.mul_(2.0)
        assert n.whole.tolist() == [[0.0] * 3, [2.0, 2.0, 4.0]]
    assert copy.deepcopy(net.row).add_(1.0).tolist() == [2.0] * 3 and net.whole.tolist() == other.whole.tolist()
    behind_a_copy = copy.deepcopy([x := md.zeros(2, 3), x.permute(1, 0).reshape(-1)])
    behind_a_copy[1].add_(1.0)
    assert behind_a_copy[0].tolist() == [[0.0] * 3] * 2
    recorded = (md.ones(2, requires_grad=True) * 2.0).detach()
    assert copy.deepcopy(recorded).tolist() == [2.0, 2.0]
