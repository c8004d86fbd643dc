"""Vocabulary, tokenizers, byte pairs, padding, and texts from folders and CSV files."""

from __future__ import annotations

import inspect
import itertools
import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import minidl as md
from minidl.data import DataLoader, Subset, text
from minidl.data.text import CSV, BytePairEncoding, PadCollate, TextFolder, Tokenizer, Vocab, build_vocab_from_iterator, pad_sequence, words

#: Real text that every Python has.
PROSE = inspect.cleandoc(json.__doc__ or "") + "\n" + "\n".join(inspect.getdoc(getattr(str, n)) or "" for n in dir(str))


def test_a_vocabulary_in_order_of_frequency():
    vocab = build_vocab_from_iterator(map(words, ["to be or not to be", "to see", "be"]), specials=["<pad>", "<unk>", "or"])
    assert vocab.get_itos() == ["<pad>", "<unk>", "or", "be", "to", "not", "see"] and len(vocab) == 7
    assert vocab.get_stoi()["see"] == 6 and vocab["be"] == 3 and "be" in vocab and "maybe" not in vocab
    with pytest.raises(KeyError, match="'maybe' is not in the vocabulary"):
        vocab(["to", "maybe"])
    vocab.set_default_index(0)
    assert vocab["maybe"] == 0
    vocab.set_default_index(1)
    assert vocab(["to", "maybe"]) == vocab.lookup_indices(["to", "maybe"]) == [4, 1] and vocab.get_default_index() == 1
    assert vocab.lookup_tokens([3, 0]) == ["be", "<pad>"]
    assert build_vocab_from_iterator([["a", "b", "b"]], 2, ["x"], special_first=False).get_itos() == ["b", "x"]
    assert build_vocab_from_iterator([["a", "b", "b"]], max_tokens=1).get_itos() == ["b"]
    for wrong in (lambda: Vocab(["a", "a"]), lambda: build_vocab_from_iterator([], specials=["a", "b"], max_tokens=1)):
        with pytest.raises(ValueError):
            wrong()
    for wrong in (lambda: vocab.lookup_token(7), lambda: vocab.lookup_token(-1), lambda: vocab.set_default_index(7)):
        with pytest.raises(IndexError):
            wrong()


def test_a_tokenizer_knows_its_words():
    tokenizer = Tokenizer.build([PROSE], min_freq=2)
    numbers = tokenizer.encode("Return the string, xylophone")
    assert tokenizer.decode(numbers) == "return the string , <unk>" and tokenizer("Return") == numbers[:1] and len(tokenizer) == len(tokenizer.vocab)
    letters = Tokenizer.build(["abc"], list, specials=())
    assert letters("cab") == [2, 0, 1]
    with pytest.raises(KeyError):
        letters("d")


@given(st.text(max_size=60))
def test_byte_pairs_give_any_text_back(some):
    bpe = trained()
    assert bpe.decode(bpe.encode(some)) == some


_trained: list[BytePairEncoding] = []


def trained():
    if not _trained:
        _trained.append(BytePairEncoding.train([PROSE], 400, specials=["<|end|>", "<|end|>more"]))
    return _trained[0]


def test_byte_pairs_are_the_commonest_ones(tmp_path):
    """Against the definition, which counts everything anew for each pair."""
    from minidl.data.bpe import _PIECES

    rows = [list(piece.encode()) for piece in _PIECES.findall(PROSE)]
    assert "".join(_PIECES.findall(PROSE)) == PROSE
    bpe = trained()
    for n, pair in enumerate(bpe.merges[:60]):
        counts: dict = {}
        for row in rows:
            for p in itertools.pairwise(row):
                counts[p] = counts.get(p, 0) + 1
        best = max(counts.values())
        assert pair == min(p for p, c in counts.items() if c == best)
        for row in rows:
            i = 0
            while i < len(row) - 1:
                if (row[i], row[i + 1]) == pair:
                    row[i : i + 2] = [256 + n]
                i += 1
    assert len(bpe) == 400 and len(bpe.encode(PROSE)) < 0.55 * len(PROSE.encode())
    assert bpe.encode("<|end|>more<|end|>a") == [399, 398, 97] and bpe.decode([399, 97]) == "<|end|>morea" and bpe.token(398) == b"<|end|>"
    bpe.save(tmp_path / "bpe.json")
    again = BytePairEncoding.load(tmp_path / "bpe.json")
    assert again.encode(PROSE) == bpe.encode(PROSE) and again.specials == bpe.specials
    (tmp_path / "bpe.json").write_text('{"merges": [[900, 1]], "specials": []}')
    with pytest.raises(ValueError, match="no byte-pair encoding"):
        BytePairEncoding.load(tmp_path / "bpe.json")
    assert len(BytePairEncoding.train(["ab"], 300)) == 256  # nothing is seen twice
    with pytest.raises(ValueError, match="does not hold"):
        BytePairEncoding.train(["ab"], 200)
    with pytest.raises(IndexError):
        bpe.token(400)


def test_padding(backend):
    torch = pytest.importorskip("torch")
    rows = [np.arange(3.0), np.arange(1.0), np.arange(2.0)]
    for first, side in ((True, "right"), (False, "left")):
        got = pad_sequence(rows, first, -1.0, side)
        want = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(r) for r in rows], first, -1.0, side)
        assert got.tolist() == want.tolist() and got.dtype is md.float64 and got.backend == backend
    assert pad_sequence([md.ones((2, 3)), md.ones((1, 3))]).shape == (2, 2, 3)
    with pytest.raises(ValueError, match="padding_side"):
        pad_sequence(rows, padding_side="middle")
    items = [{"ids": [1, 2, 3], "label": 0, "text": "abc"}, {"ids": [], "label": 1, "text": "d"}]
    batch = next(iter(DataLoader(items, 2, collate_fn=PadCollate(9, max_length=2))))
    assert batch["ids"].tolist() == [[1, 2], [9, 9]] and batch["label"].tolist() == [0, 1] and batch["text"] == ["abc", "d"]
    assert PadCollate(max_length=5, pad_to_max_length=True)([[1], [2, 3]]).shape == (2, 5)
    with pytest.raises(ValueError, match="max_length"):
        PadCollate(pad_to_max_length=True)


def test_a_folder_for_each_class_feeds_a_loader_with_workers(tmp_path):
    for name, lines in (("good", ["very good", "good good"]), ("bad", ["bad", "not good at all"])):
        (tmp_path / name).mkdir()
        for i, line in enumerate(lines):
            (tmp_path / name / f"{i}.txt").write_text(line, encoding="utf-8")
        (tmp_path / name / "readme.md").write_text("no example")
    plain = TextFolder(tmp_path)
    assert plain.classes == ["bad", "good"]
    assert [plain[i] for i in range(4)] == [("bad", 0), ("not good at all", 0), ("very good", 1), ("good good", 1)]
    data = TextFolder(tmp_path, Tokenizer.build(t for t, _ in (plain[i] for i in range(len(plain)))))
    ids, labels = next(iter(DataLoader(data, 4, num_workers=1, collate_fn=PadCollate())))
    assert ids.tolist() == [[5, 0, 0, 0], [6, 2, 4, 3], [7, 2, 0, 0], [2, 2, 0, 0]] and labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(RuntimeError, match="no folders"):
        TextFolder(tmp_path / "good")


def test_csv_files(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text('title,text,label\n"A, b","line one\nline two",pos\n\nC,d,neg\n', encoding="utf-8-sig")
    data = CSV(path, ["title", "text"])
    assert len(data) == 2 and data.classes == ["neg", "pos"] and data[0] == ("A, b line one\nline two", 1) and data[1] == ("C d", 0)
    assert CSV(path, label=None)[1] == "d" and CSV(path, transform=words, target_transform=str)[1] == (["d"], "0")
    news = tmp_path / "news.csv"  # the form of AG News: the class, the title, the text, and no header
    news.write_text('"10","Wall St.","up"\n"9","Match","won"\n')
    data = CSV(news, (1, 2), 0, header=False)
    assert data.classes == ["9", "10"] and data[0] == ("Wall St. up", 1) and [b for _, b in Subset(data, [1])] == [0]
    for wrong, what in ((lambda: CSV(path, "body"), "no column 'body' .title, text, label"), (lambda: CSV(news, 1, 5, header=False), "line 1"),
                        (lambda: CSV(news, "text", header=False), "no header"), (lambda: CSV(path, classes=["pos"]), "neg")):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            wrong()
    assert text.CSV is CSV


def test_rows_of_pythons_floats_have_the_default_dtype_as_in_a_batch():
    for rows in ([[1.5], [2.0, 3.0]], [[1], [2.5, 3.0]], [[], [2.5]]):
        assert PadCollate()(rows).dtype == pad_sequence(rows).numpy().dtype == np.float32
    try:
        md.set_default_dtype(md.float64)
        assert PadCollate()([[1.5], [2.0, 3.0]]).dtype == np.float64
    finally:
        md.set_default_dtype(md.float32)
    assert PadCollate()([[1], [2, 3]]).dtype == np.int64 and PadCollate()([np.ones(1), np.ones(2)]).dtype == np.float64
