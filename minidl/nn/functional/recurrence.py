"""One step of recurrent networks, and whole sequences by scan; the steps are names of minidl.nn.functional, as they are of torch.

A sequence is one loop of the program under jit, and without it one node of the tape (md.control.loop): tracing and compiling take the same time for
any length. What does not depend on the state, the projection of the inputs, is one product for all steps.
"""

from __future__ import annotations

import functools
from typing import Any

import minidl as md
from minidl.nn.functional.kernels import by_kernel
from minidl.nn.functional.maps import linear

__all__ = ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]
State = tuple[md.Tensor, ...]  # (h,), or (h, c) of an LSTM
Weights = dict[str, Any]  # ih, hh, and where there are any: bias_ih, bias_hh, hr
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


@md.extend.fused
def _cut(hh: md.Tensor, bias_ih: Any, bias_hh: Any, hr: Any, /, mode: str) -> tuple[tuple[md.Tensor, ...], Any, Any, Any]:
    """The weights of each gate, the bias of the inputs, that of a GRU which comes late, and the projection of h."""
    rows, bias, late = hh.shape[0] // GATES[mode], bias_ih, None
    if bias is not None and mode == "GRU":  # whose reset gate lies between the two biases of n
        bias, late = bias + md.concat((bias_hh[: 2 * rows], md.zeros_like(bias_hh[2 * rows :].detach()))), bias_hh[2 * rows :]
    elif bias is not None:
        bias = bias + bias_hh
    return tuple(w.T for w in md.split(hh, rows)), bias, late, None if hr is None else hr.T


class Steps:
    """What the steps of one layer in one direction read. Weights are cut into gates once, for cutting each step's result costs more, above all
    backwards."""

    def __init__(self, mode: str, weights: Weights):
        self.mode, self.rows, self.ih = mode, weights["hh"].shape[0] // GATES[mode], weights["ih"]
        hh, self.bias, late, hr = _cut(weights["hh"], weights.get("bias_ih"), weights.get("bias_hh"), weights.get("hr"), mode)
        self.fixed = {"hh": hh, "late": late, "hr": hr}

    def project(self, x: md.Tensor) -> tuple[md.Tensor, ...]:
        """What the inputs [..., inputs] add to each gate [..., hidden]."""
        return md.split(linear(x, self.ih, self.bias), self.rows, axis=-1)


def _move(mode: str, fixed: Weights, projected: tuple[md.Tensor, ...], state: State) -> State:
    """The next state."""
    h, hh = state[0], fixed["hh"]
    if mode == "GRU":
        r, z = (md.sigmoid(p + md.matmul(h, w)) for p, w in zip(projected[:2], hh[:2], strict=True))
        late = md.matmul(h, hh[2]) if fixed["late"] is None else md.matmul(h, hh[2]) + fixed["late"]
        n = md.tanh(projected[2] + r * late)
        return (n + z * (h - n),)
    gates = [p + md.matmul(h, w) for p, w in zip(projected, hh, strict=True)]
    if mode == "LSTM":
        i, f, g, o = gates
        c = md.sigmoid(f) * state[1] + md.sigmoid(i) * md.tanh(g)
        h = md.sigmoid(o) * md.tanh(c)
        return (h if fixed["hr"] is None else md.matmul(h, fixed["hr"])), c
    return ((md.tanh if mode == "RNN_TANH" else md.relu)(gates[0]),)


@functools.cache
def _layer(mode: str) -> Any:
    """A whole layer; x is what the inputs add and, where the sequences differ in length, which examples have not come to their end."""

    def step(fixed: Weights, now: State, x: tuple[Any, Any]) -> tuple[State, md.Tensor]:
        projected, here = x
        new = _move(mode, fixed, projected, now)
        if here is not None:
            new = tuple(md.where(here, b, a) for a, b in zip(now, new, strict=True))
        return new, new[0]

    return md.control.loop(step)


@md.low_precision
def run(mode: str, x: md.Tensor, state: State, weights: Weights, reverse: bool, lengths: md.Tensor | None) -> tuple[md.Tensor, State]:
    """A layer in one direction over x [L, N, inputs]: what h was after each step [L, N, out], and the last state.

    lengths [N]: behind its own length an example keeps its state and its outputs are 0 (backwards it starts at its own end).
    """
    alike = all(v.dtype is x.dtype for v in (*state, weights["hh"]))
    if lengths is None and x.shape[0] == 1 and weights.get("hr") is None and alike:  # a loop of the caller's own
        w = weights["ih"], weights["hh"]
        new = _whole_cell(x[0], state[0], state[1] if len(state) > 1 else None, *w, weights.get("bias_ih"), weights.get("bias_hh"), mode)
        return new[0][None], new
    if mode == "LSTM" and lengths is None and weights.get("hr") is None:
        out, *last = _lstm(x, state[0], state[1], weights["ih"], weights["hh"], weights.get("bias_ih"), weights.get("bias_hh"), reverse)
        return out, tuple(last)
    return _sequence(mode, x, state, weights, reverse, lengths)


@by_kernel("lstm")
def _lstm(x: md.Tensor, h: md.Tensor, c: md.Tensor, ih: md.Tensor, hh: md.Tensor, bias_ih: Any, bias_hh: Any, /, reverse: bool) -> State:
    out, last = _sequence("LSTM", x, (h, c), {"ih": ih, "hh": hh, "bias_ih": bias_ih, "bias_hh": bias_hh}, reverse, None)
    return out, *last


def _sequence(mode: str, x: md.Tensor, state: State, weights: Weights, reverse: bool, lengths: md.Tensor | None) -> tuple[md.Tensor, State]:
    steps, inside = Steps(mode, weights), None
    if lengths is not None:
        inside = (md.arange(x.shape[0], backend=x.backend, device=x.device)[:, None] < lengths)[:, :, None]
    last, out = _layer(mode)(steps.fixed, state, (steps.project(x), inside), reverse)
    return (out if inside is None else md.where(inside, out, 0.0)), last


@md.low_precision
def _cell(mode: str, input: md.Tensor, state: State, w_ih: md.Tensor, w_hh: md.Tensor, b_ih: Any, b_hh: Any) -> State:
    hidden = w_hh.shape[-1]
    if w_ih.shape != (GATES[mode] * hidden, input.shape[-1]) or any(s.shape != (*input.shape[:-1], hidden) for s in state):
        shapes = ", ".join(str(s.shape) for s in state)
        raise ValueError(f"{mode} cell: input {input.shape} and state {shapes} do not fit weights {w_ih.shape} and {w_hh.shape}")
    return _whole_cell(input, state[0], state[1] if len(state) > 1 else None, w_ih, w_hh, b_ih, b_hh, mode)


@md.extend.fused
def _whole_cell(input: md.Tensor, h: md.Tensor, c: Any, w_ih: md.Tensor, w_hh: md.Tensor, b_ih: Any, b_hh: Any, /, mode: str) -> State:
    steps = Steps(mode, {"ih": w_ih, "hh": w_hh, "bias_ih": b_ih, "bias_hh": b_hh})
    return _move(mode, steps.fixed, steps.project(input), (h,) if c is None else (h, c))


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
