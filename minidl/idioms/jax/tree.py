"""jax.tree: jax.tree_util's functions under their short names."""

from minidl.idioms.jax.tree_util import register_static as static
from minidl.idioms.jax.tree_util import tree_all as all
from minidl.idioms.jax.tree_util import tree_broadcast as broadcast
from minidl.idioms.jax.tree_util import tree_flatten as flatten
from minidl.idioms.jax.tree_util import tree_flatten_with_path as flatten_with_path
from minidl.idioms.jax.tree_util import tree_leaves as leaves
from minidl.idioms.jax.tree_util import tree_leaves_with_path as leaves_with_path
from minidl.idioms.jax.tree_util import tree_map as map
from minidl.idioms.jax.tree_util import tree_map_with_path as map_with_path
from minidl.idioms.jax.tree_util import tree_reduce as reduce
from minidl.idioms.jax.tree_util import tree_reduce_associative as reduce_associative
from minidl.idioms.jax.tree_util import tree_structure as structure
from minidl.idioms.jax.tree_util import tree_transpose as transpose
from minidl.idioms.jax.tree_util import tree_unflatten as unflatten

__all__ = [
    "all", "broadcast", "flatten", "flatten_with_path", "leaves", "leaves_with_path", "map", "map_with_path", "reduce", "reduce_associative",
    "static", "structure", "transpose", "unflatten",
]  # fmt: skip
