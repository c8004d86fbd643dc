"""torch.nn.parallel, which programs import and use where there are several devices: minidl runs a model on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["data_parallel"]


def data_parallel(
    module: Any, inputs: Any, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """The module of its inputs, as PyTorch has it for one device. Raises NotImplementedError for several.

    >>> import minidl as md
    >>> data_parallel(md.nn.Linear(2, 3), md.ones((4, 2)), range(1)).shape
    (4, 3)
    """
    if device_ids is not None and len(device_ids) > 1:
        raise NotImplementedError(f"data_parallel: {len(device_ids)} devices; a model runs on one, and a larger batch on several is not split")
    return module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(module_kwargs or {}))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module 'minidl.nn.parallel' has no attribute {name!r}; a model runs on one device, so leave the wrapper out")
