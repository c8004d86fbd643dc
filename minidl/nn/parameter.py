"""Parameter: a Tensor that a Module counts among the things to train. Buffer: one that it keeps beside them."""

from __future__ import annotations

from typing import Any

import minidl as md


class Parameter(md.Tensor):
    """A leaf Tensor that becomes part of `module.parameters()` when it is set as an attribute of a Module.

    data: any Tensor, NumPy array or nested list; its values are taken over, its place on the tape is not. Raises RuntimeError for an integer
    dtype with requires_grad=True.

    >>> Parameter(md.zeros(2)).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        data = (data if isinstance(data, md.Tensor) else md.asarray(data)).detach()
        super().__init__(data.payload, data.xp, data.dtype)
        if requires_grad:
            self.requires_grad_()

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __copy__(self) -> Parameter:
        return Parameter(self.detach(), self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copy = Parameter(self.detach(), self.requires_grad)
        if self.grad is not None:
            copy.grad = self.grad.detach()
        return copy


class Buffer(md.Tensor):
    """A Tensor that becomes part of `module.buffers()` when it is set as an attribute of a Module: state that is not trained.

    data: as for Parameter. persistent=False leaves it out of state_dict.

    >>> module = md.nn.Module()
    >>> module.mean = Buffer(md.zeros(2))
    >>> list(module.state_dict())
    ['mean']
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Any, *, persistent: bool = True):
        data = (data if isinstance(data, md.Tensor) else md.asarray(data)).detach()
        super().__init__(data.payload, data.xp, data.dtype)
        self.persistent = persistent

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _buffer, (self.detach(), self.persistent)

    def __copy__(self) -> Buffer:
        return Buffer(self.detach(), persistent=self.persistent)

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        return self.__copy__()


def _buffer(data: md.Tensor, persistent: bool) -> Buffer:
    return Buffer(data, persistent=persistent)


def blank(*shape: int, dtype: Any = None, device: str | None = None) -> Parameter:
    """A parameter whose values are still to be drawn, on the default backend."""
    return Parameter(md.zeros(shape, dtype=dtype or md.get_default_dtype(), device=device))
