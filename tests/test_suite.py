"""The suite holds itself to its rules: a test is skipped for a reason that is written down, or it fails."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

from conftest import SKIPS, may_skip

HERE = Path(__file__).parent

LAX = """
import pytest

@pytest.mark.skipif(True, reason="not today")
def test_skipped(): ...

@pytest.mark.xfail
def test_expected_to_fail():
    assert False

@pytest.mark.skip(reason="needs a CUDA device")
def test_allowed(): ...
"""


def test_reasons_are_explained():
    with SKIPS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(r["reason"] and r["why it may be skipped"] for r in rows)
    assert may_skip("Skipped: needs a CUDA device") and may_skip("gap: qr on torch") and not may_skip("later")


def test_every_reason_that_a_test_says_has_a_row():
    """Also where this machine has what the test needs."""
    said = {(path.name, r) for path in HERE.glob("test_*.py") for r in re.findall(r'(?:skipif\([^\n]*reason=|\.skip\()"([^"\n]+)"', path.read_text())}
    allowed = {(name, reason) for name, reason in said if may_skip(reason)}
    assert len(allowed) >= 10 and said - allowed == {(Path(__file__).name, "not today")}


def test_an_unlisted_skip_fails(tmp_path):
    (tmp_path / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "skips.csv").write_text(SKIPS.read_text())
    (tmp_path / "test_lax.py").write_text(LAX)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert "1 failed, 1 skipped, 1 error" in done.stdout, done.stdout
    assert "not today, which tests/skips.csv does not allow" in done.stdout
