"""CTC, anti-aliased resizing and bicubic sampling against torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minidl as md
from minidl.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional
rng = np.random.default_rng(0)
SCORES = rng.normal(size=(9, 4, 5))
TARGETS = np.array([[1, 2, 2, 4], [3, 3, 3, 1], [4, 0, 0, 0], [0, 0, 0, 0]])
INPUTS, WANTED = [9, 8, 5, 6], [4, 4, 1, 0]


def losses_and_gradients(lib, f, scores, *args, **kwargs):
    x = lib.tensor(scores, requires_grad=True)
    loss = f.ctc_loss(f.log_softmax(x, -1), *args, **kwargs)
    (loss * lib.asarray(np.cos(np.arange(loss.detach().numpy().size)).reshape(tuple(loss.shape)))).sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("blank", [0, 4])
@pytest.mark.parametrize("form", ["rows", "in one", "tensors"])
def test_ctc_equals_torchs(reduction, blank, form):
    """With repeated labels, a short input, and a target without any label."""
    targets = TARGETS if blank == 0 else (TARGETS + 4) % 5
    found = []
    for lib, f in ((md, F), (torch, TF)):
        given = np.concatenate([t[:n] for t, n in zip(targets, WANTED, strict=True)]) if form == "in one" else targets
        lengths = (INPUTS, WANTED) if lib is md and form != "tensors" else (lib.tensor(INPUTS), lib.tensor(WANTED))
        found.append(losses_and_gradients(lib, f, SCORES, lib.tensor(given), *lengths, blank=blank, reduction=reduction))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_ctc_of_impossible_targets_and_of_one_sequence():
    for zero, (inputs, wanted) in itertools.product([True, False], [([9, 4, 5, 6], [4, 4, 1, 0]), ([2, 8, 5, 6], [4, 4, 1, 0])]):
        found = []
        for lib, f in ((md, F), (torch, TF)):
            args = lib.tensor(TARGETS), lib.tensor(inputs), lib.tensor(wanted)
            found.append(losses_and_gradients(lib, f, SCORES, *args, reduction="none", zero_infinity=zero))
        np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-10)
        assert np.isfinite(found[0][1]).all()
        impossible = np.isinf(found[1][0]) if not zero else np.zeros(4, bool)
        assert not found[0][1][:, impossible].any() and (zero or impossible.any())
        if zero:
            np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)
    for reduction in ("mean", "sum", "none"):
        found = [losses_and_gradients(lib, f, SCORES[:, 0], lib.tensor(TARGETS[0]), lib.tensor(9), lib.tensor(4), reduction=reduction)
                 for lib, f in ((md, F), (torch, TF))]  # fmt: skip
        for a, b in zip(*found, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax", "numba"])
def test_ctc_jitted_on_every_backend(backend):
    """Lengths are inputs of the program; it has one loop over time."""
    want = losses_and_gradients(torch, TF, SCORES, torch.tensor(TARGETS), torch.tensor(INPUTS), torch.tensor(WANTED))
    with md.use_backend(backend):
        layer = md.nn.CTCLoss()
        step = md.jit(md.value_and_grad(lambda x, t, a, b: layer(F.log_softmax(x, -1), t, a, b)))
        loss, grad = step(*(md.asarray(v) for v in (SCORES, TARGETS, np.array(INPUTS), np.array(WANTED))))
        np.testing.assert_allclose(loss.numpy(), want[0], rtol=1e-10)
        np.testing.assert_allclose(grad.numpy(), want[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("call", [
    lambda x: F.ctc_loss(x, md.ones((4, 2)), INPUTS, WANTED), lambda x: F.ctc_loss(x, md.asarray(TARGETS), INPUTS, WANTED, blank=5),
    lambda x: F.ctc_loss(x, md.asarray(TARGETS), INPUTS[:2], WANTED), lambda x: F.ctc_loss(x, md.asarray(TARGETS[:2]), INPUTS, WANTED),
    lambda x: F.ctc_loss(x, md.asarray([1, 2]), INPUTS, WANTED), lambda x: F.ctc_loss(x, md.asarray(TARGETS), INPUTS, WANTED, reduction="all"),
    lambda x: F.grid_sample(x[None], md.ones((1, 2, 2, 2)), "cubic"), lambda x: F.interpolate(x[None], 3, mode="nearest", antialias=True),
])  # fmt: skip
def test_errors_name_the_operation(call):
    with pytest.raises(ValueError, match="ctc_loss|grid_sample|antialias"):
        call(md.asarray(SCORES))


@pytest.mark.parametrize("targets, inputs, wanted, blank, error, text", [
    (TARGETS, [9, 10, 5, 6], WANTED, 0, ValueError, "input_lengths holds 10; lengths are from 0 to 9"),
    (TARGETS, [9, -1, 5, 6], WANTED, 0, ValueError, "input_lengths holds -1"),
    (TARGETS, INPUTS, [4, 5, 1, 0], 0, ValueError, "target_lengths holds 5; lengths are from 0 to 4"),
    (TARGETS, INPUTS, [4, 4, 1, -1], 0, ValueError, "target_lengths holds -1"),
    ([1, 2, 3], INPUTS, [2, 2, 0, -1], 0, ValueError, "target_lengths holds -1"),
    (TARGETS + 1, INPUTS, WANTED, 0, IndexError, "targets hold class 5, but log_probs has classes 0 to 4"),
    (TARGETS - 2, INPUTS, WANTED, 4, IndexError, "targets hold class -1"),
    (TARGETS, INPUTS, WANTED, 3, ValueError, "targets hold the blank, 3"),
])  # fmt: skip
@pytest.mark.parametrize("lengths", [list, md.asarray])
@pytest.mark.cpu
def test_ctc_names_lengths_and_classes_that_do_not_fit(targets, inputs, wanted, blank, error, text, lengths):
    with pytest.raises(error, match=f"ctc_loss: {text}"):
        F.ctc_loss(md.asarray(SCORES), md.asarray(targets), lengths(inputs), lengths(wanted), blank)
    with pytest.raises(error, match=f"ctc_loss: {text}"):  # the classes are known while a program is traced, and the scores are not
        md.grad(lambda x: F.ctc_loss(x, md.asarray(targets), lengths(inputs), lengths(wanted), blank))(md.asarray(SCORES))


def test_ctc_reads_no_padding_and_takes_no_sequences():
    x, padded = md.asarray(SCORES), np.where(np.arange(4) < np.array(WANTED)[:, None], TARGETS, -100)
    assert F.ctc_loss(x, md.asarray(padded), INPUTS, WANTED).item() == F.ctc_loss(x, md.asarray(TARGETS), INPUTS, WANTED).item()
    for targets in (md.zeros((0, 3), dtype=md.int64), md.zeros((0,), dtype=md.int64)):
        assert F.ctc_loss(x[:, :0], targets, [], [], reduction="none").shape == (0,)
        assert F.ctc_loss(x[:, :0], targets, [], [], reduction="sum").item() == 0.0


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [
    {"size": (3, 4)}, {"size": (12, 2)}, {"scale_factor": (0.4, 1.7)}, {"scale_factor": 0.3, "recompute_scale_factor": True},
])  # fmt: skip
def test_antialiased_resizing_is_torchs(size, mode, align):
    x = rng.normal(size=(2, 3, 9, 11))
    found = []
    for lib, f in ((md, F), (torch, TF)):
        t = lib.tensor(x, requires_grad=True)
        out = f.interpolate(t, **size, mode=mode, antialias=True, align_corners=align)
        (out * out).sum().backward()
        found.append((out.detach().numpy(), t.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_bicubic_sampling_is_torchs(padding_mode, align):
    x, grid = rng.normal(size=(2, 3, 5, 6)), rng.uniform(-1.4, 1.4, size=(2, 4, 7, 2))
    found = []
    for lib, f in ((md, F), (torch, TF)):
        t, g = lib.tensor(x, requires_grad=True), lib.tensor(grid, requires_grad=True)
        out = f.grid_sample(t, g, "bicubic", padding_mode, align)
        (out * out).sum().backward()
        found.append((out.detach().numpy(), t.grad.numpy(), g.grad.numpy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_batch_sizes_of_a_packed_sequence_are_torchs():
    torch = pytest.importorskip("torch")
    lengths = [2, 4, 1]
    ours = md.nn.utils.rnn.pack_padded_sequence(md.ones(4, 3, 5), md.tensor(lengths), enforce_sorted=False)
    theirs = torch.nn.utils.rnn.pack_padded_sequence(torch.ones(4, 3, 5), torch.tensor(lengths), enforce_sorted=False)
    assert ours.batch_sizes.tolist() == theirs.batch_sizes.tolist() and ours.batch_sizes.dtype is md.int64
    assert ours.sorted_indices is ours.unsorted_indices is None  # examples keep their order
    assert md.jit(lambda p: p.batch_sizes)(ours).tolist() == [3, 2, 1, 1]
