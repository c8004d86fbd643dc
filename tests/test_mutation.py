"""The mutants that tests/mutation.py makes: each is one change, and each kind of change is made."""

from __future__ import annotations

import mutation


def changed(source: str) -> set[str]:
    data = source.encode()
    return {(data[: m.start] + m.text.encode() + data[m.stop :]).decode() for m in mutation.mutants(source)}


def test_each_kind_of_change_is_made():
    assert changed("a + b") == {"a - b", "a", "b"}
    assert changed("f(-x) < 2") == {"f((x)) < 2", "f(-x) <= 2", "f(-x) < 3"}
    assert changed("a if b and c else 0.5") == {
        "a if ((b)) else 0.5", "a if ((c)) else 0.5", "a if True else 0.5", "a if False else 0.5", "a if b and c else 1.0"
    }  # fmt: skip
    assert changed("y = xp.conj(x)") == {"y = (x)"} and changed("y = xp.sin(x)") == {"y = xp.cos(x)"}
    assert changed("y = f(x, axis=a, keepdims=True)") == {"y = f(x, axis=a)", "y = f(x, axis=a, keepdims=False)"}
    assert changed("y = f(a, b)") == {"y = f(b, a)"}
    assert changed("if a:\n    raise E") == {"if True:\n    raise E", "if False:\n    raise E", "if a:\n    pass"}


def test_a_mutant_compiles_and_differs_also_beside_other_alphabets():
    source = 'NAME = "ü → ∂"\n\n\ndef f(x):\n    """Ünïcode."""\n    return x * 2 + 1  # é\n'
    found = changed(source)
    assert source not in found and len(found) == 8 and all('"ü → ∂"' in m and "Ünïcode" in m for m in found)
