"""Activation layers: each a function of nn.functional with its constants as attributes."""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn.module import Module


class _Activation(Module):
    """A function of one tensor; `settings` are its further arguments in order, with their defaults, `shown` those that the print shows."""

    function: Any = None
    settings: tuple[tuple[str, Any], ...] = ()

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        names = [n for n, _ in self.settings]
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__} takes {len(names)} arguments ({', '.join(names) or 'none'}), got {len(args)}")
        given = dict(zip(names, args, strict=False))
        for name in kwargs:
            if name not in names or name in given:
                raise TypeError(f"{type(self).__name__} has no free argument {name!r}; it takes {', '.join(names) or 'none'}")
        for name, default in self.settings:
            setattr(self, name, {**given, **kwargs}.get(name, default))

    def forward(self, x: md.Tensor) -> md.Tensor:
        return type(self).function(x, *(getattr(self, n) for n, _ in self.settings))

    def extra_repr(self) -> str:
        pairs = ((n, getattr(self, n)) for n, _ in self.settings)
        return ", ".join(f"{n}={v!r}" for n, v in pairs if n != "inplace" or v)


_INPLACE = ("inplace", False)
_ROWS: tuple[tuple[str, Any, tuple[tuple[str, Any], ...]], ...] = (
    ("ReLU", F.relu, (_INPLACE,)),
    ("ReLU6", F.relu6, (_INPLACE,)),
    ("LeakyReLU", F.leaky_relu, (("negative_slope", 0.01), _INPLACE)),
    ("ELU", F.elu, (("alpha", 1.0), _INPLACE)),
    ("CELU", F.celu, (("alpha", 1.0), _INPLACE)),
    ("SELU", F.selu, (_INPLACE,)),
    ("GELU", F.gelu, (("approximate", "none"),)),
    ("SiLU", F.silu, (_INPLACE,)),
    ("Mish", F.mish, (_INPLACE,)),
    ("Tanh", F.tanh, ()),
    ("Sigmoid", F.sigmoid, ()),
    ("LogSigmoid", F.logsigmoid, ()),
    ("Softplus", F.softplus, (("beta", 1.0), ("threshold", 20.0))),
    ("Hardtanh", F.hardtanh, (("min_val", -1.0), ("max_val", 1.0), _INPLACE)),
    ("Hardsigmoid", F.hardsigmoid, (_INPLACE,)),
    ("Hardswish", F.hardswish, (_INPLACE,)),
    ("Softmax", F.softmax, (("dim", -1),)),
    ("LogSoftmax", F.log_softmax, (("dim", -1),)),
)
__all__ = [name for name, _, _ in _ROWS]

for _name, _function, _settings in _ROWS:
    globals()[_name] = type(_name, (_Activation,), {
        "__module__": __name__, "__doc__": f"nn.functional.{_function.__name__} as a layer: {_function.__doc__}",
        "function": staticmethod(_function), "settings": _settings,
    })  # fmt: skip
