"""Control flow: cond, switch, while_loop, fori_loop, scan and map, differentiable in both modes.

Eager, a loop is a Python loop over the user's function and the tape records what it does. While tracing or under vmap the body is traced once
and becomes one equation; its derivatives are loops over derived bodies.
"""

from minidl.batching import LOOPS
from minidl.control.batches import batch_cond, batch_scan, batch_while
from minidl.control.bodies import run_graph
from minidl.control.branches import apply_cond, cond, switch
from minidl.control.loops import apply_while, fori_loop, while_loop
from minidl.control.scans import apply_scan, map, scan
from minidl.primitives import table

__all__ = ["cond", "fori_loop", "map", "run_graph", "scan", "switch", "while_loop"]

LOOPS.update(scan=apply_scan, while_loop=apply_while, cond=apply_cond)
table["scan"].batch, table["while_loop"].batch, table["cond"].batch = batch_scan, batch_while, batch_cond
