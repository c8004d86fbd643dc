"""What PyTorch's programs call around a model: files, stateless calls, ensembles."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import minidl as md

__all__ = [
    "Generator", "functional_call", "get_rng_state", "grad_and_value", "load", "replace_all_batch_norm_modules_", "save", "set_rng_state",
    "stack_module_state",
]  # fmt: skip

Generator = md.random.Generator


def save(obj: Any, f: Any) -> None:
    """Write a state_dict, or a dict with several of them and numbers, to a file: md.saving.save(f, obj).

    f: a path, or an open binary file such as io.BytesIO. What is written is safetensors, not a pickle, so only what `md.saving.save` lists can be in
    it; no module or function.
    """
    if hasattr(f, "write"):
        with tempfile.TemporaryDirectory() as folder:
            md.saving.save(Path(folder) / "saved", obj)
            f.write((Path(folder) / "saved").read_bytes())
    else:
        md.saving.save(f, obj)


def load(f: Any, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """What `save` wrote; map_location: the device that the tensors go to. Nothing is ever run from a file, so weights_only=False,
    which would allow it in PyTorch, brings no more.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> md.save({"epoch": 3, "model": {"w": md.ones(2)}}, path)
    >>> md.load(path)["epoch"]
    3
    """
    device = None if map_location is None else str(map_location)
    if not hasattr(f, "read"):
        return md.saving.load(f, device=device)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "saved").write_bytes(f.read())
        return md.saving.load(Path(folder) / "saved", device=device)


def functional_call(
    module: Any, parameter_and_buffer_dicts: Any, args: Any = None, kwargs: dict[str, Any] | None = None, *, tie_weights: bool = True,
    strict: bool = False,
) -> Any:  # fmt: skip
    """module(*args, **kwargs) with these tensors in the place of its own: md.nn.utils.stateless.functional_call.

    >>> net = md.nn.Linear(2, 1, bias=False)
    >>> md.functional_call(net, {"weight": md.ones((1, 2))}, (md.ones(2),)).item()
    2.0
    """
    return md.nn.utils.stateless.functional_call(module, parameter_and_buffer_dicts, args, kwargs, tie_weights=tie_weights, strict=strict)


def stack_module_state(models: Sequence[Any]) -> tuple[dict[str, md.Tensor], dict[str, md.Tensor]]:
    """The parameters and the buffers of models of one kind, stacked along a new first axis: what md.vmap maps over.
    Raises RuntimeError for no model.

    >>> nets = [md.nn.Linear(2, 3) for _ in range(4)]
    >>> params, buffers = md.stack_module_state(nets)
    >>> md.vmap(lambda p: md.functional_call(nets[0], p, (md.ones(2),)))(params).shape
    (4, 3)
    """
    if not models:
        raise RuntimeError("stack_module_state: at least one model is wanted")

    def stacked(of: Callable[[Any], Any]) -> dict[str, md.Tensor]:
        each = [dict(of(m)) for m in models]
        out = {k: md.stack([e[k].detach() for e in each]) for k in each[0]}
        return {k: v.requires_grad_() if each[0][k].requires_grad else v for k, v in out.items()}

    return stacked(lambda m: m.named_parameters()), stacked(lambda m: m.named_buffers())


def grad_and_value(func: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False) -> Callable[..., tuple[Any, Any]]:
    """md.value_and_grad, which answers in the other order, as torch.func has it: (gradient, value), or (gradient, (value, aux)).

    >>> [v.item() for v in md.grad_and_value(lambda x: x * x)(md.tensor(3.0))]
    [6.0, 9.0]
    """

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        value, grad = md.value_and_grad(func, argnums, has_aux=has_aux)(*args, **kwargs)
        return grad, value

    return both


def replace_all_batch_norm_modules_(root: Any) -> Any:
    """Let every BatchNorm in a module forget its running statistics and use those of the batch, so that nothing is written under vmap; returns it.

    >>> md.replace_all_batch_norm_modules_(md.nn.BatchNorm1d(2)).running_mean is None
    True
    """
    for m in root.modules():
        if isinstance(m, (md.nn.BatchNorm1d, md.nn.BatchNorm2d, md.nn.BatchNorm3d)):
            m.running_mean = m.running_var = m.num_batches_tracked = None
            m.track_running_stats = False
    return root


def get_rng_state() -> md.Tensor:
    """The state of the default generator, for set_rng_state.

    >>> state = md.get_rng_state()
    >>> first = md.rand(2)
    >>> md.set_rng_state(state)
    >>> (md.rand(2) == first).all().item()
    True
    """
    return md.random.default_generator.key.detach()


def set_rng_state(new_state: md.Tensor) -> None:
    """Go back to what get_rng_state returned, also when a file kept it."""
    md.random.default_generator.restore(new_state)
