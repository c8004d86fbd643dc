"""Checking derivatives and backends: what minidl's own suite is made of, for users' functions and third-party backends too.

`check_grad(f, args)` proves a derivative against finite differences, forward against reverse mode and second order; `conformance(backend)` runs
every primitive through a backend, and `law(backend)` the gradient at every kink, pole and tie (`python -m minidl check` does both); `bisect` finds
the operation at which two engines part; `parity` reads what the suite found on each backend; `ulps` measures distances in units of rounding.
"""

from minidl.testing.bisecting import Comparison, Fault, bisect
from minidl.testing.checks import Finding, Study, check_grad, conditioning, conformance, differences, ulps
from minidl.testing.domains import ROWS, Row, interval, lattice, uncovered
from minidl.testing.kinks import KINKS, Kink
from minidl.testing.ledger import Parity, parity
from minidl.testing.trial import law

__all__ = [
    "KINKS", "ROWS", "Comparison", "Fault", "Finding", "Kink", "Parity", "Row", "Study", "bisect", "check_grad", "conditioning", "conformance",
    "differences", "interval", "lattice", "law", "parity", "ulps", "uncovered",
]  # fmt: skip
