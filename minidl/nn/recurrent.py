"""Recurrent layers and cells: RNN, LSTM, GRU, with PyTorch's parameters by name.

A layer is one md.scan for each direction, so under jit its size does not depend on the length of the sequence. Sequences of unequal lengths come as a
PackedSequence (nn.utils.rnn), whose shape is fixed.
"""

from __future__ import annotations

import math
from typing import Any

import minidl as md
from minidl.nn import functional as F
from minidl.nn import init
from minidl.nn.functional.recurrence import GATES, run
from minidl.nn.module import Module
from minidl.nn.parameter import blank
from minidl.nn.utils.rnn import PackedSequence

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]


class _Uniform(Module):
    hidden_size: int

    def reset_parameters(self) -> None:
        """Draw the initial values anew: uniform within 1/sqrt(hidden_size) of zero."""
        bound = 1 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0.0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)


# ---- whole sequences ------------------------------------------------------------------------------------------------------------------
class RNNBase(_Uniform):
    """What RNN, LSTM and GRU are; mode: "RNN_TANH", "RNN_RELU", "LSTM" or "GRU". See RNN.

    Parameters: weight_ih_l0 [gates * hidden, inputs], weight_hh_l0 [gates * hidden, out], bias_ih_l0, bias_hh_l0; then layer 1; "_reverse" for
    backwards. Raises ValueError for another mode.

    >>> isinstance(md.nn.GRU(3, 4), RNNBase), RNNBase("GRU", 3, 4)(md.ones((5, 2, 3)))[0].shape
    (True, (5, 2, 4))
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__()
        name = type(self).__name__
        if mode not in GATES:
            raise ValueError(f"{name}: mode is one of {', '.join(map(repr, GATES))}, not {mode!r}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout is a probability, not {dropout}")
        if hidden_size < 1 or num_layers < 1:
            raise ValueError(f"{name}: hidden_size {hidden_size} and num_layers {num_layers} must be at least 1")
        if not 0 <= proj_size < hidden_size:
            raise ValueError(f"{name}: proj_size {proj_size} must be smaller than hidden_size {hidden_size}, or 0 for none")
        self.mode, self.input_size, self.hidden_size, self.num_layers, self.bias = mode, input_size, hidden_size, num_layers, bias
        self.batch_first, self.dropout, self.bidirectional, self.proj_size = batch_first, float(dropout), bidirectional, proj_size
        out, rows = proj_size or hidden_size, GATES[mode] * hidden_size
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else out * (1 + bidirectional)
            for suffix in self._suffixes(layer):
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, out)}
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {}
                shapes |= {"weight_hr": (proj_size, hidden_size)} if proj_size else {}
                for kind, shape in shapes.items():
                    self.register_parameter(kind + suffix, blank(*shape, dtype=dtype, device=device))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"] if self.bidirectional else [f"_l{layer}"]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each layer and direction."""
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [
            [w for kind in kinds if (w := getattr(self, kind + suffix, None)) is not None]
            for layer in range(self.num_layers)
            for suffix in self._suffixes(layer)
        ]

    def flatten_parameters(self) -> None:
        """Nothing: for PyTorch's sake, whose GPU kernels want their weights in one piece."""

    def _weights(self, suffix: str) -> dict[str, Any]:
        names = {"ih": "weight_ih", "hh": "weight_hh", "bias_ih": "bias_ih", "bias_hh": "bias_hh", "hr": "weight_hr"}
        return {k: getattr(self, n + suffix, None) for k, n in names.items()}  # which may be computed: normalised, pruned

    def _sizes(self) -> tuple[int, ...]:
        """The widths of the parts of the state."""
        return (self.proj_size or self.hidden_size, self.hidden_size) if self.mode == "LSTM" else (self.hidden_size,)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """(output, last state) for input [L, N, input_size] ([N, L, ...] with batch_first, or without N) or a PackedSequence."""
        packed = input if isinstance(input, PackedSequence) else None
        x: md.Tensor = input if packed is None else packed.data
        name = type(self).__name__
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(f"{name}: expected [L, N, {self.input_size}] ([N, L, ...] with batch_first) or [L, {self.input_size}], got {x.shape}")
        single = x.ndim == 2
        if packed is not None or (self.batch_first and not single):
            x = md.swapaxes(x, 0, 1)
        elif single:
            x = x[:, None]
        rows = self.num_layers * (1 + self.bidirectional)
        wanted = [(rows, x.shape[1], size) for size in self._sizes()]
        if hx is None:
            parts = tuple(md.zeros(s, dtype=x.dtype, backend=x.backend, device=x.device) for s in wanted)
        else:
            parts = tuple(hx) if self.mode == "LSTM" else (hx,)
            parts = tuple(p[:, None] if single else p for p in parts)
            if [p.shape for p in parts] != wanted:
                raise ValueError(f"{name}: the state hx has shapes {[p.shape for p in parts]}, wanted are {wanted}")
        lengths = None if packed is None else packed.lengths
        ends: list[tuple[md.Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:
                x = F.dropout(x, self.dropout)
            outs = []
            for suffix in self._suffixes(layer):
                start = tuple(p[len(ends)] for p in parts)
                out, end = run(self.mode, x, start, self._weights(suffix), suffix.endswith("_reverse"), lengths)
                outs.append(out)
                ends.append(end)
            x = md.concat(outs, axis=-1) if len(outs) > 1 else outs[0]
        last = tuple(md.stack([e[i] for e in ends]) for i in range(len(wanted)))
        last = tuple(p[:, 0] for p in last) if single else last
        result: Any = x[:, 0] if single else md.swapaxes(x, 0, 1) if packed is not None or self.batch_first else x
        if packed is not None:
            result = PackedSequence(result, packed.lengths)
        return result, (last if self.mode == "LSTM" else last[0])

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        text += f", proj_size={self.proj_size}" if self.proj_size else ""
        text += f", num_layers={self.num_layers}" if self.num_layers != 1 else ""
        text += f", bias={self.bias}" if self.bias is not True else ""
        text += f", batch_first={self.batch_first}" if self.batch_first else ""
        text += f", dropout={self.dropout}" if self.dropout else ""
        return text + (f", bidirectional={self.bidirectional}" if self.bidirectional else "")


class RNN(RNNBase):
    """An Elman network of some layers over a sequence [L, N, input_size] → ([L, N, hidden_size], last state [layers, N, hidden_size]).

    nonlinearity: "tanh" or "relu". batch_first: [N, L, ...]. dropout: between layers, in training. bidirectional: two directions side by side. Raises
    ValueError for another nonlinearity, a dropout outside of [0, 1], a hidden_size or num_layers below 1, and when called for inputs or states
    of other shapes.

    >>> RNN(3, 5)(md.ones((7, 2, 3)))[0].shape
    (7, 2, 5)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'RNN: nonlinearity is "tanh" or "relu", not {nonlinearity!r}')
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory over a sequence: forward(input, (h, c)) → (output, (h, c)); arguments as RNN (S. Hochreiter, J. Schmidhuber, 1997).

    proj_size: h is projected to so many features (H. Sak et al., Interspeech 2014).

    >>> out, (h, c) = LSTM(3, 5, num_layers=2, bidirectional=True)(md.ones((7, 2, 3)))
    >>> out.shape, h.shape
    ((7, 2, 10), (4, 2, 5))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype)


class GRU(RNNBase):
    """Gated recurrent units over a sequence; arguments and results as RNN (K. Cho et al., EMNLP 2014).

    >>> outputs, last = md.nn.GRU(3, 4, batch_first=True)(md.ones((2, 5, 3)))
    >>> outputs.shape, last.shape
    ((2, 5, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ):
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype)


# ---- single steps ---------------------------------------------------------------------------------------------------------------------
class RNNCellBase(_Uniform):
    """What RNNCell, LSTMCell and GRUCell share; they have num_chunks 1, 4 and 3.

    Parameters: weight_ih [num_chunks * hidden, inputs], weight_hh [num_chunks * hidden, hidden], bias_ih, bias_hh. Called, the three raise ValueError
    for an input that has not one or two axes.

    >>> isinstance(md.nn.LSTMCell(3, 4), RNNCellBase), RNNCellBase(3, 4, True, 4).weight_ih.shape
    (True, (16, 3))
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: str | None = None, dtype: Any = None):
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = num_chunks * hidden_size
        self.weight_ih = blank(rows, input_size, dtype=dtype, device=device)
        self.weight_hh = blank(rows, hidden_size, dtype=dtype, device=device)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, blank(rows, dtype=dtype, device=device) if bias else None)
        self.reset_parameters()

    def _call(self, function: Any, input: md.Tensor, hx: Any) -> Any:
        if input.ndim not in (1, 2):
            raise ValueError(f"{type(self).__name__}: expected [N, {self.input_size}] or [{self.input_size}], got {input.shape}")
        if hx is None:
            hx = md.zeros((*input.shape[:-1], self.hidden_size), dtype=input.dtype, backend=input.backend, device=input.device)
            hx = (hx, hx) if isinstance(self, LSTMCell) else hx
        return function(input, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + (f", bias={self.bias}" if self.bias is not True else "")


class RNNCell(RNNCellBase):
    """One step of an Elman network: forward(input, h) → h; nonlinearity "tanh" or "relu".

    input: [N, input_size], h: [N, hidden_size] (default: zeros), or both without N. Raises ValueError for another nonlinearity, and when called for
    an input that has not one or two axes.

    >>> md.nn.RNNCell(3, 4)(md.ones((2, 3))).shape
    (2, 4)
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: str | None = None, dtype: Any = None
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'RNNCell: nonlinearity is "tanh" or "relu", not {nonlinearity!r}')
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: md.Tensor, hx: md.Tensor | None = None) -> md.Tensor:
        return self._call(F.rnn_tanh_cell if self.nonlinearity == "tanh" else F.rnn_relu_cell, input, hx)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", nonlinearity={self.nonlinearity}" if self.nonlinearity != "tanh" else "")


class LSTMCell(RNNCellBase):
    """One step of an LSTM: forward(input, (h, c)) → (h, c).

    >>> h, c = md.nn.LSTMCell(3, 4)(md.ones((2, 3)))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: str | None = None, dtype: Any = None):
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: md.Tensor, hx: tuple[md.Tensor, md.Tensor] | None = None) -> tuple[md.Tensor, md.Tensor]:
        return self._call(F.lstm_cell, input, hx)


class GRUCell(RNNCellBase):
    """One step of a gated recurrent unit: forward(input, h) → h.

    >>> md.nn.GRUCell(3, 4)(md.ones((2, 3)), md.zeros((2, 4))).shape
    (2, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: str | None = None, dtype: Any = None):
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: md.Tensor, hx: md.Tensor | None = None) -> md.Tensor:
        return self._call(F.gru_cell, input, hx)
