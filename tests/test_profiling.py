"""md.profile: what it counts, on every backend, eager and jitted."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import minidl as md
from minidl import nn, optim
from minidl.program import Program

BACKENDS = ("numpy", "numba", "torch", "jax")


def problem():
    md.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer, loss = optim.SGD(net.parameters(), lr=0.1), nn.CrossEntropyLoss()

    def step(x, y):
        optimizer.zero_grad()
        out = loss(net(x), y)
        out.backward()
        optimizer.step()
        return out

    rng = np.random.default_rng(0)
    return net, step, md.tensor(rng.normal(size=(256, 32)).astype(np.float32)), md.tensor(rng.integers(0, 10, 256))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_eager_step_is_seen_whole_and_does_what_it_does(backend):
    with md.use_backend(backend):
        net, step, x, y = problem()
        report = md.profile(step, x, y)
        after = [p.detach().numpy().copy() for p in net.parameters()]
        net, step, x, y = problem()
        step(x, y)
        for a, p in zip(after, net.parameters(), strict=True):
            np.testing.assert_array_equal(a, p.detach().numpy())
    names = {name: calls for name, calls, _ in report.by_operation()}
    assert names["relu"] == 1 and names["backward of relu"] == 1 and names["jit(optimizer_step)"] == 1
    assert sum(e.seconds for e in report.events) <= report.seconds
    hidden = 256 * 64 * 4
    assert 2 * hidden <= report.peak < 40 * hidden  # before and after relu, at least
    assert report.largest[0][2] == "f32[256,64]" and report.largest[0][0] == hidden
    text = str(report)
    assert "backward of relu" in text and "peak memory" in text and "f32[256,64]" in text


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_jitted_step_is_profiled_as_its_graph_and_leaves_state_alone(backend):
    with md.use_backend(backend):
        net, step, x, y = problem()
        jitted = md.jit(step)
        jitted(x, y)
        before = [p.detach().numpy().copy() for p in net.parameters()]
        report = md.profile(jitted, x, y)
        for a, p in zip(before, net.parameters(), strict=True):
            np.testing.assert_array_equal(a, p.detach().numpy())
        assert len(report.events) == len(jitted.lower(x, y).equations)
    assert report.jitted and report.seconds > 0 and "compiled" in str(report)
    assert max(s for s, _, _ in report.largest) == 256 * 64 * 4


def test_everything_is_put_back_also_after_an_error():
    from minidl import tape
    from minidl.backends import get

    xp, pull = get("numpy"), tape.pull_raw
    attributes = dict(xp.__dict__)

    def fails(x):
        (x * 2).sum().backward()
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        md.profile(fails, md.ones((3,)).requires_grad_())
    assert tape.pull_raw is pull and xp.__dict__ == attributes


def test_a_backend_is_never_without_its_attributes_for_other_threads():
    """Only what was replaced is put back, one by one."""
    xp = md.extend.get_backend("numpy")
    md.profile(lambda x: (setattr(xp, "stored_meanwhile", 1), x * 2.0)[1], md.ones(2, backend="numpy"))
    assert vars(xp).pop("stored_meanwhile") == 1


def test_a_graph_that_is_kept_can_be_used_again():
    x = md.ones((3,)).requires_grad_()
    y = (x * x).sum()
    md.profile(lambda: y.backward(retain_graph=True))
    y.backward()
    assert x.grad.tolist() == [4.0, 4.0, 4.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_jitted_function_on_the_way_is_one_operation(backend):
    """With what it returns and what it stores, whether or not it ran before; and its own profile is that of its graph."""
    with md.use_backend(backend):
        kept, x = md.zeros((1000,)), md.ones((1000,))

        @md.jit
        def inner(x):
            kept.assign(kept + x)
            return x * 2.0

        for turn in (1, 2):
            report = md.profile(lambda: md.exp(inner(inner(x))))
            assert [e.name for e in report.events] == ["jit(inner)", "jit(inner)", "exp"]
            assert 8000 <= report.peak <= 20000 and kept.tolist()[0] == 3 * turn
        assert {name for name, *_ in md.profile(inner, x).by_operation()} == {"add", "mul"} and inner(x).shape == (1000,)


def test_finding_what_a_jitted_function_stored_takes_none_of_its_time(monkeypatch):
    """Which of its programs ran is asked of their guards, unless it is the one that ran last."""
    f, x, asked = md.jit(lambda x: x * 2.0), md.ones((8,)), []
    monkeypatch.setattr(Program, "why", lambda *_: asked.append(time.sleep(0.5)) or [])
    first, again = (md.profile(lambda: f(f(x))) for _ in range(2))
    assert len(asked) == 1 and all(e.seconds < 0.4 for e in (*first.events, *again.events))


def test_memory_falls_when_arrays_die():
    def f(x):
        for _ in range(5):
            x = x + 1.0
        return x

    with md.use_backend("numpy"):
        report = md.profile(f, md.ones((1000,)))
    assert report.peak == 2 * 4000 and [e.alive for e in report.events] == [4000, 8000, 8000, 8000, 8000]


def test_other_threads_are_not_counted():
    done, go = threading.Event(), threading.Event()

    def elsewhere():
        go.wait(10)
        md.exp(md.ones((10,)))
        done.set()

    worker = threading.Thread(target=elsewhere)
    worker.start()

    def f(x):
        go.set()
        done.wait(10)
        return x + 1.0

    report = md.profile(f, md.ones((10,)))
    worker.join()
    assert [e.name for e in report.events] == ["add"]


def test_the_picture(tmp_path):
    import xml.etree.ElementTree as tree

    report = md.profile(lambda x: md.exp(x) + 1.0, md.ones((100,)))
    report.save(tmp_path / "memory.svg")
    root = tree.parse(tmp_path / "memory.svg").getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == len(report.events) == 2


def test_what_is_no_function():
    with pytest.raises(TypeError, match=r"profile: expected a function.*write md.profile\(step, x, y\)"):
        md.profile(md.ones((3,)))
