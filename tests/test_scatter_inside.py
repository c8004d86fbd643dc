"""Updates at positions that all lie inside go straight into a copy on torch; what they update stays, and positions outside count for nothing."""

import numpy as np
import pytest

import minidl as md

MODES = ["set", "add", "mul", "min", "max"]


def both(f):
    found = []
    for backend in ("numpy", "torch"):
        with md.use_backend(backend):
            found.append([np.asarray(v.tolist()) for v in f()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    return found[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("places", [[0, 2, 2, 1], [0, 3, -1, 2], [], [2]])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16"])
def test_updates_inside_and_outside_are_those_of_numpy(mode, places, dtype):
    def f():
        made = []
        for wide in (False, True):
            x = md.asarray([[1, 4]] if wide else [[1, 2], [3, 4], [5, 6]], dtype=getattr(md, dtype))
            x = md.broadcast_to(x, (3, 2)) if wide else x
            i = md.asarray(places, dtype=md.int64)
            u = md.reshape(md.arange(2, 2 + 2 * len(places)), (len(places), 2)).to(x.dtype)
            before = x.tolist()
            out = md.extend.bind(md.extend.table["scatter"], (x, u, i), {"mode": mode})
            jitted = md.jit(lambda x, u, i: md.extend.bind(md.extend.table["scatter"], (x, u, i), {"mode": mode}))(x, u, i)
            assert x.tolist() == before and jitted.tolist() == out.tolist() and out.shape == x.shape and out.dtype == x.dtype
            made.append(out)
        return made

    both(f)


def test_what_was_updated_and_the_update_are_arrays_of_their_own():
    def f():
        x = md.zeros(4, 2)
        index = md.asarray([1, 3, 1])
        out = x.at[index].add(md.ones(3, 2))
        again = out.at[index].add(md.ones(3, 2))
        g = md.grad(lambda v: (v[index] * md.asarray([[1.0], [2.0], [3.0]])).sum())(x)
        return x, out, again, g

    x, out, again, g = both(f)
    assert x.sum() == 0 and out.sum() == 6 and again.sum() == 12 and g.tolist() == [[0, 0], [4, 4], [0, 0], [2, 2]]
