"""What NumPy, JAX and PyTorch call alike takes the words that they share for its arguments."""

from __future__ import annotations

import pytest

import minidl as md
import minidl.nn.functional as F

X = md.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 9.0]])
CALLS = {
    "cross": lambda **dim: md.cross(X, X.flip(0), **dim), "trapezoid": lambda **dim: md.trapezoid(X, **dim),
    "cumulative_trapezoid": lambda **dim: md.cumulative_trapezoid(X, **dim), "unique": lambda **dim: md.unique(X, **dim),
    "split_with_sizes": lambda **dim: md.split_with_sizes(X, [1, 2], **dim)[1], "softmax": lambda **dim: F.softmax(X, **dim),
    "repeat_interleave": lambda **dim: X.repeat_interleave(2, **dim), "log_softmax": lambda **dim: F.log_softmax(X, **dim),
    "glu": lambda **dim: F.glu(md.concat([X, X], axis=1), **dim), "normalize": lambda **dim: F.normalize(X, **dim),
    "cosine_similarity": lambda **dim: F.cosine_similarity(X, X + 1, **dim), "gather": lambda **dim: X.gather(index=md.tensor([[2]]), **dim),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_functions_with_a_dim_know_numpys_word(name):
    f = CALLS[name]
    assert f(axis=1).tolist() == f(dim=1).tolist()
    with pytest.raises(TypeError, match="two words for one argument"):
        f(dim=1, axis=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'axes_'"):
        f(dim=1, axes_=1)


def test_axis_is_a_word_for_dim():
    x = md.tensor([[1.0, 2.0], [3.0, 4.0]])
    for f in (md.cumsum, md.cumprod, md.logcumsumexp, md.amax, md.amin):
        assert f(x, axis=1).tolist() == f(x, 1).tolist() == f(x, dim=1).tolist()
    assert md.amax(x, axis=0, keepdims=True).shape == (1, 2)
    assert md.cumsum(md.tensor([1, 2, 3])).tolist() == [1, 3, 6]
    assert md.concatenate([x, x], axis=1).tolist() == md.cat([x, x], 1).tolist() == [[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]]
