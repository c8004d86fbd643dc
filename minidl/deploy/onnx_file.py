"""export_onnx: a model as one ONNX file, for runtimes in other languages and on other devices.

The graph that md.trace gives is written operation by operation; loops are ONNX's Scan and Loop, branches its If. Source of the format: the ONNX
standard (https://onnx.ai), read and written by its own package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import minidl as md
from minidl.deploy.onnx_writer import Writer
from minidl.deploy.program import program

OPSET = 18
_LIMIT = 2**31 - 2**20  # bytes that a file of this format can have


def _library() -> Any:
    try:
        import onnx
    except ImportError:
        raise ImportError('export_onnx: the file is written by the onnx package; pip install "minidl[onnx]"') from None
    return onnx


def export_onnx(
    f: Callable[..., Any], args: Any, path: str | os.PathLike[str], *, dynamic_batch: bool = False, input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Path:  # fmt: skip
    """Write f, a Module or a function of tensors, to `path` as an ONNX file (operator set 18), whole or not at all; returns the path.

    args: a tuple of example arguments (pytrees of tensors of any backend), which fix shapes and dtypes. dynamic_batch: the first axis of every array,
    "n" in the file, may then have any size. Inputs are named as in the files of md.export ("x", or "a", "b", …), results "out" or "out0", "out1", …
    in the order of md.tree.leaves, or as input_names and output_names say; constants as in the model's state_dict. Weights in 8 bits stay so, and
    their products are integers (MatMulInteger). For what can be computed beforehand, export md.freeze(model).

    Results are the model's but for rounding (erfc: within 2e-7, also in float64). Five things are left to the runtime: an index out of
    range where minidl drops an update, nan in max, min, argmax and argmin (onnxruntime may lose it), the sign of a zero that `where` chooses, sums,
    products and powers of integers beyond 2^53 (which it takes in floats), and dtypes for which it has no kernel (float64 convolutions in
    onnxruntime).

    Raises NotImplementedError that names the first operation which ONNX does not have; ValueError for a Module in training mode, for a function that
    changes state or returns no tensor, for one that depends on the number of examples in more than sizes and whole multiples of them (dynamic_batch),
    for names that cannot stand, and for more than 2 GB; TypeError for arguments that are no tensors and for complex numbers; ImportError without the
    onnx package.

    >>> import minidl as md, tempfile
    >>> from minidl import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = export_onnx(model, (md.ones((2, 4)),), f"{folder}/model.onnx", dynamic_batch=True)
    ...     import onnx
    ...     [node.op_type for node in onnx.load(file).graph.node]
    ['Transpose', 'MatMul', 'Add', 'Relu', 'Transpose', 'MatMul', 'Add', 'Identity']
    """
    onnx = _library()
    path = Path(path)
    path = path if path.suffix == ".onnx" else path.with_name(path.name + ".onnx")
    made = program("export_onnx", f, args, dynamic_batch)
    graph = made.graph
    if made.larger:
        from minidl.deploy.onnx_operations import OPERATIONS

        try:
            graph = graph.expand(OPERATIONS, made.larger)
        except ValueError as error:
            raise ValueError(f"export_onnx: the function depends on the number of examples in more than sizes: {error}") from None
    for v in graph.variables():
        if v.dtype.is_complex:
            raise TypeError(f"export_onnx: the program computes in {v.dtype.name}, which ONNX does not have")
    constants = made.constants()
    if sum(a.nbytes for a in constants.values()) > _LIMIT:
        raise ValueError("export_onnx: the constants have more than 2 GB, which one ONNX file cannot hold; md.export has no such limit")
    w = Writer(onnx)
    inputs = _named("input_names", input_names, [re.sub(r"\W+", "_", p).strip("_") for p in made.paths], constants)
    outputs = ["out"] if len(graph.outputs) == 1 else [f"out{i}" for i in range(len(graph.outputs))]
    outputs = _named("output_names", output_names, outputs, (*constants, *inputs))
    w.taken.update(inputs, outputs, constants)
    for name, a in constants.items():
        w.constant(a, name)
    if made.larger:
        w.sizes_known[1, 0] = w.node("Shape", inputs[0], start=0, end=1)
    found = w.write(graph, [*inputs, *constants])
    for name, own in zip(outputs, found, strict=True):
        w.nodes.append(onnx.helper.make_node("Identity", [own], [name]))
    used = set(_read(w.nodes))
    w.nodes = w.nodes[bool(made.larger) and w.nodes[0].output[0] not in used :]  # nothing may ask for the number of examples
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            w.nodes, getattr(f, "__name__", type(f).__name__), [w.info(n, v.dtype, v.shape) for n, v in zip(inputs, graph.inputs, strict=False)],
            [w.info(n, v.dtype, v.shape) for n, v in zip(outputs, graph.outputs, strict=True)], [v for k, v in w.initializers.items() if k in used],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="minidl",
    )  # fmt: skip
    model.ir_version = 8  # the one of this operator set, so that older runtimes read it
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with md.saving.atomic(path) as partial:
        onnx.save_model(model, os.fspath(partial))
    return path


def _named(what: str, given: Sequence[str] | None, own: list[str], taken: Container[str]) -> list[str]:
    """The names that the user gave, or those of the file's own. Raises ValueError where they cannot stand in it."""
    if given is None:
        return own
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != len(own) or len(set(names)) < len(names) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"export_onnx: {what}: {len(own)} different names are wanted, and {names!r} came")
    for n in names:
        if n in taken:
            raise ValueError(f"export_onnx: {what}: {n!r} is the name of a constant or an input of the model; choose another")
    return names


def _read(nodes: Any) -> Iterator[str]:
    """The names that nodes read, those of graphs inside them included."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            if attribute.g.node or attribute.g.output:
                yield from (v.name for v in attribute.g.output)
                yield from _read(attribute.g.node)
