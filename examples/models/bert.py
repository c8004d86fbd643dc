"""BERT in minidl, under the names of Hugging Face's weights, and its WordPiece tokenizer.

Sources: J. Devlin et al., BERT: pre-training of deep bidirectional transformers (2019); N. Reimers and I. Gurevych, Sentence-BERT (2019).
"""

import json
import unicodedata
from pathlib import Path

import minidl as md
import minidl.nn as nn
import minidl.nn.functional as F


class Tokenizer:
    """Words, split into the longest pieces that the vocabulary has: lower case, no accents, punctuation and Chinese signs on their own."""

    def __init__(self, vocabulary):
        self.number = {piece: i for i, piece in enumerate(vocabulary)}

    def words(self, text):
        word = ""
        for c in unicodedata.normalize("NFD", text.lower()):
            kind = unicodedata.category(c)
            if kind == "Mn" or (kind.startswith("C") and not c.isspace()):
                continue
            alone = kind.startswith("P") or (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or 0x3400 <= ord(c) <= 0x9FFF
            if alone or c.isspace():
                yield from filter(None, (word, c.strip()))
                word = ""
            else:
                word += c
        if word:
            yield word

    def pieces(self, word):
        found, start = [], 0
        while start < len(word):
            ends = range(len(word), start, -1)
            end = next((e for e in ends if ("##" if start else "") + word[start:e] in self.number), None)
            if end is None:
                return ["[UNK]"]
            found.append(("##" if start else "") + word[start:end])
            start = end
        return found

    def __call__(self, texts, longest=256):
        """Numbers [texts, pieces], padded with 0."""
        rows = [[p for w in self.words(text) for p in self.pieces(w)][: longest - 2] for text in texts]
        numbers = [[self.number[p] for p in ("[CLS]", *row, "[SEP]")] for row in rows]
        width = max(map(len, numbers))
        return md.asarray([row + [0] * (width - len(row)) for row in numbers])


class Embeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.word_embeddings = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.position_embeddings = nn.Embedding(c["max_position_embeddings"], c["hidden_size"])
        self.token_type_embeddings = nn.Embedding(c["type_vocab_size"], c["hidden_size"])
        self.LayerNorm = nn.LayerNorm(c["hidden_size"], eps=c["layer_norm_eps"])

    def forward(self, x):
        positions = self.position_embeddings(md.arange(x.shape[1]))
        return self.LayerNorm(self.word_embeddings(x) + self.token_type_embeddings(md.zeros_like(x)) + positions)


class SelfAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c["num_attention_heads"]
        self.query, self.key, self.value = (nn.Linear(c["hidden_size"], c["hidden_size"]) for _ in range(3))

    def forward(self, x, mask):
        n, t, width = x.shape
        q, k, v = (f(x).reshape(n, t, self.heads, -1).permute(0, 2, 1, 3) for f in (self.query, self.key, self.value))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return out.permute(0, 2, 1, 3).reshape(n, t, width)


class Added(nn.Module):
    """A map whose result is added to what came before, and normalised."""

    def __init__(self, c, width):
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(width, c["hidden_size"]), nn.LayerNorm(c["hidden_size"], eps=c["layer_norm_eps"])

    def forward(self, y, x):
        return self.LayerNorm(self.dense(y) + x)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.attention, self.intermediate = nn.Module(), nn.Module()
        self.attention.add_module("self", SelfAttention(c))
        self.attention.output = Added(c, c["hidden_size"])
        self.intermediate.dense = nn.Linear(c["hidden_size"], c["intermediate_size"])
        self.output = Added(c, c["intermediate_size"])

    def forward(self, x, mask):
        x = self.attention.output(self.attention.self(x, mask), x)
        return self.output(F.gelu(self.intermediate.dense(x)), x)


class Bert(nn.Module):
    """Numbers of word pieces [N, T] to vectors [N, T, hidden size]; 0 is padding."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList([Layer(config) for _ in range(config["num_hidden_layers"])])

    def forward(self, x):
        mask, h = x != 0, self.embeddings(x)
        for layer in self.encoder.layer:
            h = layer(h, mask)
        return h


class SentenceEncoder(nn.Module):
    """Numbers of word pieces to one vector of length 1 for each text: the mean over its pieces."""

    def __init__(self, bert):
        super().__init__()
        self.bert = bert

    def forward(self, x):
        weight = (x != 0).to(md.float32)[..., None]
        return F.normalize((self.bert(x) * weight).sum(axis=1) / weight.sum(axis=1), dim=1)


def load(folder):
    """(tokenizer, encoder) of a folder with config.json, vocab.txt and model.safetensors."""
    folder = Path(folder)
    tokenizer = Tokenizer((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    bert = Bert(json.loads((folder / "config.json").read_text()))
    tensors = md.saving.load_tensors(folder / "model.safetensors")
    wanted = bert.state_dict().keys()  # the file also has a pooler, and the numbers of the positions
    bert.load_state_dict({k: v for k, v in tensors.items() if k in wanted})
    return tokenizer, SentenceEncoder(bert).eval()
