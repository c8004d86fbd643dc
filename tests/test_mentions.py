"""What a function's code mentions is found in its bytecode."""

from __future__ import annotations

import pytest

from minidl.mentions import mentions

HELD = None


def found(f):
    return set(mentions(f.__code__)[4])


@pytest.mark.parametrize(
    "f, names",
    [
        (lambda s, n: getattr(s, n), {".s"}),
        (lambda s, n: getattr(s.b.c, f"l{n}"), {".s"}),
        (lambda s, n: getattr(s, "a" + n), {".s"}),
        (lambda s, n: getattr(s, "x" if n else "y"), {".s"}),
        (lambda s, n: getattr(s, "a".strip(), None), {".s"}),
        (lambda s, n: getattr(HELD, n), {"HELD"}),
        (lambda s, n: [getattr(s, k) for k in n], {".s"}),
        (lambda s, n: hasattr(s, n), {".s"}),
        (lambda s, n: vars(s)[n], {".s"}),
        (lambda s, n: s.b.__dict__[n], {".s"}),
        (lambda s, n: getattr(s, "a"), set()),  # noqa: B009
        (lambda s, n: getattr(s, "a", None), set()),
        (lambda s, n: getattr(s, "a", n(s)), set()),
        (lambda s, n: getattr(s.a, "b", [n, *n]), set()),
        (lambda s, n: hasattr(s, "a"), set()),
        (lambda s, n: getattr, set()),
        (lambda s, n: s.a + n, set()),
    ],
)
def test_where_names_are_computed(f, names):
    assert found(f) == names


def test_what_is_read_and_what_is_mentioned():
    read, named, _, paths, _ = mentions((lambda x: HELD.rate * x.scale if "a" in x else getattr(x, "later", 0)).__code__)
    assert "HELD" in read and {"rate", "scale", "later"} <= named and ("HELD", "rate") in paths
