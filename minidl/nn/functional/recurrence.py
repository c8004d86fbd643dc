"""One step of recurrent networks, and whole sequences by scan; the steps are names of minidl.nn.functional, as they are of torch.

A sequence is one loop of the program under jit (md.scan), so tracing and compiling take the same time for any length. What does not depend on the
state, the projection of the inputs, is one product for all steps.
"""

from __future__ import annotations

from typing import Any

import minidl as md
from minidl.nn.functional.maps import linear

__all__ = ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]
State = tuple[md.Tensor, ...]  # (h,), or (h, c) of an LSTM
Weights = dict[str, Any]  # ih, hh, and where there are any: bias_ih, bias_hh, hr


@md.low_precision
def step(mode: str, projected: md.Tensor, state: State, weights: Weights) -> State:
    """The next state, from projected = x W_ihᵀ + b_ih [N, gates * hidden]."""
    recurrent = linear(state[0], weights["hh"], weights.get("bias_hh"))
    if mode == "LSTM":
        i, f, g, o = md.chunk(projected + recurrent, 4, axis=-1)
        c = md.sigmoid(f) * state[1] + md.sigmoid(i) * md.tanh(g)
        h = md.sigmoid(o) * md.tanh(c)
        return (h if weights.get("hr") is None else linear(h, weights["hr"])), c
    if mode == "GRU":
        xr, xz, xn = md.chunk(projected, 3, axis=-1)
        hr, hz, hn = md.chunk(recurrent, 3, axis=-1)
        n = md.tanh(xn + md.sigmoid(xr + hr) * hn)
        return (n + md.sigmoid(xz + hz) * (state[0] - n),)
    return ((md.tanh if mode == "RNN_TANH" else md.relu)(projected + recurrent),)


@md.low_precision
def run(mode: str, x: md.Tensor, state: State, weights: Weights, reverse: bool, lengths: md.Tensor | None) -> tuple[md.Tensor, State]:
    """A layer in one direction over x [L, N, inputs]: what h was after each step [L, N, out], and the last state.

    lengths [N]: behind its own length an example keeps its state and its outputs are 0 (backwards it starts at its own end).
    """
    projected = linear(x, weights["ih"], weights.get("bias_ih"))
    if lengths is None:

        def move(now: State, p: md.Tensor) -> tuple[State, md.Tensor]:
            new = step(mode, p, now, weights)
            return new, new[0]

        last, out = md.scan(move, state, projected, reverse=reverse)
        return out, last

    times = md.arange(x.shape[0], backend=x.backend, device=x.device)

    def masked(now: State, at: tuple[md.Tensor, md.Tensor]) -> tuple[State, md.Tensor]:
        p, t = at
        inside = (t < lengths)[:, None]
        new = tuple(md.where(inside, b, a) for a, b in zip(now, step(mode, p, now, weights), strict=True))
        return new, md.where(inside, new[0], 0.0)

    last, out = md.scan(masked, state, (projected, times), reverse=reverse)
    return out, last


def _cell(mode: str, input: md.Tensor, state: State, w_ih: md.Tensor, w_hh: md.Tensor, b_ih: Any, b_hh: Any) -> State:
    gates = {"LSTM": 4, "GRU": 3}.get(mode, 1)
    hidden = w_hh.shape[-1]
    if w_ih.shape != (gates * hidden, input.shape[-1]) or any(s.shape != (*input.shape[:-1], hidden) for s in state):
        shapes = ", ".join(str(s.shape) for s in state)
        raise ValueError(f"{mode} cell: input {input.shape} and state {shapes} do not fit weights {w_ih.shape} and {w_hh.shape}")
    return step(mode, linear(input, w_ih, b_ih), state, {"hh": w_hh, "bias_hh": b_hh})


def lstm_cell(
    input: md.Tensor, hx: tuple[md.Tensor, md.Tensor], w_ih: md.Tensor, w_hh: md.Tensor, b_ih: md.Tensor | None = None, b_hh: md.Tensor | None = None
) -> tuple[md.Tensor, md.Tensor]:
    """One step of an LSTM: (h, c) from input [N, inputs] and hx = (h, c), each [N, hidden] (S. Hochreiter and J. Schmidhuber, 1997).

    >>> h, c = md.nn.functional.lstm_cell(md.ones((2, 3)), (md.zeros((2, 4)), md.zeros((2, 4))), md.zeros((16, 3)), md.zeros((16, 4)))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """
    h, c = _cell("LSTM", input, tuple(hx), w_ih, w_hh, b_ih, b_hh)
    return h, c


def gru_cell(
    input: md.Tensor, hx: md.Tensor, w_ih: md.Tensor, w_hh: md.Tensor, b_ih: md.Tensor | None = None, b_hh: md.Tensor | None = None
) -> md.Tensor:
    """One step of a gated recurrent unit: h from input [N, inputs] and hx [N, hidden] (K. Cho et al., EMNLP 2014).

    >>> md.nn.functional.gru_cell(md.ones((2, 3)), md.zeros((2, 4)), md.zeros((12, 3)), md.zeros((12, 4))).shape
    (2, 4)
    """
    return _cell("GRU", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_tanh_cell(
    input: md.Tensor, hx: md.Tensor, w_ih: md.Tensor, w_hh: md.Tensor, b_ih: md.Tensor | None = None, b_hh: md.Tensor | None = None
) -> md.Tensor:
    """One step of an Elman network: tanh(input W_ihᵀ + b_ih + hx W_hhᵀ + b_hh) (J. Elman, Cognitive Science 14, 1990).

    >>> md.nn.functional.rnn_tanh_cell(md.zeros((1, 2)), md.zeros((1, 1)), md.ones((1, 2)), md.ones((1, 1))).tolist()
    [[0.0]]
    """
    return _cell("RNN_TANH", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]


def rnn_relu_cell(
    input: md.Tensor, hx: md.Tensor, w_ih: md.Tensor, w_hh: md.Tensor, b_ih: md.Tensor | None = None, b_hh: md.Tensor | None = None
) -> md.Tensor:
    """One step of an Elman network with relu in the place of tanh.

    >>> md.nn.functional.rnn_relu_cell(md.ones((1, 2)), md.zeros((1, 1)), md.ones((1, 2)), md.ones((1, 1))).tolist()
    [[2.0]]
    """
    return _cell("RNN_RELU", input, (hx,), w_ih, w_hh, b_ih, b_hh)[0]
