"""The wheel holds all of minidl and nothing else, and works where no checkout is near.

backends/ is packaged as minidl.backends by setup.cfg; the link minidl/backends serves an uninstalled run. Both readings must give the same
wheel, also where links are checked out as text and also by way of a source distribution.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CARRIED = ("minidl", "backends", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")

PROGRAM = """
import sys, minidl as md
import minidl.nn, minidl.optim, minidl.data, minidl.backends.numpy_backend
from pathlib import Path
for name in ("minidl", "minidl.nn", "minidl.backends", "minidl.backends.numpy_backend"):
    assert Path(sys.modules[name].__file__).is_relative_to(sys.argv[1]), name
assert (Path(minidl.data.__file__).parent / "digits.npz").exists()
x = md.tensor([1.0, 2.0], requires_grad=True)
(x * x).sum().backward()
assert x.grad.tolist() == [2.0, 4.0]
assert md.jit(md.grad(lambda x: (x * x * x).sum()))(md.tensor([1.0, 2.0])).tolist() == [3.0, 12.0]
"""


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what a wheel is made from, so that building leaves nothing in the tree."""
    for need in ("setuptools", "pip"):
        if not list(importlib.metadata.distributions(name=need)):  # to look for the module pip would switch setuptools' distutils off in this process
            pytest.skip(f"building a wheel offline needs {need}: pip install minidl[test]")
    target = tmp_path_factory.mktemp("checkout")
    for name in CARRIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target


def wheel(checkout: Path, out: Path) -> Path:
    """The wheel that pip builds from a checkout with the tools at hand."""
    run(sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", out, cwd=checkout)
    (path,) = out.glob("*.whl")
    return path


def members(path: Path) -> set[str]:
    """The files of a wheel, its metadata apart."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if ".dist-info/" not in n]
    assert len(names) == len(set(names))
    return set(names)


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    return wheel(checkout, tmp_path_factory.mktemp("wheel"))


def expected(root: Path) -> set[str]:
    """What the wheel must hold: every source file and the data files."""
    files = {p.relative_to(root).as_posix() for p in (root / "minidl").rglob("*.py") if not p.is_relative_to(root / "minidl" / "backends")}
    files |= {"minidl/" + p.relative_to(root).as_posix() for p in (root / "backends").rglob("*.py")}
    return files | {"minidl/data/digits.npz", "minidl/data/DIGITS.md", "minidl/testing/ledger.csv"}


def test_setup_cfg_lists_every_package():
    """A new folder with an __init__.py would be missing from the wheel without a word."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    assert listed == {str(Path(name).parent).replace("/", ".") for name in expected(ROOT) if name.endswith("__init__.py")}


def test_the_wheel_is_complete(checkout, built):
    assert members(built) == expected(checkout)


def test_the_wheel_works_from_an_empty_folder(built, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", site, built, cwd=empty)
    run(sys.executable, "-c", PROGRAM, site, cwd=empty, PYTHONPATH=str(site), MINIDL_BACKEND="numpy")
    points = "import importlib.metadata as m; print(*sorted(e.name for e in next(m.distributions(name='minidl')).entry_points))"
    assert run(sys.executable, "-c", points, cwd=empty, PYTHONPATH=str(site)).split() == ["jax", "numba", "numpy", "torch"]


def test_a_link_checked_out_as_text_gives_the_same_wheel(checkout, built, tmp_path):
    """Git without the right to make links writes the target's name into a small file."""
    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    link = copy / "minidl" / "backends"
    assert link.is_symlink()
    link.unlink()
    link.write_text("../backends")
    assert members(wheel(copy, tmp_path / "out")) == members(built)


def test_the_source_distribution_gives_the_same_wheel(checkout, built, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    build = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    archive = copy / "dist" / run(sys.executable, "-c", build, cwd=copy).split()[-1]
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert members(wheel(source, tmp_path / "out")) == members(built)
