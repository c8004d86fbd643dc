"""What is stored in a view reaches its base: programs that write through views, in PyTorch and here, eager and traced."""

import copy
import gc
import pickle
import random
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

import minidl as md
from minidl import nn

A = (np.arange(12, dtype=np.float32).reshape(3, 4) - 5) / 3


class Words:
    """A library under PyTorch's names, whose `tensor` of the numbers of the test is what the test says."""

    def __init__(self, library, value):
        self.library, self.value = library, value

    def __getattr__(self, name):
        return getattr(self.library, name)

    def tensor(self, data, requires_grad=False):
        if data is not A:
            return self.library.tensor(data)
        return self.value.clone().requires_grad_(requires_grad)


def detached(t):
    p = t.tensor(A, requires_grad=True)
    p.detach().mul_(2.0)
    p.detach()[1:].view(-1)[3] = 7.0
    p.detach().detach().sub_(1.0)
    return p


def data(t):
    p = t.tensor(A, requires_grad=True)
    p.data += 1
    p.data[0] = 5.0
    p.data[1].zero_()
    p.data.view(-1)[11].fill_(9.0)
    p.data.T[2].exp_()
    return p


def without_grad(t):
    p = t.tensor(A, requires_grad=True)
    with t.no_grad():
        p.detach().add_(1.0)
        p.view(-1).mul_(2.0)
        p[0].zero_()
        p.T.copy_(p.T + 1)
    return p


def indices(t):
    x = t.tensor(A)
    x.flatten()[3] = 1.0
    x[0] += 1
    x[0].add_(1)
    x[0][1] = 2.0
    x[:, 1:3].mul_(3)
    x[1, ::2].zero_()
    x[..., -1] -= 1
    x[None][0, 0] = 4.0
    x[t.tensor(1)].neg_()
    return x


def gathered(t):
    x = t.tensor(A)
    x[[0, 1]].zero_()
    x[t.tensor([0])].zero_()
    x[:, [1]].add_(1)
    return x


def orders(t):
    x = t.tensor(A)
    x.T[1].add_(1)
    x.t()[0] = 3.0
    x.transpose(0, 1)[2, 1] = 7.0
    x.permute(1, 0).mul_(2)
    x.unsqueeze(0).add_(1)
    x.swapaxes(0, 1)[0, 0] = 0
    x.mT[3].zero_()
    x.squeeze().exp_()
    x.movedim(0, 1)[0] = 1.0
    x.view(3, 4, 1).squeeze(-1)[2, 2] = 0.0
    x.ravel()[0] = 8.0
    x.unflatten(1, (2, 2))[0, 1] = 6.0
    return x


def copies(t):
    x = t.tensor(A)
    x.T.reshape(-1).zero_()
    x.T.contiguous().zero_()
    x.contiguous()[0] = 5.0
    x[:, :2].reshape(-1).zero_()
    x[:2].reshape(-1).add_(1)
    x.T.flatten().zero_()
    x.T.unsqueeze(0)[0, 0] = 8.0
    x[0].clone().zero_()
    z = x.T[1:3]
    z.reshape(2, 3).add_(1)
    z.reshape(6).add_(1)
    z.view(2, 1, 3).mul_(3)
    return x


def pieces(t):
    x = t.tensor(A)
    for i, row in enumerate(x):
        row.mul_(i)
    a, b = x.chunk(2, 1)
    a.add_(1)
    b.sub_(1)
    for part in x.split(2):
        part.mul_(2)
    for part in x.unbind(1):
        part.add_(1)
    x.diagonal().zero_()
    x.narrow(0, 1, 2).mul_(3)
    x.select(1, 2).add_(5)
    x.diagonal(offset=1).fill_(2.0)
    return x


def chained(t):
    x = t.tensor(A)
    v = x[0]
    w = v[1:]
    w.add_(10)
    v.mul_(2)
    w.sub_(1)
    return x


def behind_a_change(t):
    x = t.tensor(A)
    v = x[0]
    x.add_(100)
    v.add_(1)
    x.mul_(2)
    v[1] = 0.0
    return t.stack([x[0], v])


def differentiated(t):
    w = t.tensor(A, requires_grad=True)
    x = w * 2
    v = x[1:]
    v.mul_(3)
    v.T.add_(1)
    v.view(-1)[2] = w[0].sum()
    (x * v.sum()).sum().backward()
    return w.grad


def differentiated_past_detach(t):
    w = t.tensor(A, requires_grad=True)
    x = w * 1.0
    x.detach().mul_(3)
    (x + x).sum().backward()
    return t.stack([w.grad, x.detach()])


def becomes_tracked(t):
    x, w = t.zeros(3, 4), t.tensor(A, requires_grad=True)
    x[1].copy_(w[0])
    x.view(12)[2:4].add_(w[2, :2])
    (x * t.arange(12.0).view(3, 4)).sum().backward()
    return w.grad


def optimized(t):
    w = t.tensor(A).detach().requires_grad_()
    opt = t.optim.SGD([w], lr=0.1)
    (w * w).sum().backward()
    opt.step()
    return w


PROGRAMS = [
    detached, data, without_grad, indices, gathered, orders, copies, pieces, chained, behind_a_change, differentiated, differentiated_past_detach,
    becomes_tracked, optimized,
]  # fmt: skip


def wanted(program):
    return program(Words(torch, torch.tensor(A))).detach().numpy()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_a_write_to_a_view_does_what_it_does_in_pytorch(backend, program):
    if backend != "numpy" and program not in (detached, orders, differentiated):
        program = differentiated  # the views are one text for all backends; three programs show it
    np.testing.assert_allclose(program(Words(md, md.tensor(A))).detach().numpy(), wanted(program), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_a_traced_write_to_a_view_does_what_it_does_in_pytorch(program):
    run = md.jit(lambda x: program(Words(md, x)).detach())
    for _ in range(2):
        np.testing.assert_allclose(run(md.tensor(A)).numpy(), wanted(program), rtol=1e-5, atol=1e-6)


def test_the_bits_are_written_through():
    x = md.tensor([-1.0, -2.0])
    x.view(md.int32)[0].bitwise_and_(0x7FFFFFFF)
    assert x.tolist() == [1.0, -2.0]


def test_a_view_of_a_leaf_is_refused_and_nothing_changes():
    x = md.tensor(A, requires_grad=True)
    v = x[0]
    for write in (lambda: v.mul_(2.0), lambda: x.T.zero_(), lambda: x.view(-1).__setitem__(0, 1.0)):
        with pytest.raises(RuntimeError, match="in-place: a leaf that requires grad can only be changed under md.no_grad"):
            write()
    np.testing.assert_array_equal(x.detach().numpy(), A)
    np.testing.assert_array_equal(v.detach().numpy(), A[0])
    with pytest.raises(ValueError, match="in-place"):
        x.detach().assign(md.ones(2))
    np.testing.assert_array_equal(x.detach().numpy(), A)


@pytest.mark.parametrize("jitted", [False, True])
def test_the_values_of_a_state_dict_write_through(backend, jitted):
    if jitted and backend == "numba":
        backend = "numpy"
    model, ema = nn.Linear(2, 2), nn.Linear(2, 2)
    kept = ema.state_dict()

    def of_now():
        for e, m in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
            e.mul_(0.5).add_(m, alpha=0.5)

    def of_before():
        for e, m in zip(kept.values(), model.state_dict().values(), strict=True):
            e.copy_(0.5 * e + 0.5 * m)

    want, seen = ema.weight.detach().numpy(), ema.weight
    now = md.jit(of_now) if jitted else of_now
    for _ in range(3):
        now()
        want = 0.5 * want + 0.5 * model.weight.detach().numpy()
        with md.no_grad():
            model.weight.mul_(1.5)
    np.testing.assert_allclose(ema.weight.detach().numpy(), want, rtol=1e-5)
    (md.jit(of_before) if jitted else of_before)()  # what was kept are the numbers of then, but in-place operations start from those of now
    assert ema.weight is seen and ema.weight.requires_grad
    kept["weight"].zero_()
    assert not ema.weight.detach().numpy().any()


def test_a_state_dict_is_of_its_time_and_its_copies_are_alone():
    model = nn.Linear(2, 2)
    kept, weight = model.state_dict(), model.weight.detach().numpy()
    optimizer = md.optim.SGD(model.parameters(), lr=0.1)
    (model(md.ones(2)) ** 2).sum().backward()
    optimizer.step()
    now = model.weight.detach().numpy()
    np.testing.assert_array_equal(kept["weight"].numpy(), weight)
    for alone in (copy.deepcopy(model.state_dict()), pickle.loads(pickle.dumps(model.state_dict()))):
        alone["weight"].zero_()
    other = nn.Linear(2, 2)
    other.load_state_dict(model.state_dict())
    other.weight.data.zero_()
    np.testing.assert_array_equal(model.weight.detach().numpy(), now)
    model.load_state_dict(kept)
    np.testing.assert_array_equal(model.weight.detach().numpy(), weight)


def test_a_view_from_outside_is_written_in_loops_branches_and_programs():
    base = md.zeros(3)
    row = base[:2]

    def body(c, x):
        base[0].add_(x)
        base.detach()[1:].add_(1.0)
        return c, x

    xs = md.tensor([1.0, 2.0])
    md.scan(body, md.zeros(()), xs)
    assert base.tolist() == [3.0, 2.0, 2.0]
    step = md.jit(lambda: md.scan(body, md.zeros(()), xs))
    step()
    step()
    assert base.tolist() == [9.0, 6.0, 6.0]
    md.cond(md.tensor(True), lambda: base[2].add_(10.0), lambda: base[2].add_(20.0))
    assert base.tolist() == [9.0, 6.0, 16.0]
    add = md.jit(lambda: row.add_(1.0))
    add()
    add()
    assert base.tolist() == [11.0, 8.0, 16.0] and row.tolist() == [11.0, 8.0]

    def in_a_lane(r):
        r = r * 1
        r[0].add_(1.0)
        r.view(-1)[1] = 5.0
        return r

    assert md.vmap(in_a_lane)(md.zeros((2, 2))).tolist() == [[1.0, 5.0]] * 2
    assert md.grad(lambda x: (in_a_lane(x) ** 2).sum())(md.ones(2)).tolist() == [4.0, 0.0]


def test_views_keep_nothing_alive():
    x = md.zeros(100)
    base, v = weakref.ref(x), x.view(10, 10)
    row = v[3]
    del x, v
    gc.collect()
    assert base() is None
    row.add_(1.0)  # nobody else can see it
    assert row.tolist() == [1.0] * 10
    x = md.zeros(4)
    for _ in range(100):
        x = x.detach().view(2, 2).T.T.view(4)
    assert len([*links(x)]) < 6


def links(x):
    of = x.of
    while of is not None:
        yield of
        of = of[1]


@pytest.mark.parametrize("jit", [False, True])
def test_operators_on_a_piece_leave_the_whole_alone(backend, jit):
    """Programs of those who know no views: a total that begins with the first row, a residual of another shape."""

    def f(x):
        total = x[0]
        for row in x[1:]:
            total += row
        h = x.reshape(4, 3)
        h *= 2.0
        h -= 1.0
        t = x.T
        t /= 2.0
        still = md.stop_gradient(x)
        still += 1.0
        return total, x + h.reshape(3, 4), t

    with md.use_backend(backend):
        total, residual, t = (md.jit(f) if jit else f)(md.tensor(A))
    np.testing.assert_allclose(total.numpy(), A.sum(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(residual.numpy(), 3 * A - 1, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(t.numpy(), A.T / 2)


def test_a_moving_average_over_the_values_of_state_dict():
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    before = average.weight.detach().numpy()
    for a, m in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        a *= 0.5
        a += m * 0.5
    np.testing.assert_allclose(average.weight.detach().numpy(), 0.5 * before + 0.5 * model.weight.detach().numpy(), rtol=1e-6)


def test_what_is_loaded_or_copied_is_no_view():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    x = md.tensor([[1.0, 2.0], [3.0, 5.0]])

    def step(net, optimizer):
        optimizer.zero_grad()
        (net(x) ** 2).sum().backward()
        optimizer.step()

    first = md.optim.Adam(net.parameters())
    step(net, first)
    saved, state = first.state_dict(), net.state_dict()
    before = [saved["state"][0]["exp_avg"].tolist(), state["1.running_mean"].tolist(), net[0].weight.grad.tolist()]
    twin = copy.deepcopy(net)
    twin[0].weight.grad.zero_()
    twin.load_state_dict(state, assign=True)
    twin[1].running_mean.add_(1.0)
    second = md.optim.Adam(net.parameters())
    second.load_state_dict(saved)
    after = [first.state_dict()["state"][0]["exp_avg"].tolist(), net[1].running_mean.tolist(), net[0].weight.grad.tolist()]
    assert after == before
    step(net, second)
    assert [saved["state"][0]["exp_avg"].tolist(), first.state_dict()["state"][0]["exp_avg"].tolist()] == before[:1] * 2

    class Slow(md.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 1.0})

        def _start(self, p, group):
            return {"slow": p}

        def _update(self, p, grad, group, state):
            return p - grad, {"slow": state["slow"] * 0.5}

    w = md.tensor([1.0], requires_grad=True)
    slow = Slow([w])
    for _ in range(2):
        slow.zero_grad()
        (w * 0.25).sum().backward()
        slow.step()
    assert w.tolist() == [0.5] and slow.state[w]["slow"].tolist() == [0.25]


def test_parts_of_complex_numbers_cannot_be_written_in_place():
    z = md.complex(md.ones(2), md.zeros(2))
    for write in (lambda: z.real.mul_(2.0), lambda: z.imag.zero_(), lambda: md.view_as_real(z).__setitem__((..., 0), 5.0)):
        with pytest.raises(RuntimeError, match=r"in-place: .* is a value of its own here.*md.complex\(real, imag\)"):
            write()
    part = md.complex(md.ones(2), md.zeros(2)).real  # of which the rest is gone
    assert part.add_(1.0).tolist() == [2.0, 2.0] and z.tolist() == [1, 1]


def test_who_holds_a_gradient_sees_it_grow():
    for t in (torch, md):
        w = t.tensor([1.0, 2.0], requires_grad=True)
        (w * w).sum().backward()
        g = w.grad
        (w * 3).sum().backward()
        assert g.tolist() == w.grad.tolist() == [5.0, 7.0]
        g.zero_()
        assert w.grad.tolist() == [0.0, 0.0]
    (w * w).sum().backward(create_graph=True)
    assert w.grad.requires_grad and not g.requires_grad


def test_programs_find_the_base_of_a_view_that_they_write_to():
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    kept = net.state_dict()

    def follow():
        for a, b in zip(kept.values(), other.state_dict().values(), strict=True):
            a.mul_(0.5).add_(b, alpha=0.5)

    base = md.zeros(3)
    row, step = base[:2], md.jit(follow)
    add = md.jit(lambda: row.add_(1.0))
    want = net.weight.detach().numpy()
    for _ in range(3):
        step()
        add()
        want = 0.5 * want + 0.5 * other.weight.detach().numpy()
        base.add_(10.0)
    assert step.compiles == add.compiles == 1
    np.testing.assert_allclose(net.weight.detach().numpy(), want, rtol=1e-5)
    assert base.tolist() == [33.0, 33.0, 30.0] and row.tolist() == [23.0, 23.0]
    del base
    add()
    assert row.tolist() == [34.0, 34.0]  # the program holds it


def test_what_is_trained_is_a_tensor_of_its_own():
    x = md.ones(2)
    w = x.detach().requires_grad_()
    optimizer = md.optim.SGD([w], lr=0.5)

    @md.jit
    def step():
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()

    for _ in range(3):
        step()
    assert step.compiles == 1 and x.tolist() == [1.0, 1.0] and w.tolist() == [0.0, 0.0]


def some_view(t, r, v):
    """A view of v, or v: by PyTorch's words, which both libraries have."""
    shape = tuple(v.shape)
    n, first, last = len(shape), shape[0] if shape else 0, shape[-1] if shape else 0
    ways = [lambda: v[None], lambda: v[..., None], lambda: v.squeeze(), lambda: v.flatten(), lambda: v.contiguous()]
    ways += [lambda: v.detach(), lambda: v.data]
    if first:
        i, stop = r.randrange(first), r.randint(0, first)
        ways += [lambda: v[i], lambda: v[t.tensor(i)], lambda: v[i - first], lambda: v[i::2], lambda: v.narrow(0, i, 1)]
        ways += [lambda: v[stop : stop + 2]]
        ways += [lambda: v.unbind(0)[i], lambda: v.chunk(2)[-1], lambda: v.unsqueeze(n)]
    if last:
        j = r.randrange(last)
        ways += [lambda: v[..., j], lambda: v.split(2, -1)[0], lambda: v.reshape(-1, last), lambda: v.view(last, -1)]
    if n == 2:
        ways += [lambda: v.T, lambda: v.diagonal(offset=r.choice([-1, 0, 1]))]
    if n > 1:
        ways += [lambda: v.permute(*r.sample(range(n), n)), lambda: v.swapaxes(0, -1)]
    return r.choice(ways)()


def some_write(t, r, v, w):
    n = len(v.shape)
    ways = [lambda: v.add_(1.5), lambda: v.mul_(-0.75), lambda: v.zero_(), lambda: v.fill_(0.25), lambda: v.neg_(), lambda: v.add_(w[1, 1] * 2)]
    ways += [lambda: v.sub_(0.5, alpha=2), lambda: v.mul_(w[0, 1]), lambda: v.copy_(w.sum() * t.ones(tuple(v.shape)))]
    if n:
        ways += [lambda: v.__setitem__(..., 2.0)]
        if v.shape[0]:
            i = r.randrange(v.shape[0])
            ways += [lambda: v.__setitem__(i, w[0, 0]), lambda: v.__setitem__(slice(i), w[0, 2])]
    write = r.choice(ways)
    if r.random() < 0.2:
        with t.no_grad():
            write()
    else:
        write()


def some_program(t, seed, w, most=4):
    """Writes through chains of views, some of them kept: what the base holds in the end, and its sum with weights."""
    r = random.Random(seed)
    x = w * 1.5 if seed % 2 else t.zeros(3, 4) + t.arange(12.0).view(3, 4) / 5
    kept = []
    for _ in range(r.randint(1, 6)):
        v = r.choice([x, *kept]) if r.random() < 0.3 else x
        for _ in range(r.randint(1, most)):
            v = some_view(t, r, v)
        kept += [v] * (r.random() < 0.3)
        some_write(t, r, v, w)
    return (x * t.arange(1.0, 13.0).view(3, 4)).sum() + 0 * w.sum(), x


@pytest.mark.parametrize("jitted, seeds, most", [(False, range(300), 4), (True, range(40), 4), (False, range(120), 60)], ids=["eager", "jit", "long"])
def test_random_writes_through_views_do_what_they_do_in_pytorch(jitted, seeds, most):
    ran = 0
    for seed in seeds:
        w = torch.tensor(A, requires_grad=True)
        try:
            out, x = some_program(torch, seed, w, most)
            out.backward()
        except RuntimeError:  # what PyTorch forbids: a view in another order, a residual that was written over
            continue
        ran += 1
        f = md.value_and_grad(lambda v, seed=seed: some_program(md, seed, v, most), has_aux=True)
        (_, mine), gradient = (md.jit(f) if jitted else f)(md.tensor(A))
        np.testing.assert_allclose(mine.detach().numpy(), x.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}")
        np.testing.assert_allclose(gradient.numpy(), w.grad.numpy(), rtol=1e-4, atol=1e-4, err_msg=f"seed {seed}")
    assert ran > len(seeds) // 3


@pytest.mark.parametrize("how", ["plain", "scan", "while", "cond", "checkpoint"])
def test_what_a_body_writes_last_to_a_base_stays_beside_its_views(how):
    def f():
        base = md.zeros(3)
        row, x = base[:2], md.tensor(1.0, requires_grad=True)

        def body(c):
            row.fill_(1.0)
            base.add_(10.0)
            return c + base[0].detach() * x

        if how == "scan":
            total = md.scan(lambda c, _: (body(c), None), md.zeros(()), None, length=2)[0]
        elif how == "while":
            total = md.while_loop(lambda c: c < 20.0, body, md.zeros(()))
        elif how == "cond":
            total = md.cond(x > 0, body, lambda c: c, md.zeros(())) + md.cond(x > 0, body, lambda c: c, md.zeros(()))
        elif how == "checkpoint":
            total = md.checkpoint(lambda c: body(body(c)))(md.zeros(()))
            total.backward()
        else:
            total = body(body(md.zeros(())))
        return base, row, total.detach()

    for run in (f, md.jit(f)):
        base, row, total = run()
        assert base.tolist() == [11.0, 11.0, 20.0] and row.tolist() == [1.0, 1.0] and total.item() == 22.0


def test_programs_write_through_the_views_that_they_are_given():
    add = md.jit(lambda v: v.add_(1.0))
    x, y, z = md.zeros((3, 2)), md.zeros((3, 2)), md.zeros(2)
    for v in (z, x[0], x[0], y[2], z, x[1]):
        add(v)
    assert x.tolist() == [[2.0] * 2, [1.0] * 2, [0.0] * 2] and y.tolist() == [[0.0] * 2, [0.0] * 2, [1.0] * 2] and z.tolist() == [2.0] * 2
    both = md.jit(lambda v, w: (v.add_(1.0), w.sum())[1])
    for i in range(3):
        assert both(x[i], x).item() == both(x[i], x).item() - 2.0
    assert x.tolist() == [[4.0] * 2, [3.0] * 2, [2.0] * 2]
    read = md.jit(lambda v: v * 2)
    for i in range(3):
        read(x[i])
    assert read.compiles == 1


def test_a_parameter_shares_nothing_with_what_it_was_made_of():
    w = md.zeros(2)
    for made in (nn.Parameter(w), nn.Buffer(w)):
        w.add_(1.0)
        made.data.add_(5.0)
        assert made.tolist() == [5.0, 5.0] and w.tolist() == [1.0, 1.0]
        w.zero_()
    step = md.jit(lambda d: d.add_(1.0))
    for _ in range(3):
        step(w)
    assert step.compiles == 1 and w.tolist() == [3.0, 3.0]


def test_programs_find_the_base_of_a_view_behind_views_that_are_gone():
    p, model = md.ones((2, 2)), nn.Linear(2, 2)
    reset = md.jit(lambda w: w.zero_())
    reset(md.ones(2))
    reset(p.T[0])
    assert p.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    reset(p.reshape(-1)[1:][:2])
    assert p.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    reset(p.data[1])
    assert p.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    reset(model.weight.data[0][:2])
    reset(model.bias.data[:2])
    assert model.weight[0].tolist() == model.bias.tolist() == [0.0, 0.0]


def test_a_view_stays_where_its_index_was():
    def f(buf, ptr):
        slots = []
        for k in range(3):
            slot = buf[ptr]
            part = buf[ptr, :1]
            rest = buf[ptr:, 1]
            ptr += 1
            slot.fill_(k + 1.0)
            part.add_(0.5)
            rest.sub_(1.0)
            slots.append(slot)
        return [s * 1 for s in slots]

    def run(t, f):
        buf, ptr = t.zeros(3, 2), t.tensor(0)
        f(buf, ptr)
        return buf.tolist(), ptr.tolist()

    assert run(md, f) == run(torch, f)

    def traced(buf, ptr):
        for k in range(3):
            slot = buf[ptr]
            ptr += 1
            slot.fill_(k + 1.0)

    assert run(md, md.jit(traced)) == run(torch, traced)


def test_programs_that_change_views_are_kept_for_views_of_the_same_kind():
    add, total = md.jit(lambda v: v.add_(1.0)), md.jit(lambda w, x: w.__iadd__(x))
    p, q = md.zeros((3, 2)), md.zeros((3, 2))
    for x, i in ((p, 0), (q, 0), (p, 1), (p, 0), (q, 1), (p, 1)):
        add(x[i])
    assert p.tolist() == [[2.0] * 2, [2.0] * 2, [0.0] * 2] and q.tolist() == [[1.0] * 2, [1.0] * 2, [0.0] * 2] and add.compiles == 2
    for w in (p[0], p[1], q[2], md.ones(2)):
        want = (w + 1).tolist()
        assert total(w, md.ones(2)).tolist() == w.tolist() == want and w.of is None
    assert total.compiles == 1 and p[0].tolist() == [2.0, 2.0]

    def both(v):
        v.add_(1.0)
        v += 1.0  # from here on a tensor of its own
        v.add_(5.0)

    step, q = md.jit(both), md.zeros((2, 2))
    for n in (1.0, 2.0, 3.0):
        v = q[0]
        step(v)
        assert v.tolist() == [n + 6.0] * 2 and q.tolist() == [[n] * 2, [0.0] * 2]
    assert step.compiles == 1
    swap = md.jit(lambda x, y: (x.add_(1.0), y.mul_(2.0)))
    for x, y in ((p[0], q[0]), (p[1], p[2]), (q[0], q[1]), (p[0], q[0]), (p[1], p[1])):
        a, b = x.of[0](), y.of[0]()
        want = [t.tolist() for t in (a, b)]
        swap(x, y)
        assert [t.tolist() for t in (a, b)] != want
    assert p.tolist() == [[4.0] * 2, [8.0] * 2, [0.0] * 2] and q.tolist() == [[14.0] * 2, [0.0] * 2]


def test_an_argument_that_is_written_is_not_taken_for_another_tensor_that_is_read():
    c, d = md.ones(3), md.ones(3)
    f = md.jit(lambda a: (a.add_(1.0), c.sum())[1])
    assert [f(d).item(), f(c).item(), f(d).item(), f(c.detach()).item()] == [3.0, 6.0, 6.0, 9.0]
    total = c[:2]

    def step():
        nonlocal total
        total += 1.0

    again = md.jit(step)
    again()
    again()
    assert total.tolist() == [5.0, 5.0] and c.tolist() == [3.0] * 3


def test_long_chains_of_views_are_read_and_written_in_little_time():
    for keep in ([], None):
        x = y = md.zeros((50, 40))
        y = y.T.reshape(50, 40) if keep is None else y.view(40, 50).T
        for i in range(1500):
            y = (y[1:] if y.shape[0] > 2 else y.T if i % 3 else y.detach()) if i % 7 else y.T
            if keep is not None:
                keep.append(y)
        y[0, 0] = 5.0
        assert x.tolist() != [[0.0] * 40] * 50 if keep is not None else x.sum().item() == 0.0
    found = []
    for t in (torch, md):
        w = t.tensor(A, requires_grad=True)
        x = w * 2
        v = x.view(4, 3)
        for _ in range(10):
            v = v.T.T[:, 1:].unsqueeze(0)[0, ..., None].squeeze(-1).T if v.shape[1] > 1 else v.view(1, -1)[:, :].T
        v.mul_(3.0)
        (x * x).sum().backward()
        found.append((x.detach().numpy(), w.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_other_data_leave_the_views_of_the_old_ones_behind():
    def program(t):
        w, ema = t.nn.Parameter(t.ones(2)), t.zeros(2) + 7
        backup = w.data
        w.data = ema
        backup.mul_(0.5)
        w.data.add_(1.0)
        now = w.tolist()
        newer = w.data
        newer -= 0.5
        w.data -= 0.5
        newer.mul_(2.0)
        w.data = backup
        newer.zero_()
        return now, w.tolist(), backup.tolist()

    assert program(md) == program(torch)
    w = md.ones(2)
    row, w.data = w[0], md.zeros(2)
    row.add_(2.0)
    assert row.item() == 3.0 and w.tolist() == [0.0, 0.0]
    w[0].add_(1.0)
    assert w.tolist() == [1.0, 0.0]
    swap = md.jit(lambda v: setattr(w, "data", v))
    for n in (3.0, 4.0):
        before = w.data
        swap(md.full((2,), n))
        before.add_(1.0)
        assert w.tolist() == [n, n]
        w.data.add_(0.0)
    assert swap.compiles == 1


def test_a_view_changed_without_the_tape_has_the_gradient_of_its_base():
    found = []
    for t in (torch, md):
        x = t.tensor([[1.0, 2.0]], requires_grad=True)
        b = x * 2
        v = b[0]
        b.mul_(3)
        with t.no_grad():
            v.add_(1)
        (v * 1).sum().backward()
        found.append((x.grad.tolist(), v.tolist(), b.tolist()))
    assert found[0] == found[1]


def test_what_pytorch_copies_does_not_follow_its_base():
    def program(t):
        x = t.zeros(2, 3)
        flat, rows = x.T.reshape(-1), x.T.contiguous()[0]
        x.add_(1)
        flat.add_(1)
        flat[0] = 5.0
        rows.add_(1)
        return [v.tolist() for v in (x, flat, rows)]

    assert program(md) == program(torch)
    add = md.jit(lambda v: v.add_(1.0))
    x = md.zeros((2, 3))
    for v in (x.T.reshape(-1), x.reshape(-1), x.T.reshape(-1), x.reshape(-1)):
        add(v)
    assert x.tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("name", ["index", "view", "copy"])
def test_threads_that_store_in_rows_lose_nothing(name):
    x, times = md.zeros(2, 500), 150

    def work(i):
        for _ in range(times):
            if name == "index":
                x[i] = x[i] + 1.0
            elif name == "view":
                x[i].add_(1.0)
            else:
                x[i, :].copy_(x[i] + 1.0)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        [t.start() for t in threads], [t.join() for t in threads]
    finally:
        sys.setswitchinterval(before)
    assert x.tolist() == [[float(times)] * 500] * 2
