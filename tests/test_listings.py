"""docs/listings.md is what docs/listings.py writes, and the quick programs of it are run again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minidl as md

DOCS = Path(__file__).resolve().parent.parent / "docs"
spec = importlib.util.spec_from_file_location("listings", DOCS / "listings.py")
listings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(listings)
TABLE = (DOCS / "listings.md").read_text(encoding="utf-8")
QUICK = {listings.transforms, listings.network, listings.per_example, listings.autograd, listings.squares, listings.mlp}


def test_the_table_has_every_program_and_small_differences():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line.startswith("| ")][1:]
    titles = [f"{title} ({peer})" for _, title, _, peer in listings.PROGRAMS]
    assert [row[1] for row in rows if row[1]] == titles
    assert {s for row in rows for s in row[0].split(", ") if s} == {"3.2", "4.1", "4.2", "4.3", "5.2", "6.1", "6.2", "6.3"}
    doubles, title = 0, ""
    for row in rows:
        title = row[1] or title
        assert all(float(d) <= (1e-12 if "(PyTorch)" in title else 5e-7) for d in row[4:]), row
        doubles += "(PyTorch)" in title
    assert doubles >= 9


@pytest.mark.parametrize("program", [p for p in listings.PROGRAMS if p[2] in QUICK], ids=lambda p: p[2].__name__)
def test_a_quick_program_gives_what_the_peer_gives(program):
    _, _, run, peer = program
    shared = {"digits": [[np.random.default_rng(0).normal(size=(64, 3, 32, 32))]]}
    torch = peer == "PyTorch"
    want = run(listings.torch_library() if torch else listings.jax_library(), shared)
    with md.use_backend("numpy"):
        found = run(listings.minidl_library() if torch else listings.minidl_transforms(), shared)
    assert want.keys() == found.keys()
    for name, value in want.items():
        assert listings.apart(found[name], value) <= (1e-14 if torch else 5e-7), name
