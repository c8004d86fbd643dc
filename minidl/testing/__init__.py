"""Checking derivatives and backends: what minidl's own suite is made of, for users' functions and third-party backends too.

`check_grad(f, args)` proves a derivative against finite differences, forward against reverse mode and second order; `conformance(backend)` runs
every primitive through a backend; `ulps` measures distances in units of rounding.
"""

from minidl.testing.checks import Finding, Study, check_grad, conditioning, conformance, differences, ulps
from minidl.testing.domains import ROWS, Row, interval, lattice, uncovered

__all__ = ["ROWS", "Finding", "Row", "Study", "check_grad", "conditioning", "conformance", "differences", "interval", "lattice", "ulps", "uncovered"]
