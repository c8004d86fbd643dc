"""PyTorch's names (JAX's: of_jax, NumPy's: of_numpy) for what minidl calls otherwise or composes: `md.cat`, `x.masked_fill_(mask, v)`.

Array functions have the Array API's names. This room holds the others that PyTorch programs use, with PyTorch's arguments; it is loaded when the
first of them is asked for, as a function (`md.cat`) or as a method (`x.expand(3, -1)`), and adds nothing that minidl could not do before: every one
is an alias or a few lines over the public names. Where one name means two things, the Array API's meaning stays: `x.max(axis)` has no indices
(`x.max(dim=0)` has), `x.std()` no correction, `x.repeat` repeats elements (docs/torch_names.md lists them all).

>>> import minidl as md
>>> md.cat([md.zeros(1, 2), md.ones(1, 2)], dim=0).masked_fill(md.tensor([True, False]), 7.0).tolist()
[[7.0, 0.0], [7.0, 1.0]]
"""

from minidl.idioms import creating, derivatives, functions, further, of_jax, of_numpy, placing, shaping, signals, training, writing
from minidl.idioms.absent import ABSENT
from minidl.idioms.function import Function, function
from minidl.idioms.names import ALIASES, FUNCTIONS, attach

_ROOMS = (creating, functions, further, placing, shaping, signals, training)
_FOUND = ALIASES | {_name: getattr(_room, _name) for _room in _ROOMS for _name in _room.__all__}
#: Room -> name -> what it is there.
NAMES = {
    **of_jax.NAMES, "md": of_jax.NAMES["md"] | of_numpy.NAMES | _FOUND | FUNCTIONS,
    "autograd": {
        "Function": Function, "function": function, "inference_mode": ALIASES["inference_mode"],
        **{_name: getattr(derivatives, _name) for _name in derivatives.__all__},
    },
    "Tensor": {},
}  # fmt: skip
ABSENT = {**of_jax.ABSENT, **ABSENT, "md": of_jax.ABSENT["md"] | ABSENT["md"]}
__all__ = ["ABSENT", "METHODS", "NAMES"]  # which docs/torch_names.md lists
globals().update(NAMES["md"])
#: The names of the methods that Tensor has from this room.
METHODS = attach(_FOUND, writing.METHODS | {"block_until_ready": of_jax.block_until_ready})
