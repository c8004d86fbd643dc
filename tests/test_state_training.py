"""Training programs that treat state in unusual ways do what they do in PyTorch, eager and compiled."""

import copy

import numpy as np
import pytest
import torch

import minidl as md

rng = np.random.default_rng(0)
W1 = rng.normal(size=(5, 4)).astype("f")
W2 = rng.normal(size=(4, 5)).astype("f")
B = rng.normal(size=(4,)).astype("f")
XS = [rng.normal(size=(6, 4)).astype("f") for _ in range(12)]
PROGRAMS = {}


def program(f):
    PROGRAMS[f.__name__] = f
    return f


def net(t, bias=True):
    class N(t.nn.Module):
        def __init__(s):
            super().__init__()
            s.a = t.nn.Linear(4, 5, bias=False)
            s.b = t.nn.Linear(5, 4, bias=bias)

        def forward(s, x):
            return s.b(t.tanh(s.a(x)))

    n = N()
    with t.no_grad():
        n.a.weight.copy_(t.tensor(W1))
        n.b.weight.copy_(t.tensor(W2))
        if bias:
            n.b.bias.copy_(t.tensor(B))
    return n


def fin(n):
    return [p.detach().numpy() for p in n.parameters()] + [b.detach().numpy() for b in n.buffers()]


@program
def tied(t, jit):
    n = net(t)
    n.c = t.nn.Linear(4, 5, bias=False)
    n.c.weight = n.a.weight
    o = t.optim.Adam(n.parameters(), lr=0.05)

    @jit
    def step(x):
        o.zero_grad()
        l = ((n.c(n(x))) ** 2).mean()
        l.backward()
        o.step()
        return l

    r = [step(t.tensor(x)).item() for x in XS[:5]]
    return r + fin(n)


@program
def reassigned(t, jit):
    n = net(t)

    @jit
    def step(x):
        for p in n.parameters():
            p.grad = None
        l = (n(x) ** 2).mean()
        l.backward()
        with t.no_grad():
            for p in n.parameters():
                p -= 0.1 * p.grad
        return l

    r = []
    for i, x in enumerate(XS[:8]):
        if i == 2:
            n.a.weight = t.nn.Parameter(t.tensor(W1 * 2))
        if i == 4:
            n.b.bias = None
        if i == 5:
            n.b.bias = t.nn.Parameter(t.tensor(B))
        if i == 6:
            n.b = t.nn.Linear(5, 4, bias=False)
            n.b.weight.data.copy_(t.tensor(W2))
        r.append(step(t.tensor(x)).item())
    return r + fin(n)


@program
def late_buffer(t, jit):
    n = net(t)

    @jit
    def f(x):
        y = n(x)
        if hasattr(n, "count"):
            n.count += 1
            y = y * n.count
        return y.sum()

    r = []
    for i, x in enumerate(XS[:6]):
        if i == 2:
            n.register_buffer("count", t.ones(1))
        if i == 4:
            n.count = t.ones(1) * 10
        r.append(f(t.tensor(x)).item())
    return r + fin(n)


def stepping(n, o, jit):
    """The step that most of these programs train by."""

    @jit
    def step(x):
        o.zero_grad()
        l = (n(x) ** 2).mean()
        l.backward()
        o.step()
        return l

    return step


@program
def added_group(t, jit):
    n = net(t)
    o = t.optim.SGD([n.a.weight], lr=0.1, momentum=0.9)

    step = stepping(n, o, jit)

    r = []
    for i, x in enumerate(XS[:8]):
        if i == 3:
            o.add_param_group({"params": [n.b.weight], "lr": 0.02})
        if i == 5:
            o.add_param_group({"params": [n.b.bias], "lr": 0.5, "weight_decay": 0.1})
        if i == 6:
            o.param_groups[0]["lr"] = 0.3
            o.param_groups[1]["momentum"] = 0.5
        r.append(step(t.tensor(x)).item())
    return r + fin(n)


@program
def gradients_by_hand(t, jit):
    n = net(t)
    o = t.optim.Adam(n.parameters(), lr=0.05)

    @jit
    def back(x):
        l = (n(x) ** 2).mean()
        l.backward()
        return l

    @jit
    def upd():
        o.step()

    r = []
    for i, x in enumerate(XS[:10]):
        if i % 3 == 0:
            o.zero_grad()
        if i == 4:
            n.a.weight.grad = t.ones(5, 4)
        if i == 5:
            n.b.weight.grad = None
        if i == 6:
            n.b.bias.grad = n.b.bias.grad * 2 if n.b.bias.grad is not None else None
        (back if i % 2 else (lambda x: (lambda l: (l.backward(), l)[1])((n(x) ** 2).mean())))(t.tensor(x))
        upd()
        r += [None if p.grad is None else p.grad.numpy().copy() for p in n.parameters()]
        if i == 7:
            for p in n.parameters():
                p.grad.zero_()
        if i == 8:
            for p in n.parameters():
                p.grad.detach_()
                p.grad.mul_(0.5)
    return r + fin(n)


@program
def loaded_between(t, jit):
    n = net(t)
    o = t.optim.Adam(n.parameters(), lr=0.05)
    sd = None

    step = stepping(n, o, jit)

    r = []
    for i, x in enumerate(XS[:9]):
        if i == 2:
            sd = copy.deepcopy(n.state_dict())
            od = copy.deepcopy(o.state_dict())
        if i == 5:
            n.load_state_dict(sd)
        if i == 6:
            o.load_state_dict(od)
        if i == 7:
            n.load_state_dict({k: v * 2 for k, v in sd.items()})
            o.zero_grad(set_to_none=False)
        r.append(step(t.tensor(x)).item())
    return r + fin(n)


@program
def other_dtype(t, jit):
    n = net(t)

    @jit
    def f(x):
        return (n(x) ** 2).mean()

    r = []
    for i, x in enumerate(XS[:6]):
        if i == 2:
            n.to(t.float64)
        if i == 4:
            n.float()
        r.append(f(t.tensor(x).to(t.float64 if 2 <= i < 4 else t.float32)).item())
    return r + fin(n)


@program
def frozen(t, jit):
    n = net(t)
    o = t.optim.SGD(n.parameters(), lr=0.1, momentum=0.9)

    step = stepping(n, o, jit)

    r = []
    for i, x in enumerate(XS[:9]):
        if i == 2:
            n.a.requires_grad_(False)
        if i == 4:
            n.a.requires_grad_(True)
            n.b.weight.requires_grad = False
        if i == 6:
            n.requires_grad_(True)
        r.append(step(t.tensor(x)).item())
        r += [p.grad is None for p in n.parameters()]
    return r + fin(n)


@program
def clipped(t, jit):
    n = net(t)
    o = t.optim.SGD(n.parameters(), lr=0.1)

    @jit
    def step(x):
        o.zero_grad()
        l = (n(x) ** 2).mean() * 100
        l.backward()
        g = t.nn.utils.clip_grad_norm_(n.parameters(), 1.0)
        for p in n.parameters():
            p.grad.data.clamp_(-0.2, 0.2)
            p.grad.mul_(2.0)
        t.nn.utils.clip_grad_value_(n.parameters(), 0.1)
        o.step()
        return g

    r = [step(t.tensor(x)).item() for x in XS[:4]]
    return r + [p.grad.numpy() for p in n.parameters()] + fin(n)


@program
def failing(t, jit):
    n = net(t)
    o = t.optim.Adam(n.parameters(), lr=0.05)
    n.register_buffer("k", t.zeros(1))

    def step(x, bad):
        o.zero_grad()
        n.k += 1
        l = (n(x) ** 2).mean()
        l.backward()
        if bad:
            raise KeyError("x")
        o.step()
        return l

    step = jit(step)
    r = []
    for i, x in enumerate(XS[:6]):
        try:
            r.append(step(t.tensor(x), i in (1, 4)).item())
        except KeyError:
            r.append(-1.0)
    return r + [p.detach().numpy() for p in n.parameters()]


@program
def two_models(t, jit):
    n, m = net(t), net(t)
    o = t.optim.AdamW([*n.parameters(), *m.parameters()], lr=0.05)

    @jit
    def step(x, which):
        o.zero_grad()
        l = (m(n(x)) ** 2).mean() if which else (n(x) ** 2).mean()
        l.backward()
        o.step()
        return l

    r = [step(t.tensor(x), i % 3 == 0).item() for i, x in enumerate(XS[:8])]
    return r + fin(n) + fin(m)


@program
def two_optimizers(t, jit):
    n = net(t)
    o1 = t.optim.SGD(n.a.parameters(), lr=0.1, momentum=0.5)
    o2 = t.optim.Adam(n.b.parameters(), lr=0.01)

    @jit
    def step(x, k):
        l = (n(x) ** 2).mean()
        l.backward()
        (o1 if k else o2).step()
        (o1 if k else o2).zero_grad()
        return l

    r = [step(t.tensor(x), i % 2 == 0).item() for i, x in enumerate(XS[:8])]
    return r + fin(n) + [p.grad is None or p.grad.numpy() for p in n.parameters()]


@program
def gan(t, jit):
    g, d = net(t), net(t)
    og = t.optim.Adam(g.parameters(), lr=0.02)
    od = t.optim.Adam(d.parameters(), lr=0.02)

    @jit
    def dstep(x, z):
        od.zero_grad()
        f = g(z).detach()
        l = t.nn.functional.softplus(-d(x)).mean() + t.nn.functional.softplus(d(f)).mean()
        l.backward()
        od.step()
        return l

    @jit
    def gstep(z):
        og.zero_grad()
        for p in d.parameters():
            p.requires_grad_(False)
        l = t.nn.functional.softplus(-d(g(z))).mean()
        l.backward()
        og.step()
        for p in d.parameters():
            p.requires_grad_(True)
        return l

    r = []
    for i in range(5):
        r += [dstep(t.tensor(XS[i]), t.tensor(XS[i + 1])).item(), gstep(t.tensor(XS[i + 2])).item()]
    return r + fin(g) + fin(d)


@program
def target_network(t, jit):
    q = net(t)
    tq = copy.deepcopy(q)
    tq.requires_grad_(False)
    o = t.optim.Adam(q.parameters(), lr=0.05)

    @jit
    def step(x, y):
        with t.no_grad():
            tgt = tq(y)
        l = ((q(x) - tgt) ** 2).mean()
        o.zero_grad()
        l.backward()
        o.step()
        with t.no_grad():
            for a, b in zip(tq.parameters(), q.parameters(), strict=False):
                a.data.mul_(0.9)
                a.data.add_(b.data, alpha=0.1)
        return l

    r = []
    for i in range(6):
        if i == 3:
            tq.load_state_dict(q.state_dict())
        r.append(step(t.tensor(XS[i]), t.tensor(XS[i + 1])).item())
    return r + fin(q) + fin(tq)


@program
def accumulated(t, jit):
    n = net(t)
    o = t.optim.SGD(n.parameters(), lr=0.1)

    @jit
    def micro(x):
        l = (n(x) ** 2).mean() / 2
        l.backward()
        return l

    r = []
    for i, x in enumerate(XS[:8]):
        r.append(micro(t.tensor(x)).item())
        if i % 2:
            o.step()
            o.zero_grad(set_to_none=i % 4 == 1)
    return r + fin(n)


@program
def modes(t, jit):
    n = t.nn.Sequential(t.nn.Linear(4, 5), t.nn.BatchNorm1d(5), t.nn.ReLU(), t.nn.Linear(5, 4))
    with t.no_grad():
        n[0].weight.copy_(t.tensor(W1))
        n[3].weight.copy_(t.tensor(W2))
        n[0].bias.zero_()
        n[3].bias.zero_()
    o = t.optim.SGD(n.parameters(), lr=0.1)

    step = stepping(n, o, jit)

    r = []
    for i, x in enumerate(XS[:8]):
        if i == 2:
            n.eval()
        if i == 4:
            n.train()
            n[1].eval()
        if i == 5:
            n[1].momentum = 0.5
            n.train()
        if i == 6:
            n[1].reset_running_stats()
        r.append(step(t.tensor(x)).item())
    return r + fin(n)


@program
def lists_of_parameters(t, jit):
    ws = [t.tensor(W1).requires_grad_(), t.tensor(W2).requires_grad_()]

    @jit
    def step(x):
        y = t.tanh(x @ ws[0].T) @ ws[1].T
        l = (y**2).mean()
        gs = t.autograd.grad(l, ws)
        with t.no_grad():
            for w, g in zip(ws, gs, strict=False):
                w.sub_(0.1 * g)
        return l

    r = []
    for i, x in enumerate(XS[:6]):
        if i == 3:
            ws[0] = (ws[0].detach() * 0.5).requires_grad_()
        r.append(step(t.tensor(x)).item())
    return r + [w.detach().numpy() for w in ws]


@program
def hooks(t, jit):
    n = net(t)
    h = n.a.weight.register_hook(lambda g: g * 2)
    o = t.optim.SGD(n.parameters(), lr=0.1)

    step = stepping(n, o, jit)

    r = []
    for i, x in enumerate(XS[:6]):
        if i == 3:
            h.remove()
        r.append(step(t.tensor(x)).item())
    return r + fin(n)


@program
def ema(t, jit):
    n = net(t)
    e = copy.deepcopy(n)
    o = t.optim.Adam(n.parameters(), lr=0.05)

    @jit
    def step(x):
        o.zero_grad()
        l = (n(x) ** 2).mean()
        l.backward()
        o.step()
        with t.no_grad():
            for a, b in zip(e.state_dict().values(), n.state_dict().values(), strict=False):
                a.copy_(0.9 * a + 0.1 * b)
        return l

    r = [step(t.tensor(x)).item() for x in XS[:5]]
    msd = n.state_dict()
    for k, v in e.state_dict().items():
        if v.dtype.is_floating_point if t is torch else v.dtype.is_float:
            v *= 0.5
            v += (1 - 0.5) * msd[k].detach()
    return r + fin(n) + fin(e)


@program
def stored_activations(t, jit):
    n = t.nn.Sequential(t.nn.Linear(4, 5, bias=False), t.nn.ReLU(inplace=True))
    with t.no_grad():
        n[0].weight.copy_(t.tensor(W1))

    @jit
    def f(x):
        h = n[0](x)
        y = n[1](h)
        z = t.nn.functional.leaky_relu(h - 1, inplace=True)
        return h.sum() + y.sum() * 2 + z.sum()

    r = [f(t.tensor(x)).item() for x in XS[:2]]
    return r


@program
def penalised(t, jit):
    n = net(t)
    o = t.optim.SGD(n.parameters(), lr=0.05)

    @jit
    def step(x):
        x = x.detach().requires_grad_()
        o.zero_grad()
        y = n(x).sum()
        (g,) = t.autograd.grad(y, x, create_graph=True)
        l = ((g.norm(dim=1) - 1) ** 2).mean()
        l.backward()
        o.step()
        return l

    return [step(t.tensor(x)).item() for x in XS[:4]] + fin(n)


WAYS = {"eager": ("numpy", lambda f: f), "jit": ("numpy", md.jit), "torch": ("torch", md.jit)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_training_does_what_it_does_in_pytorch(name, way):
    f = PROGRAMS[name]
    torch.manual_seed(0)
    want = f(torch, lambda g: g)
    backend, jit = WAYS[way]
    with md.use_backend(backend):
        got = f(md, jit)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        if b is not None:
            a, b = np.asarray(a), np.asarray(b)
            assert a.shape == b.shape and (a.dtype == b.dtype or not b.ndim)
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
