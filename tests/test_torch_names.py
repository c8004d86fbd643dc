"""docs/torch_names.md: every name of torch.nn and torch.optim is in minidl or has a reason not to be, and what is there has PyTorch's arguments."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from test_nn_parity import arguments, same_arguments

import minidl as md

pytest.importorskip("torch")
spec = importlib.util.spec_from_file_location("torch_names", Path(__file__).resolve().parent.parent / "docs" / "torch_names.py")
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)
EVERYWHERE = table.ROOMS | table.CLASSES


@pytest.mark.parametrize("room", EVERYWHERE)
def test_every_name_is_there_or_has_a_reason(room):
    assert table.names(room)
    reasons = table.ABSENT.get(room, {})
    assert not [n for n in table.missing(room) if not reasons.get(n)], "say in ABSENT of docs/torch_names.py why, or build them"
    assert not [n for n in reasons if n not in table.missing(room)], "these are there after all, or not in torch"
    assert not [n for n in table.DIFFERENT.get(room, {}) if n not in table.names(room)]


def test_the_page_is_up_to_date():
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "run `python docs/torch_names.py` and commit what it writes"


#: Rooms whose arguments other tests compare, and names that take no arguments of their own, or others, for the reason given.
BUILTIN = {"torch.linalg", "torch.fft", "torch.special"}  # without signatures; their docstrings begin with one
ELSEWHERE = {"torch.Tensor", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.attention", *BUILTIN}
OTHERS = {
    "PackedSequence": "see DIFFERENT",
    "forward": "of any arguments",
    "Variable": "PyTorch's says *args, **kwargs",
    "backward": "see DIFFERENT",
    "enable_grad": "PyTorch's says *args, **kwargs",
    "jacrev": "PyTorch's has a private argument besides",
    "GradScaler": "of any device unless one is said",
    "autocast": "of any device unless one is said",
    "DistributedSampler": "see DIFFERENT",
    "random_split": "the default generator is minidl's",
    "checkpoint": "the options are written out that PyTorch's takes as **kwargs",
    "state_dict": "without the positional arguments that PyTorch calls deprecated",
    "to": "PyTorch's says *args, **kwargs",
}
#: PyTorch's words for arguments that minidl names as the Array API and NumPy do.
WORDS = {"dim": {"axis", "axes"}, "keepdim": {"keepdims"}, "dims": {"axes"}}
POSITIONS = {  # that differ, and why
    ("torch.linalg", "eigh"): "see DIFFERENT", ("torch.linalg", "eigvalsh"): "see DIFFERENT",
    ("torch.linalg", "tensorsolve"): "without dims, as numpy.linalg.tensorsolve",
}  # fmt: skip
#: Of optimizers: which of PyTorch's kernels runs, and the parameters, which may be left out for functional use.
EXECUTION = {"foreach", "fused", "capturable", "differentiable", "execution", "params"}


def positions(f):
    """The names of the arguments that a function takes by position."""
    return [p.name for p in inspect.signature(f).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


@pytest.mark.parametrize("room", sorted(BUILTIN))
def test_builtins_take_torchs_positions(room):
    ours, theirs = table.found(EVERYWHERE[room]), table.found(room)
    md.xlogy(md.ones(()), md.ones(()))  # generated, as its arguments are, when it is first called
    wrong, looked = [], 0
    for name in table.names(room):
        written = re.match(r"(?:\w+\.)*\w+(\(.*?\))(?: *->.*)?$", (getattr(theirs, name).__doc__ or "").strip().partition("\n")[0])
        if written is None or not hasattr(ours, name):
            continue
        space: dict = {"torch": table.found("torch")}
        exec(f"def f{written[1]}: ...".replace("forward=True", "").replace("bool ", ""), space)
        want, have = positions(space["f"])[1:], positions(getattr(ours, name))[1:]
        looked += 1
        same = all(n in {w, *WORDS.get(w, ())} or w in ("other", "B", "p") for w, n in zip(want, have, strict=False)) and len(have) >= len(want)
        if same is ((room, name) in POSITIONS):
            wrong.append(f"{name}: {have} for {want}")
    assert not wrong, "\n".join(wrong)
    assert looked > 9


@pytest.mark.parametrize("room", [r for r in EVERYWHERE if r not in ELSEWHERE])
def test_what_is_there_has_torchs_arguments(room):
    ours, theirs = table.found(EVERYWHERE[room]), table.found(room)
    wrong = []
    for name in table.names(room):
        if not hasattr(ours, name) or name in OTHERS:
            continue
        a, b = (inspect.unwrap(v.__init__ if isinstance(v, type) else v) for v in (getattr(ours, name), getattr(theirs, name)))
        try:
            if room == "torch.optim":
                mine, other = ([x for x in arguments(f) if x[0] not in EXECUTION] for f in (a, b))
                assert mine[: len(other)] == other
            else:
                same_arguments(a, b)
        except AssertionError as error:
            wrong.append(f"{name}{inspect.signature(a)} is not {inspect.signature(b)}: {str(error)[:80]}")
    assert not wrong, "\n".join(wrong)
