"""The array functions on top of the primitives, under the names of the Array API standard 2024.12, and what makes Tensors behave.

creation, elementwise, reductions, manipulation, indexing, sorting, linear, windows and info hold the functions by topic; methods attaches
operators and methods to Tensor.
"""

from minidl.ops import creation, elementwise, indexing, info, linear, manipulation, reductions, sorting, windows
from minidl.ops.creation import *  # noqa: F403
from minidl.ops.elementwise import *  # noqa: F403
from minidl.ops.indexing import *  # noqa: F403
from minidl.ops.info import *  # noqa: F403
from minidl.ops.linear import *  # noqa: F403
from minidl.ops.manipulation import *  # noqa: F403
from minidl.ops.reductions import *  # noqa: F403
from minidl.ops.sorting import *  # noqa: F403
from minidl.ops.windows import *  # noqa: F403

functions = tuple(
    name for module in (creation, elementwise, indexing, info, linear, manipulation, reductions, sorting, windows) for name in module.__all__
)
__all__ = [*functions]

from minidl.ops import methods as _methods  # noqa: E402, F401
