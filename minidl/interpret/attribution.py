"""Attributions by gradients: how much each input, or each place of a feature map, has to do with a score.

Promises: examples of a batch do not influence each other (as long as they do not in the model: evaluate with model.eval()); nothing is left
behind: no gradient on a parameter, no hook on a Module, no tape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

import minidl as md
from minidl import nn

F = TypeVar("F", bound=Callable[..., Any])
Model = Callable[[md.Tensor], md.Tensor]
Target = int | Sequence[int] | md.Tensor | None


def _values(method: F) -> F:
    """The method under no_grad: attributions are values, through which nothing flows back to the parameters."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with md.no_grad():
            return method(*args, **kwargs)

    return call  # type: ignore[return-value]


def _chosen(name: str, target: Any) -> int | np.ndarray | md.Tensor | None:
    """The target as an int or an array of integers."""
    if isinstance(target, np.integer):
        return int(target)
    if isinstance(target, (list, tuple)):
        target = np.asarray(target)
    whole = target.dtype.kind in ("int", "uint", "i", "u") if isinstance(target, (md.Tensor, np.ndarray)) else type(target) in (int, type(None))
    if not whole:
        raise TypeError(f"{name}: target is a class or one for each example, integers, and {target!r} came")
    return target


def _score(name: str, f: Model, target: Target) -> Callable[[md.Tensor], md.Tensor]:
    """x → the sum over the batch of the score of each example's target."""
    chosen = _chosen(name, target)

    def score(x: md.Tensor) -> md.Tensor:
        out = f(x)
        if not isinstance(out, md.Tensor) or out.ndim not in (1, 2) or out.shape[0] != x.shape[0]:
            came = f"shape {out.shape}" if isinstance(out, md.Tensor) else type(out).__name__
            raise ValueError(f"{name}: the model must give scores [N] or [N, classes] for inputs [N, ...], and {came} came for {x.shape}")
        if out.ndim == 1:
            if chosen is not None:
                raise ValueError(f"{name}: the model gives one score for each example, so there is no target to choose")
            return out.sum()
        if chosen is None:
            if out.shape[1] != 1:
                raise ValueError(f"{name}: the model gives {out.shape[1]} scores for each example; say which by target (an integer, or one for each)")
            return out.sum()
        if isinstance(chosen, int):
            if not -out.shape[1] <= chosen < out.shape[1]:
                raise IndexError(f"{name}: target {chosen}, but there are {out.shape[1]} classes")
            return out[:, chosen].sum()
        if chosen.shape != (out.shape[0],):
            raise ValueError(f"{name}: one target for each of {out.shape[0]} examples is wanted, and shape {chosen.shape} came")
        return _picked(out, chosen).sum()

    return score


def _base(x: md.Tensor, baseline: md.Tensor | float) -> md.Tensor:
    """The baseline in x's shape."""
    return md.full_like(x, baseline) if isinstance(baseline, (int, float)) else md.broadcast_to(baseline, x.shape)


def _picked(out: md.Tensor, chosen: np.ndarray | md.Tensor) -> md.Tensor:
    """The score of each example's own class; a list or NumPy array of classes goes where the scores are."""
    at = chosen if isinstance(chosen, md.Tensor) else md.asarray(chosen, backend=out.backend, device=out.device)
    return md.take_along_axis(out, at[:, None], axis=1)[:, 0]


@_values
def saliency(f: Model, x: md.Tensor, target: Target = None) -> md.Tensor:
    """The size of the derivative of each example's score in each of its inputs, of x's shape.

    f: inputs [N, ...] to scores [N, classes] (target: a class, or one for each example) or [N]. Source: K. Simonyan et al., Deep inside convolutional
    networks (2014). Raises ValueError for other outputs and targets, TypeError for targets that are no integers, IndexError for a class that there is
    not.

    >>> import minidl as md
    >>> saliency(lambda x: x[:, 0] * 2.0 - x[:, 1], md.tensor([[5.0, 1.0]])).tolist()
    [[2.0, 1.0]]
    """
    return md.abs(md.grad(_score("saliency", f, target))(x))


@_values
def input_times_gradient(f: Model, x: md.Tensor, target: Target = None) -> md.Tensor:
    """Each input times the derivative of its example's score in it: exact shares of the score where the model is linear.

    Arguments as of saliency. Source: A. Shrikumar et al., Not just a black box (2016).

    >>> import minidl as md
    >>> input_times_gradient(lambda x: x[:, 0] * 2.0 - x[:, 1], md.tensor([[5.0, 1.0]])).tolist()
    [[10.0, -1.0]]
    """
    return x * md.grad(_score("input_times_gradient", f, target))(x)


@_values
def integrated_gradients(
    f: Model, x: md.Tensor, baseline: md.Tensor | float = 0.0, target: Target = None, steps: int = 50, return_delta: bool = False
) -> Any:
    """(x - baseline) times the mean of the gradient on the straight way from baseline to x, by Gauss-Legendre quadrature with `steps` points.

    The attributions of an example add up to f(x) - f(baseline) (completeness); return_delta also returns by how much they miss it, [N]: more steps
    bring it down. Arguments as of saliency. Source: M. Sundararajan et al., Axiomatic attribution for deep networks (ICML 2017). Raises ValueError
    for steps < 1, and what saliency raises.

    >>> import minidl as md
    >>> found, delta = integrated_gradients(lambda x: (x * x).sum(axis=1), md.tensor([[1.0, 3.0]]), return_delta=True)
    >>> md.round(found).tolist(), abs(delta.item()) < 1e-5
    ([[1.0, 9.0]], True)
    """
    if steps < 1:
        raise ValueError(f"integrated_gradients: steps must be at least 1, got {steps}")
    base = _base(x, baseline)
    points, weights = np.polynomial.legendre.leggauss(steps)
    score = _score("integrated_gradients", f, target)
    way = md.asarray(((points + 1) / 2).astype(x.dtype.numpy)).to(backend=x.backend, device=x.device)
    share = md.asarray((weights / 2).astype(x.dtype.numpy)).to(backend=x.backend, device=x.device)

    def add(total: md.Tensor, at: tuple[md.Tensor, md.Tensor]) -> tuple[md.Tensor, None]:
        return total + md.grad(score)(base + at[0] * (x - base)) * at[1], None

    mean, _ = md.scan(add, md.zeros_like(x), (way, share))
    found = (x - base) * mean
    if not return_delta:
        return found
    gained = _scores("integrated_gradients", f, x, target) - _scores("integrated_gradients", f, base, target)
    return found, found.reshape((x.shape[0], -1)).sum(axis=1) - gained


def _scores(name: str, f: Model, x: md.Tensor, target: Target) -> md.Tensor:
    """The score of each example."""
    out, chosen = f(x), _chosen(name, target)
    if out.ndim == 1 or chosen is None:
        return out.reshape((-1,))
    return out[:, chosen] if isinstance(chosen, int) else _picked(out, chosen)


@_values
def smooth_grad(
    f: Model, x: md.Tensor, target: Target = None, samples: int = 25, noise: float = 0.15, key: md.Tensor | None = None
) -> md.Tensor:
    """The mean gradient around x: at `samples` points with normal noise of standard deviation `noise` times the range of its example.

    key: of md.random (default: key(0)), so that the result is reproducible, and the same on every backend. Other arguments as of saliency. Source:
    D. Smilkov et al., SmoothGrad: removing noise by adding noise (2017). Raises ValueError for samples < 1, and what saliency raises.

    >>> import minidl as md
    >>> smooth_grad(lambda x: (x * 2.0).sum(axis=1), md.ones((1, 3)), samples=4).tolist()
    [[2.0, 2.0, 2.0]]
    """
    if samples < 1:
        raise ValueError(f"smooth_grad: samples must be at least 1, got {samples}")
    score = _score("smooth_grad", f, target)
    keys = md.random.split(md.random.key(0) if key is None else key, samples).to(backend=x.backend, device=x.device)
    inner = tuple(range(1, x.ndim))
    spread = (md.max(x, axis=inner, keepdims=True) - md.min(x, axis=inner, keepdims=True)) * noise

    def add(total: md.Tensor, k: md.Tensor) -> tuple[md.Tensor, None]:
        return total + md.grad(score)(x + spread * md.random.normal(k, x.shape, x.dtype)), None

    return md.scan(add, md.zeros_like(x), keys)[0] / samples


@_values
def grad_cam(model: nn.Module, layer: nn.Module, x: md.Tensor, target: Target = None, resize: bool = True) -> md.Tensor:
    """Where in an image the class was seen: the layer's feature maps, weighted by the mean of the score's gradient in each, above 0.

    layer: a Module of `model` whose output is [N, channels, *spatial], the last convolution as a rule. Returns [N, *spatial of x] (resize, linear
    interpolation), or [N, *spatial of the layer]. Other arguments as of saliency. Source: R. Selvaraju et al., Grad-CAM (ICCV 2017). Raises
    ValueError for a layer that the model does not run, or runs twice.

    >>> import minidl as md
    >>> from minidl import nn
    >>> conv = nn.Conv2d(1, 4, 3)
    >>> net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2)).eval()
    >>> grad_cam(net, conv, md.ones((2, 1, 8, 8)), target=1).shape
    (2, 8, 8)
    """
    score = _score("grad_cam", model, target)

    def with_offset(offset: md.Tensor | None) -> tuple[Any, list[md.Tensor]]:
        seen: list[md.Tensor] = []

        def hook(module: Any, args: Any, out: md.Tensor) -> md.Tensor:
            seen.append(out.detach().clone())  # a layer that comes after may write over it
            return out if offset is None else out + offset

        handle = layer.register_forward_hook(hook)
        try:
            return score(x), seen
        finally:
            handle.remove()

    _, found = with_offset(None)
    if len(found) != 1:
        raise ValueError(f"grad_cam: the model runs the layer {type(layer).__name__} {len(found)} times; once is wanted")
    maps = found[0]
    if maps.ndim < 3:
        raise ValueError(f"grad_cam: the layer's output has shape {maps.shape}; [N, channels, *spatial] is wanted")
    gradient = md.grad(lambda offset: with_offset(offset)[0])(md.zeros_like(maps))
    spatial = tuple(range(2, maps.ndim))
    cam = md.relu((maps * md.mean(gradient, axis=spatial, keepdims=True)).sum(axis=1))
    if not resize or cam.shape[1:] == x.shape[2:]:
        return cam
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[cam.ndim - 1]
    return nn.functional.interpolate(cam[:, None], size=x.shape[2:], mode=mode)[:, 0]
