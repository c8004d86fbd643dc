"""The array functions on top of the primitives, under the names of the Array API standard 2025.12, and what makes Tensors behave.

creation, elementwise, reductions, manipulation, indexing and linear hold the functions by topic; methods and exchange attach operators and methods
to Tensor; views says what a write to a view does, common holds what all share.
"""

from minidl import generated as _generated  # noqa: F401  (fills ns, which the operations are made of)
from minidl.errors import check_all as _check_all
from minidl.errors import spelled as _spelled
from minidl.ops import creation, elementwise, indexing, linear, manipulation, reductions
from minidl.ops.creation import *  # noqa: F403
from minidl.ops.elementwise import *  # noqa: F403
from minidl.ops.indexing import *  # noqa: F403
from minidl.ops.linear import *  # noqa: F403
from minidl.ops.manipulation import *  # noqa: F403
from minidl.ops.reductions import *  # noqa: F403

_MODULES = (creation, elementwise, reductions, manipulation, indexing, linear)
functions = tuple(name for module in _MODULES for name in module.__all__)
__all__ = [*functions]
for _module in _MODULES:
    _check_all(vars(_module), [_name for _name in _module.__all__ if _name not in elementwise._TABLE])  # these have the contract inside
    globals().update({_name: getattr(_module, _name) for _name in _module.__all__})
for _name in "argmax argmin concat expand_dims log_softmax max mean min permute_dims softmax stack sum".split():
    globals()[_name] = _spelled(globals()[_name])

from minidl.ops import methods as _methods  # noqa: E402, F401
