"""What makes eager mode quick must not show: compiled updates, fused kernels, and what is decided by looking at values."""

import copy
import gc
import weakref

import numpy as np
import pytest

import minidl as md
from minidl.optim import programs as room

BACKENDS = ("numpy", "torch", "jax")


def weights(n=2):
    rng = np.random.default_rng(0)
    params = [md.nn.Parameter(md.tensor(rng.normal(size=(3, 4)).astype(np.float32))) for _ in range(n)]
    for p in params:
        p.grad = md.tensor(rng.normal(size=(3, 4)).astype(np.float32))
    return params


def walk(optimizer, step, steps=4):
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        step()
    return [p.detach().numpy().copy() for p in optimizer.param_groups[0]["params"]]


# ---- the optimizer's step is one program ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [lambda p: md.optim.SGD(p, momentum=0.9, dampening=0.5), lambda p: md.optim.AdamW(p)], ids=["sgd", "adamw"])
def test_a_compiled_step_is_the_step(backend, make):
    with md.use_backend(backend):
        whole, single = make(weights()), make(weights())
        for a, b in zip(walk(whole, whole.step), walk(single, single._step_all), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
        for a, b in zip(whole.state.values(), single.state.values(), strict=True):
            for k in b:
                np.testing.assert_allclose(a[k].numpy(), b[k].numpy(), rtol=2e-6, atol=1e-7)
        assert room.known[whole].compiles <= 2  # the first step with dampening makes the buffers


def test_sgd_keeps_every_bit_but_for_torchs_kernel():
    for backend in ("numpy", "torch"):
        with md.use_backend(backend):
            whole, single = (md.optim.SGD(weights(), momentum=0.9, nesterov=True, weight_decay=0.01) for _ in range(2))
            for a, b in zip(walk(whole, whole.step), walk(single, single._step_all), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shared", [False, True])
def test_torchs_kernel_for_sgd(shared):
    with md.use_backend("torch"):
        both = []
        for _ in range(2):
            p = md.nn.Parameter(md.reshape(md.arange(6400.0) / 6400, (80, 80)))
            p.grad = md.reshape(md.sin(md.arange(6400.0)), (80, 80))
            both.append(md.optim.SGD([p], momentum=0.9, weight_decay=0.1))
        whole, single = both
        kept = [t for t in (whole.param_groups[0]["params"][0].detach(), *whole.state_dict()["state"][0].values()) if shared]
        values = [t.numpy() for t in kept]
        for a, b in zip(walk(whole, whole.step), walk(single, single._step_all), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
        assert "sgd_step" in {e.primitive.name for e in steps_on_torch(whole)}
        for t, v in zip(kept, values, strict=True):
            np.testing.assert_array_equal(t.numpy(), v)


def test_small_parameters_share_a_call_of_torchs_kernel_for_sgd():
    from minidl.rewrites.updates.on_torch import sgd_step

    with md.use_backend("torch"):
        both = []
        for _ in range(2):
            ps = [md.nn.Parameter(md.sin(md.arange(float(n)))) for n in (3, 4, 5, 6, 2**18 + 1, 2)]
            ps[1] = md.nn.Parameter(md.arange(6.0).reshape((2, 3)))
            for p in ps:
                p.grad = md.cos(md.ones(p.shape) + p.detach())
            ps[1].grad = md.arange(6.0).reshape((3, 2)).T  # which is not contiguous
            groups = [{"params": ps[:3]}, {"params": ps[3:], "lr": 0.5}]
            both.append((ps, md.optim.SGD(groups, lr=0.1, momentum=0.9)))
        (mine, whole), (theirs, single) = both
        for _ in range(3):
            whole.step(), single._step_all()
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6, atol=1e-7)
        steps = [e for e in steps_on_torch(whole) if e.primitive.name == "sgd_step"]
        assert [[v.shape[0] for v in e.outputs] for e in steps] == [[3, 2, 5] * 2, [6] * 2, [2**18 + 1] * 2, [2] * 2]
        for a, b in zip(whole.state_dict()["state"].values(), single.state_dict()["state"].values(), strict=True):
            np.testing.assert_allclose(a["momentum_buffer"].numpy(), b["momentum_buffer"].numpy(), rtol=1e-6, atol=1e-7)
        arrays = [md.arange(float(n)).payload + 1.0 for n in (3, 4) * 3]
        p, q, a, b = sgd_step(*arrays, 0.0, 0.5, into=(None,) * 4)  # a number that the kernel does not take
        assert p.tolist() == [0.5, 1.0, 1.5] and q.tolist() == [0.5, 1.0, 1.5, 2.0] and a is not arrays[2]
        assert a.tolist() == [1.0, 2.0, 3.0] and b.tolist() == [1.0, 2.0, 3.0, 4.0]


def steps_on_torch(optimizer):
    from minidl.backends.torch_rewrite import rewritten

    return rewritten(md.jit(room.optimizer_step).lower(optimizer), "cpu").equations


def steps_of(jitted):
    from minidl.backends.torch_rewrite import rewritten

    return rewritten(jitted.programs[-1].graph, "cpu").equations


def test_a_class_of_the_users_runs_as_python_at_every_step():
    seen = []

    class Loud(md.optim.SGD):
        def _update(self, p, grad, group, state):
            seen.append(float(grad.sum().item()))
            return super()._update(p, grad, group, state)

    optimizer = Loud(weights(1), lr=0.1)
    for _ in range(3):
        optimizer.step()
    assert len(seen) == 3 and optimizer not in room.known


def test_what_changes_at_every_step_stops_the_compiling():
    p, q = weights()
    optimizer = md.optim.SGD([p, q], lr=0.5)
    start = p.detach().numpy().copy()
    for i in range(room.MOST + 4):
        optimizer.note = i  # jit guards the attributes of an optimizer
        optimizer.step()
    assert room.known[optimizer].compiles == room.MOST + 1
    np.testing.assert_allclose(p.detach().numpy(), start - 0.5 * (room.MOST + 4) * p.grad.numpy(), rtol=1e-5)


def test_gradients_that_come_and_go():
    p, q = weights()
    optimizer = md.optim.SGD([p, q], lr=1.0)
    kept, there, value = q.grad, p.detach(), q.detach().numpy().copy()
    optimizer.step()
    q.grad = None
    optimizer.step()
    q.grad = kept
    optimizer.step()
    np.testing.assert_allclose(q.detach().numpy(), value - 2 * kept.numpy(), rtol=1e-6)
    np.testing.assert_allclose(p.detach().numpy(), there.numpy() - 3 * p.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_shows_in_nothing_that_was_read_before(backend):
    with md.use_backend(backend):
        p = md.nn.Parameter(md.ones((600, 600)))  # large enough that a program would write over it
        optimizer = md.optim.SGD([p], lr=0.5, momentum=0.9)
        p.grad = md.ones((600, 600))
        optimizer.step()
        before, shared, copied = p.detach(), p.detach().numpy(), optimizer.state_dict()
        loss = (p * p).sum()
        optimizer.step()
        assert before.numpy()[0, 0] == shared[0, 0] == 0.5
        assert copied["state"][0]["momentum_buffer"].numpy()[0, 0] == 1.0
        p.grad = None
        loss.backward()  # of the values that the forward pass saw
        assert p.grad.numpy()[0, 0] == 1.0


def test_optimizers_are_copied_and_freed():
    optimizer = md.optim.Adam(weights())
    optimizer.step()
    other = copy.deepcopy(optimizer)
    other.step()
    assert other.state_dict()["state"][0]["step"].item() == 2 and optimizer.state_dict()["state"][0]["step"].item() == 1
    watch = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert watch() is None


# ---- updates that are one kernel write over nothing that is read -------------------------------------------------------------------------
def written(p, g):
    d = p * 0.1 + g
    return p - d * 0.5, d


def leaving(x, g):
    p = md.exp(x) + 1.0
    return written(p, g)


def from_its_own_buffer(b, g):
    d = b * 0.9 + g
    return d - d * 0.05


def twice(p, q, b, g):
    d = b * 0.9 + g
    return p - d * 0.1, q - d * 0.2, d


def from_its_product(p, m, v):
    g = v * 0.9
    square = g + g * g * 0.1
    mean = m + (g - m) * 0.1
    return p - mean / (md.sqrt(square) + 0.1) * 0.01, mean, square


CASES = {
    "a parameter made in the program": (2, lambda a, b: md.maximum(b, 0.1) - (b * 0.1 + a) * 0.5, ()),
    "a direction that leaves": (2, leaving, ()),
    "a parameter that is its buffer": (2, written, ()),
    "the same, donated": (2, written, (0,)),
    "a weight decay of 0 at run time": (2, lambda p, g, *, rate=0.1, decay=0.0: p - rate * (decay * p + g), ()),
    "a momentum of 0 at run time": (3, lambda p, b, g, *, rate=0.1, momentum=0.0: (p - rate * (b * momentum + g), b * momentum + g), (0, 1)),
    "a parameter that is the new buffer": (2, from_its_own_buffer, ()),
    "a buffer of two parameters": (4, twice, (0, 1, 2)),
    "a gradient made of the old square": (3, from_its_product, (0, 1, 2)),
}


@pytest.mark.parametrize("backend", [*BACKENDS, "numba"])
def test_results_of_what_looks_like_an_update_are_the_equations(backend):
    rng = np.random.default_rng(0)
    draw = lambda n: [md.tensor(np.abs(rng.normal(size=(128, 128))).astype(np.float32)) for _ in range(n)]
    with md.use_backend(backend):
        for name, (n, f, donate) in CASES.items():
            numbers = dict(f.__kwdefaults__ or {})
            jitted, seen = md.jit(f, donate=donate), []
            for _ in range(3):
                xs = draw(n)
                want = f(*xs, **numbers)
                seen.append((want, jitted(*[x * 1.0 for x in xs], **numbers)))
            for want, got in seen:
                for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (want, got)), strict=True):
                    np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=2e-5, atol=2e-6, err_msg=name)
        p, g = draw(2)
        value = p.numpy().copy()

        def step():
            new, d = written(p, g)
            p.assign(new)
            return d

        step, seen = md.jit(step), []
        for _ in range(4):
            want = value * np.float32(0.1) + g.numpy()
            value = value - want * np.float32(0.5)
            seen.append((step(), want))
        for got, want in seen:
            np.testing.assert_allclose(got.numpy(), want, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(p.numpy(), value, rtol=2e-5, atol=2e-6)


def random_program(seed):
    """A function of three arrays of any sign and two that are never negative, all state, and of an input: the new state, and two results."""
    rng = np.random.default_rng(seed)
    plan = [(rng.integers(9), *rng.integers(0, 1 << 16, 4)) for _ in range(rng.integers(3, 9))]
    ends = rng.integers(0, 1 << 16, 7)

    def f(x, *state):
        values, squares = [*state[:3], x], list(state[3:])
        for op, *picks in plan:
            a, b, c, _ = (values[i % len(values)] for i in picks)
            v = squares[picks[3] % len(squares)]
            if op < 2:
                d = b * 0.9 + c
                values += [d, a - d * 0.05]
            elif op < 4:
                square, mean = v * 0.9 + c * c * 0.1, b + (c - b) * 0.1
                squares.append(square)
                values += [mean, a * 0.99 - mean / (md.sqrt(square) + 0.1) * 0.01]
            elif op == 4:
                values.append(md.maximum(a, 0.1))
            elif op == 5:
                values.append(md.flip(a, 0) if picks[3] % 2 else a.mT)
            elif op == 6:
                values.append(md.tanh(a) * b)
            elif op == 7:
                squares.append(md.abs(a))
            else:
                values.append(a.sum(0) * 0.01 + b)
        last = [xs[-1 - i % min(4, len(xs))] for xs, i in zip((values,) * 3 + (squares,) * 2 + (values,) * 2, ends, strict=True)]
        return last[:5], (last[5], last[6].sum(1))

    return f


@pytest.mark.parametrize("way", ["state", "donated"])
def test_random_programs_of_updates_write_over_nothing_that_is_read(way):
    pytest.importorskip("torch")
    found = set()
    start = [np.random.default_rng(k).normal(size=(128, 128)).astype(np.float32) for k in range(8)]
    for seed in range(60):
        f, seen = random_program(seed), []
        with md.use_backend("torch"):
            fresh = lambda: [md.tensor(np.abs(x) if i > 2 else x) for i, x in enumerate(start[:5])]
            eager, state = fresh(), fresh()
            jitted = donated = md.jit(f, donate=range(1, 6))

            def step(x, f=f, state=state):
                new, results = f(x, *state)
                new, results = [v.detach() for v in new], [v.detach() for v in results]  # any may be a state itself
                for p, value in zip(state, new, strict=True):
                    p.assign(value)
                return results

            if way == "state":
                jitted = md.jit(step)
            for call in range(3):
                x = md.tensor(start[5 + call])
                eager, want = f(x, *eager)
                if way == "state":
                    got = jitted(x)
                else:
                    state, got = donated(x, *[s * 1.0 if call == 1 else s for s in state])
                    state = list(state)
                held = [p.detach() for p in state] if call != 1 else []
                seen += zip((*want, *eager[: len(held)]), (*got, *held), strict=True)
                seen.append((md.tensor(start[5 + call].copy()), x))
            found |= {e.primitive.name for e in steps_of(jitted)}
        for k, (want, got) in enumerate(seen):
            a, b = want.numpy(), got.numpy()
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * max(1e-6, np.abs(a).max()), err_msg=f"seed {seed}, value {k}")
    assert {"sgd_step", "adam_step"} <= found


# ---- several steps as one call of a library ---------------------------------------------------------------------------------------------
def agree(f, arrays, cotangent=None):
    """Gradients on the tape and those of a traced function, which sees the single steps, bit for bit but for rounding."""
    xs = [md.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y = f(*xs)
    n = sum(x.requires_grad for x in xs)
    seed = md.ones(()) if cotangent is None else md.tensor(cotangent)
    eager = md.autograd.grad(y, xs[:n], seed)
    traced = md.jit(lambda *v: md.vjp(lambda *u: f(*u, *v[n:]), *v[:n])[1](seed))(*[x.detach() for x in xs])
    for a, b in zip(eager, traced if isinstance(traced, tuple) else (traced,), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_relu_and_cross_entropy_at_the_edges(backend):
    nan, inf = np.nan, np.inf
    rng = np.random.default_rng(0)
    with md.use_backend(backend):
        x, g = (rng.normal(size=(64, 128)).astype(np.float32) for _ in range(2))
        x[0, :5], g[0], g[1] = (nan, inf, -inf, 0.0, -0.0), inf, nan
        agree(md.relu, [x], g)
        agree(md.relu, [x[:2, :6]], g[:2, :6])
        z, y = rng.normal(size=(6, 5)).astype(np.float32), np.array([0, 1, 2, 3, 4, 0])
        rows = [z, z.copy(), z.copy(), z.copy()]
        rows[1][1, 2], rows[2][1:3, 2], rows[3][3], rows[3][4, 4] = nan, inf, -inf, -inf
        for z in rows:
            for target, ignored in ((y, -100), (np.where(y == 4, -100, y), -100), (y, 2)):
                agree(lambda a, t, i=ignored: md.nn.functional.cross_entropy(a, t, ignore_index=i), [z, target])
        with pytest.raises(IndexError, match="class 5"):
            md.nn.functional.cross_entropy(md.tensor(z), md.tensor([0, 1, 5, 0, 0, 0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_layers_with_a_bias(backend):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    with md.use_backend(backend):
        for x in (draw(3), draw(2, 3), draw(2, 2, 3)):
            agree(lambda x, w, b: (md.nn.functional.linear(x, w, b) ** 2).sum(), [x, draw(4, 3), draw(4)])
            agree(lambda x, w: (md.nn.functional.linear(x, w) ** 2).sum(), [x, draw(4, 3)])
        window = {"stride": 2, "padding": 1}
        agree(lambda x, w, b: (md.nn.functional.conv2d(x, w, b, **window) ** 2).sum(), [draw(2, 2, 5, 4), draw(3, 2, 3, 3), draw(3)])
        for bad in (md.ones(3), md.ones((4, 1))):
            with pytest.raises(ValueError, match=r"^affine: f32\[2,3\] with weight f32\[4,3\] and bias"):
                md.affine(md.ones((2, 3)), md.ones((4, 3)), bad)
        texts = []
        for f in (md.nn.functional.linear, md.jit(lambda *a: md.nn.functional.linear(*a))):
            with pytest.raises(ValueError, match="inner dimensions differ") as error:
                f(md.ones((2, 5)), md.ones((4, 3)), md.ones(4))
            texts.append(str(error.value))
        assert texts[0] == texts[1]


def test_several_arrays_in_other_dtypes_take_the_general_way():
    x = md.ones((2, 3), dtype=md.float64)
    assert md.affine(x, md.ones((4, 3)), md.ones(4)).dtype is md.float64
    assert md.affine(md.ones((2, 3), dtype=md.int32), md.ones((4, 3), dtype=md.int32), md.ones(4, dtype=md.int32)).tolist() == [[4] * 4] * 2
    with pytest.raises(RuntimeError, match="two backends"):
        md.affine(md.ones((2, 3), backend="numpy"), md.ones((4, 3), backend="torch"), md.ones(4, backend="numpy"))


# ---- what torch is asked before anybody looks --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rows", [5, 40_000])  # few elements, and so many that places are looked at first
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16", "bool", "complex64"])
def test_places_outside_are_what_they_are_on_numpy(dtype, rows):
    from minidl.backends import get

    r = np.random.default_rng(1)
    x = r.integers(0, 2, (rows, 2)).astype(dtype)
    u = r.integers(0, 2, (6, 2)).astype(dtype)
    homes = [get("numpy"), get("torch")]
    d = getattr(md, dtype)
    for places in ([0, 1, rows - 1, 1, 2, 0], [0, rows, 1, 1, 2, 0], [0, 1, -1, 1, 2, 0], [2**40, -(2**40), 0, 0, 0, 0]):
        along = np.stack([places, places[::-1]], 1)
        for call in (
            lambda xp, x, u, i, j: xp.gather(x, i),
            lambda xp, x, u, i, j: xp.gather(x, j),
            lambda xp, x, u, i, j: xp.take_along(x, j, axis=0),
            *((lambda xp, x, u, i, j: xp.put_along(x, j, u, axis=0, mode="add"),) if dtype != "bool" else ()),
            *((lambda xp, x, u, i, j, m=m: xp.scatter(x, u, i, mode=m)) for m in ("add", "set")[dtype == "bool" :]),
        ):
            want, got = (
                xp.to_numpy(call(xp, *(xp.asarray(a, d) for a in (x, u)), *(xp.asarray(np.asarray(a), md.int64) for a in (places, along))))
                for xp in homes
            )
            np.testing.assert_array_equal(want, got)


@pytest.mark.parametrize("backend", BACKENDS)
def test_joining_on_the_straight_line_is_the_general_way(backend):
    with md.use_backend(backend):
        a, b, n = md.ones((2, 3)).requires_grad_(), md.zeros((2, 1)), md.ones((2, 1), dtype=md.int32)
        with pytest.raises(ValueError, match="concat: shapes differ outside axis 1"):
            md.concat((md.ones((0,)), a)[::-1], axis=1)
        assert md.concat((a, n), axis=1).dtype is md.float32 and md.concat((n, n)).dtype is md.int32
        with md.no_grad():
            assert not md.concat((a, b), axis=1).requires_grad
        assert not md.concat((n, n)).requires_grad
        out = md.concat((a * a, b, a), axis=1)
        (first,) = md.autograd.grad((out * out).sum(), a, create_graph=True)
        (second,) = md.autograd.grad(first.sum(), a)
        assert first.tolist() == [[6.0] * 3] * 2 and second.tolist() == [[14.0] * 3] * 2
        assert md.jit(lambda a, b: md.concat((a, b), axis=1))(a, b).tolist() == md.concat((a, b), axis=1).tolist()
        if backend == "torch":
            with pytest.raises(RuntimeError, match="two backends"):
                md.concat((b, md.ones((2, 1), backend="numpy")))


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_among_several_arrays_promote_as_ever(backend):
    with md.use_backend(backend):
        i, x, yes = md.tensor([1, 2]), md.tensor([1.0, 2.0]), md.tensor([True, False])
        assert md.where(yes, i, 1.5).dtype is md.float32 and md.where(yes, i, 3).tolist() == [1, 3]
        assert md.where(yes, yes, 2).dtype is md.int64 and md.where(yes, x, 2).dtype is md.float32
        big = md.tensor([1, 2], dtype=md.int8)
        with pytest.raises(OverflowError):
            md.where(yes, big, 300)
        y = md.ones((3, 1)).requires_grad_()
        (md.where(yes, y, x) * x).sum().backward()
        assert y.grad.tolist() == [[1.0]] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_stored_in_a_slice(backend):
    """paste: eager one call, traced its steps; nan around it stays where it is, and what was read before shows nothing."""
    with md.use_backend(backend):
        x = md.tensor([[1.0, float("nan"), -0.0], [float("inf"), 2.0, 3.0]], requires_grad=True)
        v = md.tensor([7.0, 8.0, 9.0], requires_grad=True)

        def f(x, v):
            y = x * 1.0
            before, row = y[1], y[0]
            y[1] = v
            y[-2, 1:] = v[:2] * v[1:]
            return y * md.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), before * 1.0, row

        want = f(x, v), md.grad(lambda x, v: f(x, v)[0].sum(), argnums=(0, 1))(x, v)
        for other in (md.jit(f)(x, v), md.jit(md.grad(lambda x, v: f(x, v)[0].sum(), argnums=(0, 1)))(x, v)):
            for a, b in zip(md.tree.leaves(want[len(other) == 2]), md.tree.leaves(other), strict=True):
                np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
        y, before, row = want[0]
        assert y.tolist() == [[1.0, 112.0, 216.0], [28.0, 40.0, 54.0]] and before.tolist() == [float("inf"), 2.0, 3.0]
        assert np.signbit(row.detach().numpy()).tolist() == [False, False, True] and np.isnan(row.detach().numpy()[1])
        assert want[1][0].tolist() == [[1.0, 0.0, 0.0], [0.0] * 3] and want[1][1].tolist() == [4.0 + 16.0, 5.0 + 14.0 + 27.0, 6.0 + 24.0]
        assert md.vmap(lambda v: f(x.detach(), v)[0])(md.stack([v.detach(), v.detach()]))[1].tolist() == y.tolist()
        second = md.hessian(lambda v: f(x.detach(), v)[0].sum())(v.detach())
        assert second.tolist() == [[0.0, 2.0, 0.0], [2.0, 0.0, 3.0], [0.0, 3.0, 0.0]]
        assert md.jvp(lambda v: f(x.detach(), v)[0], (v.detach(),), (md.ones(3),))[1].tolist() == [[0.0, 30.0, 51.0], [4.0, 5.0, 6.0]]
        with pytest.raises(IndexError, match="index 2 is out of bounds for axis 0 with size 2"):
            x.detach()[2] = 1.0
        with pytest.raises(ValueError, match="broadcast"):
            x.detach()[0] = md.ones(2)
        z = md.zeros((2, 0))
        z[1] = 1.0
        assert z.shape == (2, 0)


SHORT = [((6000, 3), (1,)), ((3, 4000, 2), (0, 2)), ((9000, 2), (0, 1)), ((4, 2000, 4), (-1,)), ((8192, 1, 4), (1, 2))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), SHORT)
def test_sums_over_many_short_rows(dtype, shape, axis):
    """torch's loop over a short row costs more than the sums of whole columns; nan, infinities and zeros are those of NumPy."""
    r = np.random.default_rng(2)
    x = r.integers(-3, 4, shape).astype(dtype)
    x[1], x[2:4] = -0.0, 0.0
    x.reshape(-1)[[0, -1]] = np.nan, np.inf
    for value in (x, x[::-1], np.asfortranarray(x)):
        for keepdims in (False, True):
            want = np.sum(value, axis=axis, keepdims=keepdims)
            sum_it = lambda t, k=keepdims: md.sum(t, axis=axis, keepdims=k)
            t = md.tensor(value, backend="torch", requires_grad=True)
            for got in (sum_it(t), md.jit(sum_it)(t.detach())):
                np.testing.assert_array_equal(got.detach().numpy(), want)
                np.testing.assert_array_equal(np.signbit(got.detach().numpy()), np.signbit(want))
    assert (md.grad(lambda t: md.sum(md.sum(t, axis=axis) * 2.0))(md.ones(shape, backend="torch")).numpy() == 2.0).all()


def test_a_choice_among_many_floats_keeps_every_bit():
    """Of so many elements torch's where is bit masks, whatever lies in memory how, also into one of its operands."""
    torch = pytest.importorskip("torch")
    from minidl.backends import get

    choose, n = get("torch").quick.where, 140
    g = torch.Generator().manual_seed(0)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45])
    full = torch.where(torch.rand(n, n, generator=g) < 0.2, odd[torch.randint(0, 5, (n, n), generator=g)], torch.randn(n, n, generator=g))
    numbers = [torch.tensor(v) for v in (-0.0, float("nan"), 2.0)]
    bits = lambda t: t.contiguous().view(torch.int32)
    for c in (full > 0, full.t() > 0):
        for x in (full, full.t(), *numbers):
            for y in (full.flip(0), full.flip(1).t(), *numbers):
                want = bits(torch.where(c, x, y))
                assert torch.equal(bits(choose(c, x, y)), want)
                for out in (torch.empty(n, n), *(v.clone() for v in (x, y) if v.ndim)):
                    a, b = (out if v.ndim and torch.equal(bits(v), bits(out)) else v for v in (x, y))
                    assert torch.equal(bits(choose(c, a, b, out=out)), want)


def test_the_sign_of_many_floats():
    x = np.resize(np.array([1.5, -2.0, 0.0, -0.0, np.inf, -np.inf], np.float32), 5000)
    for last in (1.0, np.nan):  # a sum tells nan from the others, or not: infinities of both signs are nan together
        for value in (x, np.where(np.isinf(x), np.float32(1), x)):
            value = np.append(value, np.float32(last))
            got = md.sign(md.tensor(value, backend="torch")).numpy()
            np.testing.assert_array_equal(got, np.sign(value))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_are_repeated_along_all_axes_at_once(backend):
    with md.use_backend(backend):
        x = md.reshape(md.arange(12.0), (1, 2, 2, 3))
        for factors in ((2, 2), (1, 3), (2, 1), (1, 1)):
            want = np.repeat(np.repeat(x.numpy(), factors[0], 2), factors[1], 3)
            scaled = lambda v, f=factors: md.nn.functional.interpolate(v, scale_factor=f)
            assert (scaled(x).numpy() == want).all() and (md.jit(scaled)(x).numpy() == want).all()
            assert (md.grad(lambda v, s=scaled: md.sum(s(v)))(x).numpy() == factors[0] * factors[1]).all()
        y = md.nn.functional.interpolate(x, scale_factor=1)
        y += 1.0
        assert x[0, 0, 0, 0].item() == 0.0
