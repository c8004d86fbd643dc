"""Control flow: cond, switch, while_loop, fori_loop, scan and map, differentiable in both modes.

Eager, a loop is a Python loop over the user's function and the tape records what it does. While tracing or under vmap the body is traced once
and becomes one equation; its derivatives are loops over derived bodies.
"""

from minidl.control.branches import cond, switch
from minidl.control.loops import fori_loop, while_loop
from minidl.control.scans import loop, map, scan

__all__ = ["cond", "fori_loop", "loop", "map", "scan", "switch", "while_loop"]
