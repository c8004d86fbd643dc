"""Gradients of single examples by vmap of grad, and what DP-SGD makes of them.

Source: M. Abadi et al., Deep learning with differential privacy (CCS 2016). Promises: the same numbers on every backend for the same key (the noise
is md.random's), eager and jitted; the noise is added to the sum of all examples once, so that micro-batches cannot weaken it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minidl as md

Loss = Callable[..., md.Tensor]


def example_gradients(loss: Loss) -> Callable[..., Any]:
    """A function of (parameters, *batch) that gives the gradient of each example: the parameters' pytree, with the batch axis in front.

    loss(parameters, *example) is the loss of one example, without a batch axis; batch: pytrees whose first axis is that of the examples.

    >>> import minidl as md
    >>> g = example_gradients(lambda w, x: (w * x).sum())(md.ones((2,)), md.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> g.tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """

    def gradients(parameters: Any, *batch: Any) -> Any:
        return md.vmap(md.grad(loss), in_axes=(None, *(0 for _ in batch)))(parameters, *batch)

    return gradients


def clip_examples(gradients: Any, clip: float, weights: md.Tensor | None = None) -> tuple[list[md.Tensor], md.Tensor]:
    """(the sum over the examples of their gradients, each scaled to a norm of at most `clip`, as a list of leaves; the norms before that, [N]).

    gradients: as from example_gradients. The norm is over all leaves together. weights: [N], 0 for a row of padding, which then adds nothing. Raises
    ValueError for a clip that is not above 0.

    >>> import minidl as md
    >>> total, norms = clip_examples(md.tensor([[3.0, 4.0], [0.3, 0.4]]), clip=1.0)
    >>> [round(v, 4) for v in total[0].tolist()], norms.tolist()
    ([0.9, 1.2], [5.0, 0.5])
    """
    if not clip > 0:
        raise ValueError(f"clip_examples: clip must be above 0, got {clip}")
    leaves = md.tree.leaves(gradients)
    n = leaves[0].shape[0]
    squares = sum((md.square(g).reshape((n, -1)).sum(axis=1) for g in leaves[1:]), md.square(leaves[0]).reshape((n, -1)).sum(axis=1))
    norms = md.sqrt(squares)
    scale = md.minimum(md.full_like(norms, 1.0), clip / md.maximum(norms, md.full_like(norms, 1e-12)))
    scale = scale if weights is None else scale * weights.to(scale.dtype)
    return [(g * scale.reshape((n, *(1,) * (g.ndim - 1)))).sum(axis=0) for g in leaves], norms


def private_gradient(loss: Loss, clip: float, noise: float, expected: float | None = None) -> Callable[..., Any]:
    """A function of (key, parameters, *batch, weights=None) that gives the private mean gradient, a pytree like the parameters.

    Each example's gradient is scaled to a norm of at most `clip`; to their sum normal noise of standard deviation noise · clip is added; the whole is
    divided by `expected`, the expected number of examples in a batch (default: the size of the batch that comes, where every batch has that size).
    loss, batch: as in example_gradients; weights: as in clip_examples. Raises ValueError for a negative noise.

    >>> import minidl as md
    >>> f = private_gradient(lambda w, x: (w * x).sum(), clip=1.0, noise=0.0)
    >>> [round(v, 4) for v in f(md.random.key(0), md.ones((2,)), md.tensor([[3.0, 4.0], [0.3, 0.4]])).tolist()]
    [0.45, 0.6]
    """
    if noise < 0:
        raise ValueError(f"private_gradient: noise must not be negative, got {noise}")
    each = example_gradients(loss)

    def gradient(key: md.Tensor, parameters: Any, *batch: Any, weights: md.Tensor | None = None) -> Any:
        found = each(parameters, *batch)
        sums, norms = clip_examples(found, clip, weights)
        count = norms.shape[0] if expected is None else expected
        structure = md.tree.flatten(found)[1]
        if noise:
            keys = md.random.split(key, len(sums))
            sums = [s + (noise * clip) * md.random.normal(keys[i], s.shape, s.dtype) for i, s in enumerate(sums)]
        return md.tree.unflatten(structure, [s / count for s in sums])

    return gradient
