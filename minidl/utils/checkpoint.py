"""torch.utils.checkpoint: a call whose intermediate values are computed again in the backward pass, by md.checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import minidl as md

__all__ = ["checkpoint", "checkpoint_sequential"]


def checkpoint(
    function: Callable[..., Any], *args: Any, use_reentrant: bool | None = None, preserve_rng_state: bool = True, context_fn: Any = None,
    determinism_check: str = "default", debug: bool = False, early_stop: bool = True, **kwargs: Any,
) -> Any:  # fmt: skip
    """md.checkpoint(function)(*args, **kwargs). The options are accepted and change nothing: draws are always replayed.

    >>> x = md.tensor(1.0, requires_grad=True)
    >>> checkpoint(lambda v: md.exp(md.exp(v)), x, use_reentrant=False).backward()
    >>> round(x.grad.item(), 3)
    41.194
    """
    return md.checkpoint(function)(*args, **kwargs)


def checkpoint_sequential(functions: Iterable[Any], segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any) -> Any:
    """The functions (or an nn.Sequential) one after the other in so many segments, of which all but the last are checkpointed.

    >>> net = md.nn.Sequential(md.nn.Linear(2, 3), md.nn.Tanh(), md.nn.Linear(3, 1))
    >>> bool((checkpoint_sequential(net, 2, md.ones(4, 2)) == net(md.ones(4, 2))).all())
    True
    """
    layers = list(functions.children() if isinstance(functions, md.nn.Sequential) else functions)
    size = len(layers) // segments

    def run(start: int, end: int) -> Callable[[Any], Any]:
        def part(x: Any) -> Any:
            for f in layers[start:end]:
                x = f(x)
            return x

        return part

    for k in range(segments - 1):
        input = checkpoint(run(k * size, (k + 1) * size), input, **kwargs)
    return run((segments - 1) * size, len(layers))(input)
