"""Arrays change hands without a copy, exactly; tensors whose value lies with another backend behave as if it did not."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import pickle
import signal
import threading
import weakref

import numpy as np
import pytest

import minidl as md
import minidl.handover as handover
import minidl.nn as nn
import minidl.optim as optim
from minidl.backends import get
from minidl.handover import handed, place_all, resident, slot

DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64", "complex64")
CROSSING = [("numpy", "torch"), ("numpy", "jax"), ("torch", "numba"), ("torch", "jax"), ("jax", "numpy"), ("jax", "torch")]


@contextlib.contextmanager
def running(stop, *functions):
    """Run functions in threads until the block ends, which sets `stop`."""
    threads = [threading.Thread(target=f, daemon=True) for f in functions]
    for t in threads:
        t.start()
    try:
        yield
    finally:
        stop.set()
        for t in threads:
            t.join()


def bits(x):
    return np.ascontiguousarray(x.numpy()).tobytes(), x.shape, x.dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("have", "want"), [("numpy", "torch"), ("numpy", "jax"), ("torch", "jax"), ("numba", "torch")])
def test_every_dtype_arrives_with_its_bits(have, want, dtype):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 100, size=(3, 4)) if dtype != "bool" else rng.integers(0, 2, size=(3, 4))
    if dtype == "int64":
        numbers = numbers + 2**40
    if dtype.startswith(("float", "bfloat", "complex")):
        numbers = np.array([[0.1, -0.0, np.inf], [np.nan, 3.3, -7.7]])
    x = md.asarray(numbers, backend=have).to(dtype)
    for v in (x, x[0, 1], md.matrix_transpose(x), md.flip(x), x[:0]):
        moved = v.to(backend=want)
        assert moved.backend == want and moved.dtype is v.dtype
        assert bits(moved) == bits(v) and bits(moved.to(backend=have)) == bits(v)


@pytest.mark.parametrize(("have", "want"), [("numpy", "torch"), ("torch", "numpy"), ("jax", "numpy"), ("jax", "torch"), ("numpy", "numba")])
def test_cpu_memory_is_shared(have, want):
    native = md.ones((1000,), backend=have).payload if have != "jax" else md.jit(lambda x: x + 1.0)(md.ones((1000,), backend="jax")).payload
    a, b = get(have).to_numpy(native), get(want).to_numpy(handed(native, get(have), get(want)))
    assert np.shares_memory(a, b)


def test_aligned_numpy_memory_is_shared_with_jax():
    block = np.zeros(64 * 100, np.uint8)
    start = -block.ctypes.data % 64
    aligned = block[start : start + 4000].view(np.float32)
    native = handed(aligned, get("numpy"), get("jax"))
    assert native.unsafe_buffer_pointer() == aligned.ctypes.data


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool"])
@pytest.mark.parametrize(("home", "engine"), CROSSING)
def test_results_belong_to_the_backend_of_the_inputs(home, engine, dtype):
    x = md.asarray(np.arange(6.0).reshape(2, 3) % 2, backend=home).to(dtype)
    f = md.jit(lambda x, k: (md.where(x > 0, x, x) if x.dtype is md.bool else x + x * k, {"sum": x.to("float64").sum()}), backend=engine)
    for _ in range(2):
        a, rest = f(x, 2)
        assert (a.backend, a.shape, a.dtype) == (home, (2, 3), x.dtype)
        assert rest["sum"].dtype is md.float64 and rest["sum"].item() == 3.0
        assert bits(a) == bits(x + x * 2 if x.dtype is not md.bool else x)
        a = a + a  # an eager operation of the home backend
        assert a.backend == home
    assert f.compiles == 1


@pytest.mark.parametrize(("home", "engine"), [*CROSSING, ("numpy", "numba")])
def test_gradients_through_a_program_that_ran_elsewhere(home, engine):
    data = np.array([0.5, -1.0, 2.0])
    x, w = (md.tensor(data, backend=home, requires_grad=True) for _ in range(2))
    f = md.jit(lambda x: (md.sin(x) * w, x * x), backend=engine)
    a, b = f(x)
    (a.sum() + b.sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos(data) * data + 2 * data, rtol=1e-9)
    np.testing.assert_allclose(w.grad.numpy(), np.sin(data), rtol=1e-9)
    assert x.grad.backend == home
    g = md.jit(lambda x: (x * x * x).sum(), backend=engine)
    np.testing.assert_allclose(md.grad(md.grad(lambda x: g(x)))(md.tensor(2.0, backend=home)).item(), 12.0)
    np.testing.assert_allclose(md.jvp(g, (x.detach(),), (md.ones_like(x.detach()),))[1].item(), (3 * data**2).sum())


def training(home, engine, steps=6, look=lambda net, opt: None):
    with md.use_backend(home):
        md.manual_seed(1)
        net = nn.Sequential(nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.25), nn.Linear(7, 3))
        opt = optim.AdamW(net.parameters(), lr=0.01)
        rng = np.random.default_rng(0)

        def step(x, y):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            return loss

        run = md.jit(step, backend=engine) if engine else step
        losses = []
        for _ in range(steps):
            losses.append(run(md.asarray(rng.normal(size=(16, 5)).astype(np.float32)), md.asarray(rng.integers(0, 3, size=16))).item())
            look(net, opt)
    return losses, net, opt, run


@pytest.mark.parametrize(("home", "engine"), CROSSING)
def test_training_state_stays_with_the_engine_until_it_is_read(home, engine):
    eager = training(home, None)
    losses, net, opt, run = training(home, engine)
    assert run.compiles <= 2
    weights = list(net.parameters())
    there = get(engine).is_native
    assert all(there(slot(p)) for p in weights) and all(there(slot(m)) for s in opt.state.values() for m in s.values())
    np.testing.assert_allclose(losses, eager[0], rtol=2e-4)
    for (name, p), q in zip(net.named_parameters(), eager[1].parameters(), strict=True):
        assert p.__class__ is nn.Parameter and isinstance(p, nn.Parameter) and p.shape == q.shape and p.backend == home
        assert there(slot(p)), "shape, class and backend are known without reading"
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
        assert get(home).is_native(slot(p)) and type(p) is nn.Parameter


def _peek_state_dict(net, opt):
    copy.deepcopy((net.state_dict(), opt.state_dict()))


def _peek_pickle(net, opt):
    for p in net.parameters():
        twin = pickle.loads(pickle.dumps(p))
        assert type(twin) is nn.Parameter and twin.requires_grad and twin.tolist() == p.tolist()


def _peek_repr(net, opt):
    assert all(repr(p).startswith("Parameter containing") and repr(p) != "" for p in net.parameters())


def _peek_update(net, opt):
    with md.no_grad():
        for p in net.parameters():
            p.assign(p * 1.0)


def _peek_eager(net, opt):
    net.eval()
    assert net(md.ones((2, 5))).shape == (2, 3)
    net.train()


def _peek_other_programs(net, opt):
    net.eval()
    x = md.ones((2, 5))
    seen = [md.jit(lambda x: net(x), backend=b)(x).detach().numpy() for b in ("numpy", "torch", "jax", None)]
    net.train()
    for other in seen[1:]:
        np.testing.assert_allclose(other, seen[0], rtol=1e-4, atol=1e-5)


def _peek_module_copy(net, opt):
    for twin in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [p.tolist() for p in twin.parameters()] == [p.tolist() for p in net.parameters()]


PEEKS = [_peek_state_dict, _peek_pickle, _peek_repr, _peek_update, _peek_eager, _peek_other_programs, _peek_module_copy]


@pytest.mark.parametrize("peek", PEEKS, ids=lambda f: f.__name__[6:])
@pytest.mark.parametrize("engine", ["torch", "jax"])
def test_looking_at_the_state_between_steps_changes_nothing(engine, peek):
    plain, looked = training("numpy", engine, 4), training("numpy", engine, 4, look=peek)
    np.testing.assert_allclose(plain[0], looked[0], rtol=1e-5)
    assert looked[3].compiles == plain[3].compiles
    for p, q in zip(plain[1].parameters(), looked[1].parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_results_handed_to_a_program_of_the_same_engine_do_not_move(monkeypatch):
    f = md.jit(lambda s, x: s * 0.5 + x, backend="jax")
    x = md.ones((64,), backend="numpy")
    s = f(x, x)

    def refuse(*args):
        raise AssertionError("an array was moved")

    monkeypatch.setattr("minidl.handover.handed", refuse)
    for _ in range(3):
        s = f(s, x)
    monkeypatch.undo()
    assert s.tolist() == [1.9375] * 64


def test_a_tensor_class_with_a_mind_of_its_own_is_not_given_a_twin():
    seen = []

    class Counted(md.Tensor):
        def __init_subclass__(cls, **kwargs):
            seen.append(cls)

    made = md.zeros((3,))
    state = Counted(made.payload, made.xp, made.dtype)
    f = md.jit(lambda x: [state.assign(state + x)] and None, backend="torch")
    for _ in range(3):
        f(md.ones((3,)))
    assert resident(Counted, get("torch")) is None and not seen
    assert type(state) is Counted and state.tolist() == [3.0] * 3


def test_readers_in_other_threads_see_whole_values_and_lose_none():
    w = md.zeros((2000,), backend="numpy")
    step = md.jit(lambda: [w.assign(w + 1.0)] and None, backend="torch")
    wrong, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            v = w.numpy()
            if v.min() != v.max():
                wrong.append(v)

    with running(stop, *[read] * 3):
        for _ in range(300):
            step()
    assert not wrong and w.tolist() == [300.0] * 2000


def test_unknown_modes_and_backends_are_errors_that_list_what_there_is():
    x = md.ones((2,), backend="numpy")
    with pytest.raises(ValueError, match=r"'abacus' is unknown; there are numpy, numba, torch, jax"):
        md.jit(lambda x: x, backend="abacus")(x)
    with pytest.raises(ValueError, match=r"the numpy backend has no mode 'turbo'; it has none but None"):
        md.jit(lambda x: x, mode="turbo")(x)


def test_a_mode_reaches_the_backend(monkeypatch):
    xp = get("numpy")
    seen = []
    plain = type(xp).compile

    def compile(self, graph, donate=(), mode=None):
        seen.append(mode)
        return plain(self, graph, donate)

    monkeypatch.setattr(type(xp), "compile", compile)
    monkeypatch.setattr(type(xp), "modes", ("careful",))
    assert md.jit(lambda x: x * 2.0, mode="careful")(md.ones((2,), backend="numpy")).tolist() == [2.0, 2.0]
    assert seen == ["careful"]
    with pytest.raises(ValueError, match="it has 'careful', and None"):
        md.jit(lambda x: x, mode="bold")(md.ones((2,), backend="numpy"))


# ---- state whose memory is used again -----------------------------------------------------------------------------------------------------
N = 2**18 + 3  # float32: over the size from which state is donated


@pytest.mark.parametrize("home", ["jax", "numpy"])
def test_state_is_donated_where_nobody_else_sees_it(home):
    with md.use_backend(home):
        w = md.zeros((N,))
        step = md.jit(lambda x: [w.assign(w * 0.5 + x)] and None, backend="jax")
        x = md.ones((N,))
        step(x)
        places = []
        for _ in range(4):
            places.append(slot(w).unsafe_buffer_pointer())
            step(x)
        assert slot(w).unsafe_buffer_pointer() in places, "the memory of the old state was not used again"
        kept = slot(w)  # now somebody looks
        value = np.array(kept)
        step(x)
        assert not kept.is_deleted() and np.array_equal(np.asarray(kept), value)
        shown = w.detach()
        before = shown.numpy()
        step(x)
        step(x)
        assert np.array_equal(shown.numpy(), before) and not np.array_equal(w.numpy(), before)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch", "jax"])
def test_a_donated_argument_that_another_tensor_shows_is_left_alone(backend):
    f = md.jit(lambda s, x: s * 0.5 + x, donate=(0,))
    with md.use_backend(backend):
        x = md.ones((5000,))
        s = f(x * 10.0, x)
        for value in (6.0, 4.0, 3.0):
            shown = s.detach()
            assert shown[0].item() == value
            s = f(s, x)
            assert np.array_equal(shown.numpy(), np.full(5000, value))


@pytest.mark.parametrize(("home", "engine"), [("jax", None), ("numba", None), ("numpy", None), ("numpy", "jax"), ("numpy", "numba")])
def test_a_thread_that_reads_state_waits_for_the_program_that_writes_over_it(home, engine):
    with md.use_backend(home):
        w, other, plain = md.zeros((N,)), md.zeros((N,)), md.zeros((N,))
        step = md.jit(lambda: [w.assign(w + 1.0)] and None, backend=engine)
        copy = md.jit(lambda: [plain.assign(w * 1.0)] and None, backend=engine)
        second = md.jit(lambda: [other.assign(other + w * 0.0 + 1.0)] and None, backend=engine)
        kept = [step, copy, second]
        for f in kept:
            f()
        stop, errors = threading.Event(), []

        def guarded(f):
            def loop():
                while not stop.is_set():
                    try:
                        f()
                    except Exception as error:
                        errors.append(error)
                        return

            return loop

        def read():
            v = w.numpy()
            assert v.min() == v.max()

        def look():
            copy()
            v = plain.numpy()
            assert v.min() == v.max()

        with running(stop, guarded(read), guarded(look), guarded(second)):
            for _ in range(30):
                step()
        assert not errors and w[0].item() == 31.0 and type(w) is md.Tensor


@pytest.mark.parametrize("home", ["jax", "numba", "numpy"])
def test_state_is_donated_while_another_thread_lives(home):
    stop = threading.Event()
    with md.use_backend(home), running(stop, stop.wait):
        w = md.zeros((N,))
        step = md.jit(lambda: [w.assign(w + 1.0)] and None)
        places = []
        for _ in range(5):
            step()
            places.append(slot(w).unsafe_buffer_pointer() if home == "jax" else slot(w).ctypes.data)
        assert len(set(places[1:])) < 4 and w[0].item() == 5.0


def test_a_program_that_fails_gives_the_tensors_back_that_it_held(monkeypatch):
    from minidl import calls

    stop = threading.Event()
    with md.use_backend("numba"), running(stop, stop.wait):
        w, fails = md.zeros((N,)), [True]
        compile_ = calls.Engine.compile

        def broken(self, graph, donate=()):
            run = compile_(self, graph, donate)

            def call(*args):
                if fails:
                    raise MemoryError
                return run(*args)

            return call

        monkeypatch.setattr(calls.Engine, "compile", broken)
        step = md.jit(lambda: [w.assign(w + 1.0)] and None)
        with pytest.raises(MemoryError):
            step()
        assert type(w) is md.Tensor and w[0].item() == 0.0
        fails.clear()
        step()
        assert w[0].item() == 1.0


def test_a_failing_call_leaves_donated_state_alone():
    with md.use_backend("jax"):
        w = md.zeros((N,))
        step = md.jit(lambda x: [w.assign(w + x.sum())] and None)
        step(md.ones((2,)))
        with pytest.raises(ValueError):
            step(md.zeros((2,)) @ md.zeros((3,)))
        with pytest.raises(ValueError):
            step(md.ones((2,)) + md.ones((3,)))
        step(md.ones((2,)))
        assert w[0].item() == 4.0


# ---- what a program keeps alive -----------------------------------------------------------------------------------------------------------
def test_a_program_does_not_keep_a_module_that_was_its_argument():
    f = md.jit(lambda net, x: net(x))
    x = md.ones((2, 3))
    for _ in range(3):
        net = nn.Linear(3, 3)
        there, weight = weakref.ref(net), weakref.ref(net.weight)
        for _ in range(2):
            f(net, x)
        assert len(f.programs) == 1
        del net
        gc.collect()
        assert there() is None and weight() is None and not f.programs
    assert f.compiles == 3


def test_a_bound_method_as_an_argument_is_one_program():
    net = nn.Linear(3, 3)
    f = md.jit(lambda g, x: g(x))
    x = md.ones((2, 3))
    for _ in range(3):
        assert f(net.forward, x).shape == (2, 3)
    assert f.compiles == 1
    other = nn.Linear(3, 3)
    np.testing.assert_allclose(f(other.forward, x).detach().numpy(), other(x).detach().numpy(), rtol=1e-6)
    assert f.compiles == 2


def test_zeros_of_both_signs_are_two_numbers():
    f = md.jit(lambda x, k: x * float(k))  # float() makes the program one for this number
    x = md.ones((1,))
    assert [str(f(x, k).item()) for k in (0.0, -0.0, 0.0)] == ["0.0", "-0.0", "0.0"]
    assert f.compiles == 2


def test_a_hook_that_would_be_registered_only_once_is_refused():
    w = md.ones((2,)).requires_grad_()
    calls = []

    def leaves_it(x):
        w.register_hook(lambda g: calls.append(1))
        return (w * x).sum()

    with pytest.raises(RuntimeError, match="register it outside"):
        md.jit(leaves_it)(md.ones((2,)))
    (w * 1.0).sum().backward()
    assert not calls

    def takes_it_back(x):
        remove = w.register_hook(lambda g: g * 2.0)
        (w * x).sum().backward()
        remove()

    w.grad = None
    md.jit(takes_it_back)(md.ones((2,)))
    assert w.grad.tolist() == [2.0, 2.0]


def test_pickles_of_results_that_lie_elsewhere():
    y = md.jit(lambda x: x * 2.0, backend="torch")(md.ones((2,), backend="numpy"))
    data = io.BytesIO()
    pickle.dump(y, data)
    assert type(pickle.loads(data.getvalue())) is md.Tensor and pickle.loads(data.getvalue()).tolist() == [2.0, 2.0]
    z = md.jit(lambda x: x * 2.0, backend="jax")(md.ones((2,), backend="numpy"))
    assert np.from_dlpack(z).tolist() == [2.0, 2.0] and np.asarray(z).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("home", ["jax", "torch", "numba"])
def test_ctrl_c_while_state_is_written_over_comes_when_the_new_state_is_stored(home):
    state = [md.zeros((600, 500), backend=home) for _ in range(2)]

    @md.jit
    def step(x):
        with md.no_grad():
            for s in state:
                s.assign(s * 0.5 + x)
        return x

    x = md.ones((500,), backend=home)
    for _ in range(3):  # by then nobody else holds the old state
        step(x)
    space = step.programs[0].call.__globals__
    assert "shield" in space, "the program does not write over its state"
    for name in ("run", "kept"):
        space[name] = interrupted(space[name])
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        step(x)
    assert signal.getsignal(signal.SIGINT) is handler
    for s in state:
        np.testing.assert_array_equal(s.numpy(), np.full((600, 500), 1.875, "float32"))


def interrupted(run):
    """run, at the end of which Ctrl-C is pressed."""

    def then(*args):
        out = run(*args)
        signal.raise_signal(signal.SIGINT)
        return out

    return then


def test_arrays_from_outside_lie_where_every_backend_can_share_them():
    values = np.ones((40, 33), np.float32)
    for data in (values, values[1:], np.ones((50, 50), np.int64)):
        payload = md.asarray(data, backend="numpy").payload
        assert payload.ctypes.data % 64 == 0 and payload.flags.writeable and payload.flags.c_contiguous
    shared = get("jax").adopt(md.tensor(values, backend="numpy").payload)
    assert shared.unsafe_buffer_pointer() % 64 == 0
    t = md.tensor(values, backend="numpy")
    values[:] = 2.0
    assert t.sum().item() == 40 * 33, "a copy all the same"
    turned = np.asfortranarray(np.ones((40, 33)))
    assert md.tensor(turned, backend="numpy").payload.flags.f_contiguous, "in the order that it came"


# ---- many tensors at once -------------------------------------------------------------------------------------------------------------------
class Own(md.Tensor):
    """A class of a user's, with a twin of its own."""


class Counted(md.Tensor):
    """A class that counts its subclasses has no twin: its tensors are handed over at once."""

    kinds = 0

    def __init_subclass__(cls, **options):
        Counted.kinds += 1


def own(kind, values):
    t = md.tensor(np.float32(values), backend="numpy")
    return t if kind is md.Tensor else kind(t) if kind is nn.Parameter else kind(t.payload, t.xp, t.dtype)


@pytest.mark.parametrize("kinds", [(md.Tensor, md.Tensor), (md.Tensor, nn.Parameter, Own), (Own, Counted, md.Tensor), ()])
def test_many_values_are_placed_as_one_is(kinds):
    engine, home = get("torch", "cpu"), get("numpy")
    targets = tuple(own(k, [0.0, 1.0]) for k in kinds)
    for turn in range(4):
        natives = tuple(engine.asarray(np.float32([turn, k]), md.float32) for k in range(len(kinds)))
        place_all(targets, natives, engine)
        for k, (t, kind) in enumerate(zip(targets, kinds, strict=True)):
            assert t.__class__ is kind and (slot(t) is natives[k]) is (kind is not Counted)
        if turn in (1, 2):
            for k, t in enumerate(targets[: turn - 1] or targets):  # all are read, or one: they are at home again, and the next turn finds them there
                assert t.detach().tolist() == [turn, k] and home.is_native(slot(t))


def test_state_that_lies_with_the_engine_is_neither_looked_at_nor_placed_one_by_one(monkeypatch):
    with md.use_backend("numpy"):
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        optimizer, x = optim.AdamW(net.parameters(), lr=0.1), md.ones((2, 3))

    @md.jit(backend="torch")
    def step(x):
        optimizer.zero_grad()
        loss = (net(x) ** 2.0).mean()
        loss.backward()
        optimizer.step()
        return loss

    same = copy.deepcopy((net, optimizer))
    losses = [step(x).item()]
    count = {"place": 0}
    plain = handover.place
    monkeypatch.setattr(handover, "place", lambda *args: count.update(place=count["place"] + 1) or plain(*args))
    losses += [step(x).item() for _ in range(3)]
    assert count["place"] == 0
    first = next(net.parameters())
    first.detach().numpy()  # one that was read is at home, and all are looked at once
    losses.append(step(x).item())
    assert count["place"] == 4 * 4, "weights, both moments and the count of steps"
    losses.append(step(x).item())
    assert count["place"] == 16
    (again, optimizer), eager = same, []
    for _ in losses:
        optimizer.zero_grad()
        loss = (again(x) ** 2.0).mean()
        loss.backward()
        optimizer.step()
        eager.append(loss.item())
    np.testing.assert_allclose(losses, eager, rtol=1e-4)


@pytest.mark.parametrize("home, engine", [("numpy", "torch"), ("numpy", "jax"), ("jax", "torch"), ("torch", "jax")])
def test_what_is_stored_as_it_came_is_not_copied_on_another_backend_either(home, engine):
    with md.use_backend(home):
        w, a, b = md.ones(3).requires_grad_(), md.zeros(3), md.full((3,), 5.0)

    @md.jit(backend=engine)
    def step(x):
        w.grad = None
        (w * x).sum().backward()  # whose gradient is x
        a.assign(b)
        b.assign(x)

    double = md.jit(lambda x: x * 2.0, donate=(0,))
    x, value = md.asarray([1.0, 2.0, 3.0], backend=home), np.float32([1, 2, 3])
    before = np.full(3, 5.0, np.float32)
    for _ in range(3):
        step(x)
        kept = w.grad
        assert len(step.programs) == 1
        assert slot(kept) is slot(b), "one array for both: the program does not return it"
        x = double(x)  # may write over x where nobody else holds it
        assert kept.backend == home and kept.tolist() == b.tolist() == value.tolist() and a.tolist() == before.tolist()
        before, value = value, value * 2


# ---- arguments that come again ----------------------------------------------------------------------------------------------------------------
def calls(f, n, *args):
    for _ in range(n):
        out = f(*args)
    return out


@pytest.mark.parametrize("home, engine", CROSSING)
def test_an_argument_that_comes_again_and_again_stays_with_the_engine(home, engine):
    want = np.arange(1024, dtype=np.float32)
    x, fresh = md.asarray(want, backend=home), get(home)
    f = md.jit(lambda x, y, n: (x + y * n["k"]).sum(), backend=engine)
    assert calls(f, handover.OFTEN, x, x, {"k": x}).backend == home and fresh.is_native(slot(x))
    calls(f, 2, x, x, {"k": x})
    assert not fresh.is_native(slot(x)), "one tensor under three names, too"
    assert type(x) is not md.Tensor and x.__class__ is md.Tensor and x.shape == (1024,)
    assert f(x, x, {"k": x}).item() == (want + want * want).sum()
    twin = x.detach()
    assert fresh.is_native(x.payload) and type(x) is md.Tensor and x.tolist() == want.tolist() == twin.tolist()
    calls(f, handover.OFTEN + 2, x, x, {"k": x})
    assert fresh.is_native(slot(x)), "what was read at home waits twice as long"
    x.assign(x + 1.0)
    assert f(x, x, {"k": x}).item() == pytest.approx(((want + 1) + (want + 1) ** 2).sum())


@pytest.mark.parametrize("home, engine", [("numpy", "torch"), ("numpy", "jax"), ("torch", "jax"), ("torch", "numpy")])
@pytest.mark.parametrize("aligned", [True, False])
def test_what_somebody_writes_to_shared_memory_is_seen(home, engine, aligned):
    room = handover.ways(get("numpy")).put(np.zeros(64 + 16, np.float32))
    start = -room.ctypes.data % 64 // 4 + (0 if aligned else 1)
    source = room[start : start + 16]
    x, f = md.from_dlpack(source, backend=home), md.jit(lambda x: x * 1.0, backend=engine)
    for n in range(handover.OFTEN + 4):
        source[:] = n
        assert f(x).tolist() == [n] * 16
    assert x.tolist() == [n] * 16


@pytest.mark.parametrize("home, engine", [*CROSSING[:4], ("jax", "torch"), ("jax", "numba")])
@pytest.mark.parametrize("where", ["home", "engine"])
def test_what_stays_with_an_engine_is_given_up_like_anything_else(home, engine, where):
    want = np.arange(1 << 16, dtype=np.float32)
    x = md.asarray(want, backend=home)
    before = x.detach()  # shows the same memory
    f = md.jit(lambda x: x + 1.0, backend=engine)
    calls(f, handover.OFTEN + 2, x)
    after = x.detach() if where == "home" else None
    got = md.jit(lambda x: x * 2.0, donate=(0,), backend=home if where == "home" else engine)(x)
    assert np.array_equal(got.numpy(), want * 2) and np.array_equal(before.numpy(), want)
    assert after is None or np.array_equal(after.numpy(), want)


def test_a_thread_may_read_an_argument_that_comes_to_stay():
    x, want = md.asarray(np.arange(64, dtype=np.float32), backend="numpy"), list(range(64))
    stop, wrong = threading.Event(), []

    def reads():
        while not stop.is_set():
            if x.tolist() != want:
                wrong.append(1)

    f = md.jit(lambda x: x * 2.0, backend="torch")
    with running(stop, reads, reads):
        for _ in range(3000):
            assert f(x).tolist()[3] == 6.0
    assert not wrong
