"""jit: the same program as eager, state included; compiled as often as needed and never stale."""

from __future__ import annotations

import collections
import copy
import gc
import inspect
import linecache
import math
import pickle
import weakref
import zlib
from typing import NamedTuple

import numpy as np
import pytest

import minidl as md
import minidl.calls as calls
import minidl.nn as nn
import minidl.optim as optim
from minidl.backends import get

SCALE = 2.0
TABLE = {"w": 3.0}


def same(a, b, tol=1e-6):
    for x, y in zip(md.tree.leaves(a), md.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x.detach().numpy()), np.asarray(y.detach().numpy()), rtol=tol, atol=tol)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 8, bias=False)  # a bias before the norm has gradient 0, and Adam would divide rounding by rounding
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.25)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc2(self.drop(nn.functional.relu(self.norm(self.fc1(x)))))


def training(mode, make_optimizer, steps=12, grow=lambda i: 0.1 / (1 + i // 3)):
    """One run of a PyTorch-style loop: losses, the whole state afterwards, and how often the step was compiled."""
    md.manual_seed(3)
    net = Net()
    opt = make_optimizer(net.parameters())
    criterion = nn.CrossEntropyLoss()
    rng = np.random.default_rng(0)
    data = rng.normal(size=(steps, 16, 6)).astype(np.float32)
    labels = rng.integers(0, 3, size=(steps, 16))

    def step(x, y):
        opt.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        opt.step()
        return loss

    run = md.jit(step) if mode == "jit" else step
    losses = []
    for i in range(steps):
        opt.param_groups[0]["lr"] = grow(i)
        losses.append(run(md.asarray(data[i]), md.asarray(labels[i])).item())
    grads = {k: p.grad.numpy() for k, p in net.named_parameters()}
    return losses, {k: v.numpy() for k, v in net.state_dict().items()}, grads, getattr(run, "compiles", 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
        lambda ps: optim.Adam(ps, lr=0.1),
        lambda ps: optim.AdamW(ps, lr=0.1),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_a_pytorch_training_step_runs_jitted_without_an_edit(backend, make):
    eager, traced = training("eager", make), training("jit", make)
    np.testing.assert_allclose(eager[0], traced[0], rtol=2e-5)
    for before, after in zip(eager[1:3], traced[1:3], strict=True):
        assert before.keys() == after.keys()
        for k in before:
            np.testing.assert_allclose(before[k], after[k], rtol=2e-4, atol=2e-5, err_msg=k)
    assert traced[3] <= 2, f"compiled {traced[3]} times for 12 steps with a changing lr"


def test_a_thousand_learning_rates_compile_once(backend):
    w = md.ones((3,)).requires_grad_()
    opt = optim.SGD([w], lr=1.0)

    @md.jit
    def step(x, scale):
        opt.zero_grad()
        (w * x * scale).sum().backward()
        opt.step()

    x, expected = md.ones((3,)), 1.0
    for i in range(1000):
        opt.param_groups[0]["lr"] = 1e-3 * (i + 1)
        step(x, 0.5 + i)
        expected -= 1e-3 * (i + 1) * (0.5 + i)
    assert step.compiles <= 2
    np.testing.assert_allclose(w.detach().numpy(), np.full(3, expected), rtol=1e-4)


def test_what_the_function_reads_is_a_guard(backend):
    global SCALE
    offset = 1.0
    net = nn.Dropout(0.5)
    table = {"k": 1.0}

    def f(x):
        return net(x) * SCALE + offset + table["k"]

    g = md.jit(f)
    net.eval()
    x = md.ones((4,))
    try:
        same(g(x), f(x))
        SCALE = 5.0
        same(g(x), f(x))
        offset = 7.0
        same(g(x), f(x))
        table["k"] = 4.0
        same(g(x), f(x))
        md.set_default_dtype("float64")
        assert g(md.ones((4,), dtype=md.float32)).dtype is md.float32
    finally:
        SCALE = 2.0
        md.set_default_dtype("float32")
    count = g.compiles
    net.train()
    md.manual_seed(0)
    a = g(x)
    md.manual_seed(0)
    same(a, f(x))
    assert g.compiles == count + 1
    net.eval()
    same(g(x), f(x))
    assert g.compiles == count + 1 or g.compiles == count + 2  # the program of eval mode is still there, unless a global changed


def test_captured_tensors_are_read_anew_and_rebinding_retraces(backend):
    box = {"w": md.ones((2,))}
    f = md.jit(lambda x: x * box["w"])
    assert f(md.ones((2,))).tolist() == [1.0, 1.0]
    box["w"].assign(md.full((2,), 4.0))
    assert f(md.ones((2,))).tolist() == [4.0, 4.0] and f.compiles == 1
    box["w"] = md.full((2,), 9.0)
    assert f(md.ones((2,))).tolist() == [9.0, 9.0]


def test_what_lies_inside_named_tuples_and_lists_of_the_user_s_retraces():
    class Layers(list):
        scale: float

    pair = collections.namedtuple("pair", "a b")([1.0], Layers([2.0, {"c": 3.0}]))
    pair.b.scale = 1.0
    w = collections.namedtuple("held", "w")(md.ones((2,)))
    read = lambda x: x * pair.a[0] + pair.b[0] * pair.b[1]["c"] * pair.b.scale + w.w
    f, x = md.jit(read), md.ones((2,))
    assert f(x).tolist() == f(x).tolist() == [8.0, 8.0] and f.compiles == 1

    def change(k):
        if k == 0:
            pair.a[0] = 5.0
        elif k == 1:
            pair.b[0] = 4.0
        elif k == 2:
            pair.b[1]["c"] = 2.0
        elif k == 3:
            pair.b.scale = 0.5
        else:
            w.w.assign(md.full((2,), 7.0))

    for k, want in enumerate((12.0, 18.0, 14.0, 10.0, 16.0)):
        change(k)
        assert f(x).tolist() == read(x).tolist() == [want] * 2
        assert f.compiles == min(k, 3) + 2  # a tensor's value is no guard


def test_shapes_dtypes_statics_and_structures_retrace(backend):
    f = md.jit(lambda x, n=2, flag=True: x * n if flag else x - n, static_argnames=("n",))
    assert f(md.ones((2,))).tolist() == [2.0, 2.0]
    assert f(md.ones((3,))).tolist() == [2.0] * 3
    assert f(md.ones((3,), dtype=md.float64)).dtype is md.float64
    assert f(md.ones((2,)), n=5).tolist() == [5.0, 5.0]
    assert f(md.ones((2,)), flag=False).tolist() == [-1.0, -1.0]
    assert f.compiles == 5
    g = md.jit(lambda t: {"sum": t["a"] + t["b"][0], "twice": (t["a"] * 2.0, None)})
    out = g({"a": md.ones(2), "b": [md.ones(2)]})
    assert out["sum"].tolist() == [2.0, 2.0] and out["twice"][1] is None
    with pytest.raises(ValueError, match="no parameter"):
        md.jit(lambda x: x, static_argnames="y")


def test_hidden_state_stored_on_a_module_comes_back(backend):
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = md.zeros((2,))

        def forward(self, x):
            self.h = self.h * 0.5 + x
            return self.h

    a, b = Cell(), Cell()
    f = md.jit(lambda x: b(x))
    for i in range(6):
        x = md.full((2,), float(i))
        same(a(x), f(x))
        same(a.h, b.h)
    assert f.compiles <= 2


def test_counters_in_python_are_refused_with_the_way_out():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = 0

        def forward(self, x):
            self.n += 1
            return x

    net = Counting()
    with pytest.raises(RuntimeError, match="register_buffer"):
        md.jit(net)(md.ones(2))
    assert net.n == 0


def test_a_failing_call_leaves_state_alone(backend):
    w = md.ones((2,)).requires_grad_()
    buffer = md.zeros((2,))

    @md.jit
    def step(x):
        buffer.assign(buffer + 1.0)
        (w * x).sum().backward()
        if x.shape[0] == 3:
            raise KeyError("from the user's code")
        return w @ x

    with pytest.raises(ValueError):
        step(md.ones((5,)))
    assert buffer.tolist() == [0.0, 0.0] and w.grad is None
    step(md.ones((2,)))
    assert buffer.tolist() == [1.0, 1.0] and w.grad.tolist() == [1.0, 1.0]


def test_a_tensor_of_a_finished_vmap_says_so_in_a_trace_too(backend):
    kept = []
    md.vmap(lambda x: (kept.append(x * 2.0), x)[1])(md.ones((2, 3)))
    for use in (kept[0].tolist, lambda: kept[0] + 1.0, lambda: md.jit(lambda x: x * kept[0])(md.ones(3)), lambda: md.jit(lambda: kept[0].sum())()):
        with pytest.raises(RuntimeError, match="of a finished vmap was used outside it; return it from the function instead"):
            use()
    scaled = md.vmap(lambda x: md.jit(lambda y: y * x)(md.ones(3)))(md.ones((2, 3)) * 2.0)  # while it runs, a trace inside may read it
    assert scaled.tolist() == [[2.0] * 3] * 2


def test_escaped_symbols_and_branching_on_values_say_what_to_do(backend):
    kept = []
    md.jit(lambda x: (kept.append(x * 2.0), x)[1])(md.ones(2))
    w = md.ones(2, requires_grad=True)
    md.jit(lambda x: (kept.append((w * x).sum()), x)[1])(md.ones(2))
    total = kept[1]
    for use in (lambda: kept[0] + 1.0, total.backward, total.item, lambda: md.autograd.grad(total, w), lambda: sum(kept), lambda: md.stack([total])):
        with pytest.raises(RuntimeError, match=r"after its trace ended; return it from the function, or store it on a Module"):
            use()
    with pytest.raises(TypeError, match=r"md\.where.*md\.cond"):
        md.jit(lambda x: x if x.sum() > 0 else -x)(md.ones(2))
    with pytest.raises(TypeError, match="batched by md.vmap"):
        md.vmap(lambda x: x if x > 0 else -x)(md.ones(2))
    assert md.grad(lambda x: x * x if x > 0 else -x)(md.tensor(3.0)).item() == 6.0  # outside jit, values are concrete


def test_a_jitted_function_is_one_node_with_a_compiled_backward(backend):
    x = md.tensor([1.0, 2.0], requires_grad=True)
    w = md.tensor([3.0, 4.0], requires_grad=True)
    f = md.jit(lambda x: (md.sin(x) * w, x * x))
    a, b = f(x)
    (a.sum() + b.sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos([1, 2]) * [3, 4] + [2, 4], rtol=1e-6)
    np.testing.assert_allclose(w.grad.numpy(), np.sin([1, 2]), rtol=1e-6)
    out = md.jit(lambda x: x * x)(md.tensor([2.0], requires_grad=True))
    out.backward()
    with md.no_grad():
        assert not f(x)[0].requires_grad


def test_programs_print_check_and_draw(backend):
    graph = md.trace(lambda x, y: (md.exp(x) @ y).sum())(md.ones((2, 3)), md.ones((3, 4)))
    text = str(graph)
    assert "exp(a)" in text and "'f32[2,3]'" in text and text.startswith("def program(")
    graph.check()
    assert graph.peak_memory() >= 4 * (6 + 12 + 6 + 8)
    assert graph.to_dot().startswith("digraph") and "<svg" in graph.to_svg()


def test_another_backend_may_run_the_program():
    with md.use_backend("numpy"):
        f = md.jit(lambda x: md.sin(x) * 2.0, backend="jax")
        out = f(md.ones((3,)))
        assert out.backend == "numpy"
        np.testing.assert_allclose(out.numpy(), 2 * np.sin(np.ones(3)), rtol=1e-6)


def test_tracing_time_is_linear_in_the_program():
    import gc
    import time

    def chain(n):
        def f(x):
            for _ in range(n // 2):
                x = md.sin(x) * 1.01
            return x

        gc.collect()
        gc.disable()  # the collector's time grows with everything that this process has made so far
        try:
            start = time.process_time()
            md.jit(f)(md.ones((8,)))
            return time.process_time() - start
        finally:
            gc.enable()

    chain(100)
    small, large = min(chain(1000) for _ in range(3)), chain(8000)
    assert large < 8 * small * 3, (small, large)


def test_state_dicts_survive_a_jitted_step(backend):
    net = Net()
    before = copy.deepcopy(net.state_dict())
    md.jit(lambda x: net(x))(md.ones((4, 6)))
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert after["norm.num_batches_tracked"].item() == before["norm.num_batches_tracked"].item() + 1


def test_check_says_what_changed():
    from minidl.jitting import JitWarning

    scale = 2.0
    hidden = iter([1.0, 1.0, 5.0])
    f = md.jit(lambda x: x * scale, check=True)
    f(md.ones(2))
    f(md.ones(2))
    scale = 3.0
    with pytest.warns(JitWarning, match=r"closure\.cell_contents == 2\.0 no longer holds"):
        f(md.ones(2))
    with pytest.warns(JitWarning, match=r"a0\.payload\.shape == \(2,\) no longer holds"):
        f(md.ones(3))
    g = md.jit(lambda x: x * next(hidden), check=True)
    g(md.ones(2))
    g(md.ones(2))
    with pytest.raises(RuntimeError, match="depends on something that jit does not see"):
        g(md.ones(2))


def test_donated_arguments(backend):
    f = md.jit(lambda s, x: s * 0.5 + x, donate=(0,))
    state = md.ones((64,))
    for _ in range(3):
        state = f(state, md.ones((64,)))
    assert state.tolist() == [1.875] * 64


def test_grad_of_a_jitted_function_that_backward_has_used():
    f = md.jit(lambda x: (x * x * x).sum())
    x = md.tensor([1.0, 2.0], requires_grad=True)
    f(x).backward()
    assert x.grad.tolist() == md.grad(f)(x.detach()).tolist() == [3.0, 12.0]
    assert md.vmap(md.grad(f))(x.detach()).tolist() == [3.0, 12.0]


def test_a_function_of_the_package_itself_is_guarded_and_traced_once():
    from minidl import demo

    step = demo.training_step(demo.network("float32"), jit=True)
    for i in range(3):
        step(md.ones((2, 3, 32, 32)) * i, md.asarray([1, 2]))
    assert step.compiles == 1


class _Box:
    """A container of a registered type, which has no display in Python's text."""

    def __init__(self, inside):
        self.inside = inside


@pytest.mark.parametrize("wrap", [lambda x, y: (x, {"k": [y, None]}), lambda x, y: {("a", 1): (x, y)}, lambda x, y: _Box((x, y))])
def test_results_are_freed_without_the_collector(wrap):
    """A cycle around them would hold a program's memory until the collector happens to run."""
    if _Box not in md.tree._registry:
        md.tree.register(_Box, lambda b: ((b.inside,), None), lambda _, c: _Box(c[0]))
    f = md.jit(lambda x: wrap(x * 2.0, x + 1.0))
    f(md.ones((2,)))
    gc.collect()
    gc.disable()
    try:
        out = f(md.ones((2,)))
        found = md.tree.leaves(out)
        assert [t.tolist() for t in found] == [[2.0, 2.0], [2.0, 2.0]]
        seen = [weakref.ref(t) for t in found]
        del out, found
        assert [r() for r in seen] == [None, None]
    finally:
        gc.enable()


def test_what_is_stored_as_it_came_in_is_not_copied(backend):
    p = nn.Parameter(md.tensor([1.0, 2.0]))
    other = md.tensor([0.0, 0.0])

    @md.jit
    def step(g):
        p.grad = g
        other.assign(g)
        with md.no_grad():
            p.assign(p - p.grad * 0.5)

    for values in ([2.0, 4.0], [1.0, 1.0]):
        g = md.tensor(values)
        step(g)
        assert p.grad.payload is g.payload is other.payload
        assert p.grad.tolist() == other.tolist() == g.tolist() == values
    assert p.tolist() == [-0.5, -0.5]
    other.assign(other + 1.0)
    assert g.tolist() == p.grad.tolist() == [1.0, 1.0]


def test_a_result_that_was_differentiated_inside_says_so(backend):
    w = md.tensor([3.0, 4.0], requires_grad=True)

    def step(x):
        loss = (w * x).sum()
        loss.backward()
        return loss, loss + 1.0, loss * (w * 2.0).sum()

    def first(f):
        return lambda x: f(x)[0]

    x = md.tensor([1.0, 2.0])
    for f in (step, md.jit(step)):
        outs = f(x)
        assert all(out.requires_grad for out in outs)
        for out in outs:
            with pytest.raises(RuntimeError, match="already differentiated"):
                out.backward()
        pull = md.vjp(first(f), x)[1]
        for differentiate in (lambda f=f: md.grad(first(f))(x), lambda pull=pull: pull(md.tensor(1.0))):
            with pytest.raises(RuntimeError, match="already differentiated"):
                differentiate()
        with pytest.raises(RuntimeError, match="already differentiated"):
            md.jvp(first(f), (x,), (x,))
    with md.no_grad():
        assert not md.jit(lambda x: (w * x).sum())(x).requires_grad


def test_a_program_is_for_the_settings_it_was_traced_under_whoever_ran_last():
    f = md.jit(md.grad(lambda x: md.where(x > 0, md.sqrt(x), 0.0)))
    g = md.jit(lambda x, i: x[i])
    x, i = md.tensor(0.0), md.tensor([5])
    for _ in range(3):
        assert math.isnan(f(x).item()) and g(md.ones(2), i).tolist() == [1.0]
        with md.strong_zero(), md.out_of_bounds("fill"):
            assert f(x).item() == 0.0 and math.isnan(g(md.ones(2), i).item())
            with md.no_grad():
                assert f(x).item() == 0.0
    assert (f.compiles, g.compiles) == (3, 2)


def test_a_call_goes_straight_to_the_program_that_ran_last():
    f = md.jit(lambda x: x * 2.0)
    a, b = md.ones(2), md.ones(3)
    f(a), f(a)
    (first,) = f.programs
    assert f.__call__ is first.entry
    f(b), f(b)  # a guard fails: the other program takes its place, once it has run again
    assert f.__call__ is f.programs[0].entry is not first.entry
    with md.no_grad():  # another program, which is not for the usual settings
        f(a), f(a)
        assert f.__call__ is f.programs[1].entry
    assert f(a).tolist() == [2.0, 2.0] and f.compiles == 3 and f.__call__ is first.entry
    with pytest.raises(TypeError):
        f(a, a)
    assert f(b).tolist() == [2.0] * 3


@pytest.mark.parametrize("backend", ["jax"], indirect=True)
def test_an_engine_that_refuses_other_shapes_is_left_to_look_at_them(backend):
    f = md.jit(lambda x, k: x * k)
    a, b, asked = md.ones(2), md.ones(3), []
    f(a, 2), f(a, 2)
    (program,) = f.programs
    names = program.call.__globals__
    run = names["run"]

    def spy(*natives):
        asked.append(natives[0].shape)
        return run(*natives)

    names["run"] = spy
    assert f(a, 2).tolist() == [2.0, 2.0] and f(b, 2).tolist() == [2.0] * 3 and f.compiles == 2
    assert asked == [(2,), (3,)]
    for _ in range(2):  # there are two programs now: to be refused costs more than to look
        assert f(b, 3).tolist() == [3.0] * 3 and f(a, 3).tolist() == [3.0, 3.0] and f.compiles == 2
    assert asked == [(2,), (3,), (2,), (2,)]

    def broken(*natives):
        raise TypeError("of its own")

    g = md.jit(lambda x: x + 1.0)
    g(a), g(a)
    g.programs[0].call.__globals__["run"] = broken
    with pytest.raises(TypeError, match="of its own"):
        g(a)
    assert g(b).tolist() == [2.0] * 3


def test_a_jitted_function_is_freed_with_its_last_reference_and_its_call_outlives_it():
    f = md.jit(lambda x: x * 2.0)
    x = md.ones(2)
    f(x), f(x)
    gone, call = weakref.ref(f), f.__call__
    gc.disable()
    try:
        del f
        assert gone() is None
    finally:
        gc.enable()
    assert call(md.ones(3)).tolist() == [2.0] * 3  # a guard fails, and nobody is there to trace again


def test_a_setting_made_inside_is_no_setting_of_the_call():
    def f(x, i):
        root = md.grad(lambda v: md.where(v > 0, md.sqrt(v), 0.0).sum())
        outside = root(x), x[i]
        with md.strong_zero(), md.out_of_bounds("fill"):
            return *outside, root(x), x[i]

    x, i, jitted = md.tensor([0.0]), md.tensor([5]), md.jit(f)
    for _ in range(2):
        for _ in range(2):
            assert str([t.tolist() for t in jitted(x, i)]) == "[[nan], [0.0], [0.0], [nan]]"
        with md.strong_zero(), md.out_of_bounds("fill"):
            assert str([t.tolist() for t in jitted(x, i)]) == "[[0.0], [nan], [0.0], [nan]]"
    assert jitted.compiles == 2


@md.jit
def doubled(x):
    return x * 2.0


def test_a_jitted_function_is_copied_and_pickled_as_functions_are_and_a_copy_traces_for_itself():
    class Checked(type(doubled)):
        def __call__(self, *args):
            return super().__call__(*args)

    class Layer(md.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = md.nn.Parameter(md.ones(2))
            self.run = md.jit(self.forward)

        def forward(self, x):
            return x * self.weight

    x = md.ones(2)
    assert copy.copy(doubled) is copy.deepcopy(doubled) is pickle.loads(pickle.dumps(doubled)) is doubled
    f = Checked(lambda x: x + 1.0, None, None, (), (), None, False)
    assert f(x).tolist() == f(x).tolist() == [2.0, 2.0]
    g = copy.copy(f)
    assert type(g) is Checked and g(x).tolist() == [2.0, 2.0] and (f.compiles, g.compiles) == (1, 1)
    layer = Layer()
    layer.run(x)
    other = copy.deepcopy(layer)
    md.nn.init.zeros_(other.weight)
    assert other.run(x).tolist() == [0.0, 0.0] and layer.run(x).tolist() == [1.0, 1.0]


def test_the_text_of_a_program_goes_with_it(on_numpy):
    def make():
        f = md.jit(lambda x: x * 2.0)
        f(md.ones(2)), f(md.ones(2))

    make()
    gc.collect()
    before = len(linecache.cache)
    make()
    assert len(linecache.cache) > before
    gc.collect()
    assert len(linecache.cache) == before


def test_the_text_of_a_program_is_packed_and_its_call_compiled_once(on_numpy, monkeypatch):
    def f(x):
        for i in range(100):
            x = md.sin(x) * (i + 0.5)
        return x

    jitted = md.jit(f)
    jitted(md.ones(2)), jitted(md.ones(2))
    (program,) = jitted.programs
    run = inspect.unwrap(program.call.__globals__["run"])
    lines = linecache.getlines(run.__code__.co_filename)
    assert "".join(lines) == inspect.getsource(run) and inspect.getsource(run).count("sin(") == 100
    assert lines[1] == linecache.getline(run.__code__.co_filename, 2) and len(lines.text) < len(inspect.getsource(run)) / 3
    unpacked = []
    monkeypatch.setattr(zlib, "decompress", lambda packed, old=zlib.decompress: unpacked.append(packed) or old(packed))
    assert list(lines) == inspect.getsource(run).splitlines(True) and len(unpacked) < 12, "not for each line"
    assert program.entry is not program.call and program.entry.__code__ is program.call.__code__


@pytest.mark.parametrize("key", ["N[0]", "o[0]", "break", "p0.shape", "it's"])
def test_keys_that_read_like_the_text_of_a_program(key, backend):
    f = md.jit(lambda d: {key: d[key] * 2.0})
    assert f({key: md.ones(2)})[key].tolist() == f({key: md.ones(2)})[key].tolist() == [2.0, 2.0] and f.compiles == 1
    f._call = None  # its entry answers alone
    assert f({key: md.ones(2)})[key].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("backend", ["numpy", "jax"])
def test_the_numbers_of_a_call_are_those_of_the_call_before_only_where_they_are_the_same(backend):
    """Equal is not the same: zeros have signs, and NumPy takes float32(0.1) for 0.1."""
    w = md.ones((2,), backend=backend).requires_grad_()
    opt, g = optim.SGD([w], lr=1.0), md.ones((2,), backend=backend)
    group = opt.param_groups[0]

    @md.jit
    def step(g):
        w.grad = g
        opt.step()

    rates = [0.5, 0.5, 0.25, -0.0, 0.0, -0.0, 0.1, float(np.float32(0.1)), 0.1, 2.0, 2, np.nan, 2.0]
    for rate in rates:
        with md.no_grad():
            w.assign(md.full((2,), -0.0, backend=backend))
        group["lr"] = rate
        step(g)
        want = np.float32(-0.0) - np.float32(rate) * np.float32(1.0)
        got = w.detach().numpy()
        assert got.tobytes() == np.full(2, want, np.float32).tobytes() or (np.isnan(want) and np.isnan(got).all()), rate
    assert step.compiles <= 3


def test_elements_are_compared_with_a_number_that_is_an_argument():
    def f(x, n):
        return x == n, n == x, x != n, n != x, md.vmap(lambda v, k: v == k, (0, None))(x, n)

    x, jitted = md.arange(3), md.jit(f)
    for n in (1, 2, 1.0, 0.5):
        assert [v.tolist() for v in jitted(x, n)] == [v.tolist() for v in f(x, n)]
    assert md.jit(lambda x, name: x == name)(x, "a") is False


def test_numbers_are_told_apart_by_value_sign_and_type():
    f64 = md.float64
    numbers, alone = calls._Numbers(get("numpy"), [f64, f64]), calls._Numbers(get("numpy"), [md.int64])
    for pair in [(0.1, 2.0), (0.1, 2.0), (np.float32(0.1), 2.0), (0.1, 2.0), (0.1, -0.0), (0.1, 0.0), (0.1, np.nan), (0.1, 2), (0.1, True)]:
        assert np.array(numbers(pair)).tobytes() == np.array([float(v) for v in pair]).tobytes(), pair
    first = numbers((3.0, 4.0))
    assert numbers((3.0, 2.0 + 2.0)) is first and numbers((3.0, 4)) is not first
    assert [int(alone((v,))[0]) for v in (1, True, 2, 0, 0)] == [1, 1, 2, 0, 0]


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_what_a_function_stores_as_it_came_is_no_output(backend):
    """The tensors share it, whether it comes first, in between or alone."""
    with md.use_backend(backend):
        a, b, c, g, h = (md.tensor([float(i), 1.0]) for i in range(5))

    @md.jit
    def store(g, h):
        a.assign(g)
        b.assign(g * 2.0)
        c.assign(h)
        return (g + h).sum()

    assert store(g, h).item() == 9.0 and store(g, h).item() == 9.0
    program = store.programs[0]
    assert len(program.graph.outputs) == 4 and len(program.call.__globals__["run"](*(program.natives((g, h), {})))) == 2
    assert [t.tolist() for t in (a, b, c)] == [[3.0, 1.0], [6.0, 2.0], [4.0, 1.0]]
    assert a.payload is g.payload and c.payload is h.payload
    only = md.jit(lambda g: [None for _ in (a.assign(g),)])
    only(h)
    only(g)
    assert a.payload is g.payload


def test_to_explain_a_call_is_to_look_for_its_program_and_keep_what_is_made():
    f = md.jit(lambda x, *, y=1.0: x * y)
    x = md.ones(3, backend="numpy")
    told = str(f.explain(x, y=2.0))
    assert "\ninputs: " in told and "; of the numpy backend" in told and len(f.programs) == 1
    assert f(x, y=2.0).tolist() == [2.0] * 3 and str(f.explain(x, y=2.0)) == told and len(f.programs) == 1
    f.explain(x)
    assert len(f.programs) == 2


def test_the_programs_of_a_function_are_64_at_most():
    f = md.jit(lambda x: x + 1.0)
    with pytest.warns(UserWarning, match="traced for the 9th time"):
        for n in range(70):
            assert f(md.zeros(n, backend="numpy")).shape == (n,)
    assert len(f.programs) == 64 and f.compiles == 70
    f(md.zeros(69, backend="numpy"))
    assert f.compiles == 70


class Both(NamedTuple):
    first: md.Tensor
    second: md.Tensor | None


FORMS = (lambda a: (a, None), lambda a: {"k": [a, (None,)]}, lambda a: Both(a, None), lambda a: collections.OrderedDict(z=a, b=a))


@pytest.mark.parametrize("make", FORMS, ids=["tuple", "dict", "named", "ordered"])
def test_what_is_stored_in_a_container_keeps_its_form(make):
    class Model(md.nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = make(md.tensor(0.0))

        def forward(self, x):
            self.kept = make(x * 2.0)
            return x

    eager, jitted = Model(), Model()
    eager(md.tensor(3.0))
    md.jit(jitted)(md.tensor(3.0))
    assert type(jitted.kept) is type(eager.kept)
    (got, form), (want, other) = md.tree.flatten(jitted.kept), md.tree.flatten(eager.kept)
    assert form == other and [v.item() for v in got] == [v.item() for v in want] == [6.0] * len(want)
