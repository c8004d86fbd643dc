"""md.summary: shapes and parameters of every module, and the operations that torch's own counter finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minidl as md
from minidl.train import flops


def networks(nn: Any, functional: Any, groups: int = 2) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """The same networks of minidl and of torch."""

    class Residual(nn.Module):
        def __init__(self, width: int):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any) -> Any:
            return x + self.inner(x) + self.inner(x[..., :1, :])

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
            self.norm = nn.LayerNorm(12)

        def forward(self, x: Any) -> Any:
            qkv = self.qkv(self.norm(x))
            q, k, v = (qkv[..., i * 12 : (i + 1) * 12] for i in range(3))
            scores = q @ k.swapaxes(-1, -2)  # by hand, so that torch does not choose a fused kernel that its counter does not know
            return self.out(functional.softmax(scores, dim=-1) @ v)

    convolutions = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=groups), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, (1, 3), dilation=2, bias=False),
        nn.ConvTranspose2d(6, 5, 3, stride=2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(160, 7),
    )  # fmt: skip
    return {"convolutions": (convolutions, (2, 4, 16, 16)), "residual": (Residual(6), (3, 5, 6)), "attention": (Attention(), (2, 7, 12))}


@pytest.mark.parametrize("name", ["convolutions", "residual", "attention"])
def test_shapes_parameters_and_operations_as_torch_counts_them(name):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, shape = networks(md.nn, md.nn.functional)[name]
    theirs, _ = networks(torch.nn, torch.nn.functional)[name]
    theirs.eval()
    shapes: dict[str, list[int]] = {}
    for path, module in theirs.named_modules():
        module.register_forward_hook(lambda m, a, out, path=path: shapes.setdefault(path, list(out.shape)) and None)
    counter = FlopCounterMode(display=False, depth=9)
    with counter, torch.no_grad():
        theirs(torch.zeros(shape))
    found = md.summary(model, shape)
    assert found.flops == counter.get_total_flops() > 0
    by_module = {k.partition(".")[2]: sum(v.values()) for k, v in counter.get_flop_counts().items()}
    for row in found.rows:
        assert [list(s) for s in row.outputs] == [shapes[row.name]] and (row.flops or 0) == by_module.get(row.name, 0), row
        assert row.parameters == sum(p.numel() for p in theirs.get_submodule(row.name).parameters())
    assert found.buffers == sum(b.numel() for b in theirs.buffers()) and found.parameters == sum(p.numel() for p in theirs.parameters())
    assert found.bytes == sum(t.numel() * t.element_size() for t in (*theirs.parameters(), *theirs.buffers()))


def test_operations_of_a_training_step_as_torch_counts_them():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # torch's counter takes the gradient of a grouped weight for that of a whole one
    model, shape = networks(md.nn, md.nn.functional, groups=1)["convolutions"]
    theirs, _ = networks(torch.nn, torch.nn.functional, groups=1)["convolutions"]
    x = md.ones(shape)

    def step(x: Any) -> list[Any]:
        model.zero_grad()
        (model(x) ** 2).sum().backward()
        return [p.grad for p in model.parameters()]

    counter = FlopCounterMode(display=False)
    with counter:
        (theirs(torch.ones(shape)) ** 2).sum().backward()
    assert flops(md.trace(step)(x)) == counter.get_total_flops()


def test_fused_attention_loops_and_branches():
    x = md.ones((2, 3, 5, 4))
    attend = lambda q, k, v: md.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert flops(md.trace(attend)(x, x, x)) == 2 * 2 * 3 * 5 * 5 * 8
    a = md.ones((3, 3))
    assert flops(md.trace(lambda a: md.scan(lambda c, _: (c @ a, c), a, None, length=7))(a)) == 7 * 54
    assert flops(md.trace(lambda a: md.cond(a.sum() > 0, lambda a: a @ a @ a, lambda a: a @ a, a))(a)) == 108
    assert flops(md.trace(lambda a: md.while_loop(lambda c: c.sum() < 9, lambda c: c @ a, a))(a)) == 54
    assert flops(md.trace(md.sin)(a)) == 0


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_the_model_is_traced_and_nothing_of_it_changes(name):
    with md.use_backend(name):
        unchanged()


def unchanged() -> None:
    model = md.nn.Sequential(md.nn.Embedding(10, 4), md.nn.Dropout(0.5), md.nn.Linear(4, 2, bias=False))
    model[2].weight.requires_grad_(False)
    seen: list[Any] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    state, key = model.state_dict(), md.random.default_generator.key.tolist()
    found = md.summary(model, md.asarray(np.zeros((3, 5), np.int64)))
    assert md.random.default_generator.key.tolist() == key and all(m.training for m in model.modules())
    assert all((v.numpy() == state[k].numpy()).all() for k, v in model.state_dict().items())
    assert [r.outputs for r in found.rows] == [[(3, 5, 2)], [(3, 5, 4)], [(3, 5, 4)], [(3, 5, 2)]]
    assert (found.parameters, found.trainable, found.flops) == (48, 40, 2 * 15 * 8) and seen
    assert len(model[2](md.ones((1, 4))).shape) == 2 and md.summary(model, md.asarray(np.zeros((3, 5), np.int64))).flops == found.flops


def test_several_inputs_outputs_keywords_and_modules_that_are_not_called():
    class Two(md.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.unused = md.nn.Linear(3, 3), md.nn.Linear(2, 2)
            self.block = md.nn.Sequential(md.nn.Sequential(md.nn.Linear(3, 1)))
            self.again = self.shared

        def forward(self, pair: Any, *, scale: float, extra: Any = None) -> Any:
            a, b = pair
            return {"a": self.shared(a) * scale, "b": (self.shared(self.shared(b)), self.block(extra))}

    found = md.summary(Two(), ((2, 3), (4, 3)), scale=2.0, extra=np.ones((1, 3), np.float32))
    rows = {r.name: r for r in found.rows}
    assert rows[""].outputs == [(2, 3), (4, 3), (1, 1)] and rows["shared"].flops == 2 * 9 * (2 + 4 + 4) and "again" not in rows
    assert rows["unused"].flops is None and rows["unused"].outputs == [] and found.flops == 180 + 6 and found.parameters == 12 + 6 + 4
    lines = str(found).splitlines()
    assert [line.split("(")[0].rstrip() for line in lines[3:8]] == ["├ shared", "├ unused", "└ block", "  └ 0", "    └ 0"]
    bare = md.summary(Two())
    assert bare.flops is None and "output" not in str(bare) and bare.parameters == 22
    with pytest.raises(TypeError, match="a Module is wanted, not function"):
        md.summary(lambda x: x, (1,))
    assert str(md.summary(md.nn.ReLU(), (2, 2))).endswith("FLOPs of this input, forward: 0; a multiply-add counts as two")
