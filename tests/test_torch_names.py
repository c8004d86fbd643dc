"""docs/torch_names.md: every name of torch.nn and torch.optim is in minidl or has a reason not to be, and what is there has PyTorch's arguments."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest
from test_nn_parity import arguments, same_arguments

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
ELSEWHERE = {"torch.nn", "torch.nn.functional", "torch.nn.init", "torch.nn.attention"}
OTHERS = {
    "PackedSequence": "see DIFFERENT",
    "forward": "of any arguments",
    "state_dict": "without the positional arguments that PyTorch calls deprecated",
    "to": "PyTorch's says *args, **kwargs",
}
#: Of optimizers: which of PyTorch's kernels runs, and the parameters, which may be left out for functional use.
EXECUTION = {"foreach", "fused", "capturable", "differentiable", "execution", "params"}


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
