"""Errors that only values show: at once where they can be looked at, and by policy where they cannot (traced, under vmap)."""

from __future__ import annotations

import math
import re
import threading
import time
from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl import later

nan = math.nan


def same(got: Any, want: Any) -> None:
    np.testing.assert_array_equal(np.asarray(got.tolist()), np.asarray(want))


def test_the_policies_of_reads(backend):
    x, i, j = md.tensor([[1.0, 2.0], [3.0, 4.0]]), md.tensor([0, 5, -9]), md.tensor([1, 1, 0])
    forms = (
        lambda x, i, j: x[i],
        lambda x, i, j: x[i, j],
        lambda x, i, j: md.take(x, i, axis=1),
        lambda x, i, j: md.take_along_axis(x, i[:2, None], axis=0),
    )
    clip = ([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]], [2.0, 4.0, 1.0], [[1.0, 2.0, 1.0], [3.0, 4.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]])
    fill = ([[1.0, 2.0], [nan] * 2, [nan] * 2], [2.0, nan, nan], [[1.0, nan, nan], [3.0, nan, nan]], [[1.0, 2.0], [nan, nan]])
    for f in forms:
        with pytest.raises(IndexError, match=r"index (5|-9) is out of bounds for axis \d with size 2"):
            f(x, i, j)
    all_of = md.jit(lambda x, i, j: [f(x, i, j) for f in forms])
    for policy, wants in (("clip", clip), ("fill", fill), ("raise-later", clip)):
        with md.out_of_bounds(policy):
            got = all_of(x, i, j)
            if policy == "raise-later":
                with pytest.raises(IndexError, match=r"^getitem: index -9 is out of bounds for axis 0 with size 2\n") as error:
                    got[0].numpy()
                assert re.fullmatch(rf"raise-later: at {re.escape(__file__)}:\d+", error.value.__notes__[-1])
        for g, want in zip(got, wants, strict=True):
            same(g, want)
    assert all_of.compiles == 3
    same(all_of(x, i, j)[0], clip[0])


def test_the_fill_of_every_kind(backend):
    with md.out_of_bounds("fill"):
        f = md.jit(lambda xs, i: [x[i] for x in xs])
        dtypes = ["bool", "int8", "int64", "uint8", "float16", "bfloat16", "float32", "complex64"]
        got = f([md.ones((2,), dtype=d) for d in dtypes], md.tensor([1, 2]))
    wants = [True, -128, -(2**63), 255, nan, nan, nan, nan]
    for g, d, want in zip(got, dtypes, wants, strict=True):
        assert g.dtype.name == d
        value = g.tolist()[1]
        assert value == want or (want != want and value != value), (d, value)


def test_the_mode_of_take_holds_everywhere(backend):
    x = md.tensor([1.0, 2.0, 3.0])
    for i in ([0, 7, -8], np.array([0, 7, -8]), md.tensor([0, 7, -8])):
        same(md.take(x, i, mode="clip"), [1.0, 3.0, 1.0])
        same(md.take(x, i, mode="fill"), [1.0, nan, nan])
    same(md.take_along_axis(x, md.tensor([2, 3]), mode="fill"), [3.0, nan])
    same(md.take_along_axis(x, md.tensor([2, 3]), mode="clip"), [3.0, 3.0])
    with pytest.raises(ValueError, match=r"^take: mode is 'clip', 'fill' or None, not 'wrap'"):
        md.take(x, [0], mode="wrap")
    with (
        pytest.raises(ValueError, match=r"^out_of_bounds: the policy is one of 'clip', 'fill', 'raise-later', not 'raise'"),
        md.out_of_bounds("raise"),
    ):
        pass


def test_derivatives_follow_what_was_read(backend):
    """A clipped read has the derivative of the element that it gave, forward as in reverse; a filled one has none."""
    x, i = md.tensor([1.0, 2.0, 3.0]), md.tensor([0, 7])

    @md.jit
    def both(x, i):
        f = lambda v: v[i] * v[i]
        return md.grad(lambda v: f(v).sum())(x), md.jvp(f, (x,), (md.ones((3,)),))[1]

    reverse, forward = both(x, i)
    same(reverse, [2.0, 0.0, 6.0])
    same(forward, [2.0, 6.0])
    with md.out_of_bounds("fill"):
        same(md.jit(md.grad(lambda v: md.sum(md.where(md.tensor([True, False]), v[i], 0.0))))(x), [1.0, 0.0, 0.0])


def test_writes_out_of_range_are_dropped(backend):
    x, i = md.tensor([1.0, 2.0]), md.tensor([1, 5])
    f = md.jit(lambda x, i: (x.at[i].set(9.0), x.at[i].add(1.0)))
    for policy in ("clip", "fill", "raise-later"):
        with md.out_of_bounds(policy):
            a, b = f(x, i)
            if policy == "raise-later":
                with pytest.raises(IndexError, match="axis 0 with size 2"):
                    a.tolist()
            same(a, [1.0, 9.0])
            same(b, [1.0, 3.0])


def test_raise_later_is_carried_by_loops_branches_and_vmap(backend):
    """And by gradients, and by nothing at all where everything lies inside."""
    x = md.tensor([1.0, 2.0, 3.0])

    def scanned(x, i):
        return md.scan(lambda c, k: (c + x[k], c), md.tensor(0.0), i)[0]

    def branched(x, i):
        return md.cond(i[0] > 1, lambda: x[i].sum(), lambda: x[0] * 2.0)

    def looped(x, i):
        return md.fori_loop(0, 2, lambda n, c: c + x[i[0] + n], md.tensor(0.0))

    def batched(x, i):
        return md.vmap(lambda k: x[k] * 2.0)(i)

    def derived(x, i):
        return md.grad(lambda v: (v[i] ** 2).sum())(x)

    good, bad = md.tensor([2, 0, 1]), md.tensor([2, 0, 4])
    with md.out_of_bounds("raise-later"):
        for f, wrong in ((scanned, bad), (branched, bad), (looped, md.tensor([2])), (batched, bad), (derived, bad)):
            g = md.jit(f)
            g(x, good if f is not looped else md.tensor([0])).numpy()
            out = g(x, wrong)
            with pytest.raises(IndexError, match=r"^getitem: index [34] is out of bounds for axis 0 with size 3\n") as error:
                out.numpy()
            assert "test_bounds.py:" in error.value.__notes__[-1]
            out.numpy()  # said once
            g(x, wrong)
            with pytest.raises(IndexError, match="out of bounds"):
                g(x, good if f is not looped else md.tensor([0]))
        with pytest.raises(IndexError, match="out of bounds"):
            batched(x, bad).numpy()  # eager, but a lane's index cannot be looked at


def test_a_training_step_that_reads_beyond_its_table(backend):
    """The step completes, and the next one says what was wrong and where."""
    table = md.nn.Embedding(3, 2)
    optimizer = md.optim.SGD(table.parameters(), lr=0.1)

    @md.jit
    def step(i):
        optimizer.zero_grad()
        loss = (table(i) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    with md.out_of_bounds("raise-later"):
        step(md.tensor([0, 1])).item()
        step(md.tensor([0, 3]))
        with pytest.raises(IndexError, match="axis 0 with size 3"):
            step(md.tensor([0, 1]))
        assert step(md.tensor([0, 1])).item() > 0


def test_other_errors_that_values_show(backend):
    singular, indefinite = md.tensor([[1.0, 2.0], [2.0, 4.0]]), md.tensor([[1.0, 0.0], [0.0, -1.0]])
    two, minus = md.tensor([2]), md.tensor([-1])
    cases = [
        (md.linalg.inv, (singular,), "inv: the matrix is singular"),
        (md.linalg.cholesky, (indefinite,), "cholesky: the matrix is not positive definite"),
        (lambda x, y: x**y, (two, minus), "pow: an integer to a negative integer power"),
    ]  # fmt: skip
    for f, args, text in cases:
        with pytest.raises(ValueError, match=f"^{text}"):
            f(*args)
        g = md.jit(f)
        assert not np.isfinite(g(*args).numpy()).all() or g(*args).tolist() == [0]
        with md.out_of_bounds("raise-later"):
            out = g(*args)
            with pytest.raises(ValueError, match=f"^{text}"):
                out.tolist()


def test_nothing_is_computed_or_kept_without_the_policy():
    before = dict(later.flags)
    graph = md.trace(lambda x, i: x[i])(md.ones((3,)), md.tensor([0]))
    assert sorted(e.primitive.name for e in graph.equations) == ["add", "clip", "gather", "lt", "where"]
    assert later.flags == before


def test_another_thread_has_its_own_policy():
    found = []
    with md.out_of_bounds("fill"):
        f = md.jit(lambda x, i: x[i])
        thread = threading.Thread(target=lambda: found.append(f(md.ones((2,)), md.tensor([5])).tolist()))
        thread.start()
        thread.join()
        assert np.isnan(f(md.ones((2,)), md.tensor([5])).tolist()[0])
    assert found == [[1.0]]


def raised(call: Any) -> str:
    """Class and text of what a call raises."""
    with pytest.raises((IndexError, ValueError)) as error:
        call()
    return f"{type(error.value).__name__}: {error.value}"


def test_the_words_are_those_of_the_error_that_is_raised_at_once(backend):
    x, i, j = md.ones((2, 3)), md.tensor([0, 7, -1]), md.tensor([[0], [-9]])
    forms = (
        (lambda x, i: x[i], i), (lambda x, i: x[:, i], i), (lambda x, i: x[i[:1], i[1:2]], i), (lambda x, i: md.take(x, i, axis=1), i),
        (lambda x, i: md.take_along_axis(x, i, axis=1), j), (lambda x, i: x.at[i].add(1.0), i), (lambda x, i: md.set_at(x, i - 8, 1.0), i),
        (lambda x, i: md.linalg.inv(x[:2, :2] * i[0]), i), (lambda x, i: md.tensor([2]) ** i, i - 1),
    )  # fmt: skip

    with md.out_of_bounds("raise-later"):
        for f, index in forms:
            at_once = raised(lambda: f(x, index))  # noqa: B023
            later_on = md.jit(f)(x, index)
            assert raised(later_on.numpy) == at_once
        lanes = md.vmap(lambda k: x[k])(i)
        assert raised(lanes.numpy) == "IndexError: getitem: index 7 is out of bounds for axis 0 with size 2"


def test_a_flag_is_its_device_s_whichever_thread_synchronises_and_an_error_is_told_once():
    f, i = md.jit(lambda x, i: x[i]), md.tensor([7])
    told: list[str] = []

    def look(out: md.Tensor) -> None:
        try:
            out.numpy()
        except IndexError as error:
            told.append(str(error))

    with md.out_of_bounds("raise-later"):
        out = f(md.ones((3,)), i)
        threads = [threading.Thread(target=look, args=(out,)) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        out.numpy()
    assert told == ["getitem: index 7 is out of bounds for axis 0 with size 3"]


def test_errors_of_two_threads_have_two_numbers(monkeypatch):
    class Slow(list):
        def __len__(self):
            n = super().__len__()
            time.sleep(0.02)
            return n

        def __contains__(self, entry):
            found = super().__contains__(entry)
            time.sleep(0.02)
            return found

    slow = Slow(later.errors)
    monkeypatch.setattr(later, "errors", slow)
    start = threading.Barrier(4)

    def work(k: int) -> None:
        start.wait()
        later.expect(md.tensor([False]), ValueError, f"number {k % 2}: of a thread")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    made = [e[1] for e in slow if e[1].startswith("number ")]
    assert sorted(made) == ["number 0: of a thread", "number 1: of a thread"]
