"""The domain rows of the suite. They are shipped with minidl (minidl/testing/domains.py), so that the conformance kit runs over the same ones."""

from minidl.testing.domains import ROWS, Row, interval, lattice, uncovered

__all__ = ["ROWS", "Row", "interval", "lattice", "uncovered"]
