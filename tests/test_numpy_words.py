"""What NumPy, JAX and PyTorch call alike takes the words that they share for its arguments."""

from __future__ import annotations

import minidl as md


def test_axis_is_a_word_for_dim():
    x = md.tensor([[1.0, 2.0], [3.0, 4.0]])
    for f in (md.cumsum, md.cumprod, md.logcumsumexp, md.amax, md.amin):
        assert f(x, axis=1).tolist() == f(x, 1).tolist() == f(x, dim=1).tolist()
    assert md.amax(x, axis=0, keepdims=True).shape == (1, 2)
    assert md.cumsum(md.tensor([1, 2, 3])).tolist() == [1, 3, 6]
    assert md.concatenate([x, x], axis=1).tolist() == md.cat([x, x], 1).tolist() == [[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]]
