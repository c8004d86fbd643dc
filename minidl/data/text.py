"""Text: words and their vocabulary, tokens of a learnt alphabet (`bpe`), padding, and texts from folders and CSV files.

`build_vocab_from_iterator` and `Vocab` have torchtext's names and behaviour. A tokenizer is any function from a text to its tokens; `Tokenizer` joins
one to a vocabulary, and a data set of (text, label) becomes batches by `PadCollate`.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.data.bpe import BytePairEncoding
from minidl.data.collate import host, numbers, tensors
from minidl.data.dataset import Dataset
from minidl.data.explaining import explain, explains

__all__ = ["CSV", "BytePairEncoding", "PadCollate", "TextFolder", "Tokenizer", "Vocab", "build_vocab_from_iterator", "pad_sequence", "words"]
_WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")


@explains
def words(text: str) -> list[str]:
    """The words of a text in lower case, and its punctuation marks, each a token of its own.

    >>> words("Don't panic: it's 42!")
    ["don't", 'panic', ':', "it's", '42', '!']
    """
    return _WORD.findall(text.lower())


# ---- vocabulary -----------------------------------------------------------------------------------------------------------------------------
class Vocab:
    """Numbers for tokens, in the order given; after set_default_index(i), i stands for every unknown token.

    Raises KeyError for an unknown token without that, ValueError for a token that comes twice, IndexError for a number that no token has.

    >>> vocab = Vocab(["<pad>", "<unk>", "to", "be"])
    >>> vocab.set_default_index(1)
    >>> vocab(["to", "be", "or"])
    [2, 3, 1]
    """

    def __init__(self, tokens: Sequence[str]):
        self._tokens = list(tokens)
        self._numbers = {t: i for i, t in enumerate(self._tokens)}
        self._default: int | None = None
        if len(self._numbers) != len(self._tokens):
            twice = [t for t, n in Counter(self._tokens).items() if n > 1]
            raise ValueError(f"Vocab: tokens that come twice: {', '.join(map(repr, twice[:5]))}")

    def set_default_index(self, index: int | None) -> None:
        """The number of unknown tokens; None makes them an error."""
        if index is not None and not 0 <= index < len(self):
            raise IndexError(f"Vocab: no token has the number {index}")
        self._default = index

    def get_default_index(self) -> int | None:
        """The number of unknown tokens, or None."""
        return self._default

    def __getitem__(self, token: str) -> int:
        return self._number(token)

    def _number(self, token: str) -> int:
        found = self._numbers.get(token, self._default)
        if found is None:
            raise KeyError(f"Vocab: {token!r} is not in the vocabulary; set_default_index gives unknown tokens a number")
        return found

    def __call__(self, tokens: Iterable[str]) -> list[int]:
        return [self._number(t) for t in tokens]

    lookup_indices = __call__

    def lookup_token(self, index: int) -> str:
        """The token of a number."""
        if not 0 <= index < len(self):
            raise IndexError(f"Vocab: no token has the number {index}")
        return self._tokens[index]

    def lookup_tokens(self, indices: Iterable[int]) -> list[str]:
        """The tokens of some numbers."""
        return [self.lookup_token(i) for i in indices]

    def get_itos(self) -> list[str]:
        """All tokens in the order of their numbers."""
        return list(self._tokens)

    def get_stoi(self) -> dict[str, int]:
        """All numbers by token."""
        return dict(self._numbers)

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._numbers


@explains
def build_vocab_from_iterator(
    iterator: Iterable[Iterable[str]], min_freq: int = 1, specials: Sequence[str] = (), special_first: bool = True, max_tokens: int | None = None
) -> Vocab:
    """The vocabulary of texts that are given as tokens: the commonest first, equally common ones in alphabetical order.

    Tokens seen less than min_freq times are left out, and what exceeds max_tokens, the specials included. Raises ValueError for max_tokens below the
    number of specials.

    >>> build_vocab_from_iterator([["b", "a"], ["c", "b"]], specials=["<unk>"], max_tokens=3).get_itos()
    ['<unk>', 'b', 'a']
    """
    if max_tokens is not None and max_tokens < len(specials):
        raise ValueError(f"build_vocab_from_iterator: {len(specials)} specials do not fit {max_tokens} tokens")
    counts = Counter(t for tokens in iterator for t in tokens)
    for special in specials:
        counts.pop(special, None)
    ordered = [t for t, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= min_freq]
    if max_tokens is not None:
        ordered = ordered[: max_tokens - len(specials)]
    return Vocab([*specials, *ordered] if special_first else [*ordered, *specials])


class Tokenizer:
    """From text to numbers and back: a function that cuts texts into tokens, and a vocabulary.

    >>> tokenizer = Tokenizer.build(["the cat sat", "the dog"])
    >>> tokenizer.encode("The dog barked")
    [2, 4, 1]
    >>> tokenizer.decode([2, 4, 1])
    'the dog <unk>'
    """

    def __init__(self, vocab: Vocab, tokenize: Callable[[str], Iterable[str]] = words):
        self.vocab, self.tokenize = vocab, tokenize

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        tokenize: Callable[[str], Iterable[str]] = words,
        *,
        min_freq: int = 1,
        max_tokens: int | None = None,
        specials: Sequence[str] = ("<pad>", "<unk>"),
    ) -> Tokenizer:
        """With the vocabulary of some texts. "<unk>" among the specials stands for what is not in it."""
        vocab = build_vocab_from_iterator(map(tokenize, texts), min_freq, specials, True, max_tokens)
        if "<unk>" in vocab:
            vocab.set_default_index(vocab["<unk>"])
        return cls(vocab, tokenize)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text."""
        return self.vocab(self.tokenize(text))

    __call__ = encode

    def decode(self, numbers: Iterable[int]) -> str:
        """The tokens of some numbers, joined by spaces."""
        return " ".join(self.vocab.lookup_tokens(int(n) for n in numbers))

    def __len__(self) -> int:
        return len(self.vocab)


# ---- padding --------------------------------------------------------------------------------------------------------------------------------
def _padded(rows: Sequence[Any], value: float, length: int | None = None) -> np.ndarray:
    arrays = [np.asarray(r) for r in rows]
    size = max(len(a) for a in arrays) if length is None else length
    kinds = {a.dtype for a in arrays if a.size} or {np.dtype(np.int64)}
    dtype = np.result_type(*kinds)
    if dtype.kind in "fc" and all(isinstance(r, list) for r in rows):
        dtype = numbers(np.empty(0, dtype)).dtype
    out = np.full((len(arrays), size, *arrays[0].shape[1:]), value, dtype)
    for row, a in zip(out, arrays, strict=True):
        row[: len(a)] = a[:size]
    return out


@explains
def pad_sequence(sequences: Sequence[Any], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right") -> Any:
    """Sequences of different lengths as one Tensor [longest, N, ...] (or [N, longest, ...]), as torch.nn.utils.rnn.pad_sequence.

    Raises ValueError for no sequence and for a padding_side other than "right" and "left".

    >>> pad_sequence([[1, 2, 3], [4]], batch_first=True).tolist()
    [[1, 2, 3], [4, 0, 0]]
    """
    if not len(sequences) or padding_side not in ("right", "left"):
        got = f"{len(sequences)} and {padding_side!r}"
        raise ValueError(f"pad_sequence: at least one sequence, and a padding_side right or left, are wanted; got {got}")
    rows = [s.numpy() if hasattr(s, "numpy") else s for s in sequences]
    out = _padded([r[::-1] for r in rows] if padding_side == "left" else rows, padding_value)
    out = out[:, ::-1] if padding_side == "left" else out
    return tensors(np.ascontiguousarray(out if batch_first else out.swapaxes(0, 1)), owned=True)


class PadCollate:
    """A collate_fn for items with rows of different lengths: lists of numbers and arrays are padded to the longest one of the batch.

    Works on items that are rows, tuples, or dicts of rows and other things (labels are stacked); Python floats become the default float dtype.
    max_length cuts off what is longer; pad_to_max_length makes every batch that long, so that a jitted step is compiled once. Raises ValueError for
    the last without max_length, TypeError for what is no list of items.

    >>> from minidl.data import DataLoader
    >>> loader = DataLoader([([1, 2, 3], 0), ([4], 1)], 2, collate_fn=PadCollate())
    >>> [v.tolist() for v in next(iter(loader))]
    [[[1, 2, 3], [4, 0, 0]], [0, 1]]
    """

    def __init__(self, padding_value: float = 0, max_length: int | None = None, pad_to_max_length: bool = False):
        if pad_to_max_length and max_length is None:
            raise ValueError("PadCollate: pad_to_max_length needs max_length")
        self.padding_value, self.max_length, self.pad_to_max_length = padding_value, max_length, pad_to_max_length

    def __call__(self, items: list[Any]) -> Any:
        if not isinstance(items, (list, tuple)) or not items:
            raise TypeError(f"PadCollate: items must be a list of at least one item, not {items!r}")
        first = items[0]
        if isinstance(first, dict):
            return {k: self([item[k] for item in items]) for k in first}
        if isinstance(first, tuple):
            return [self(list(column)) for column in zip(*items, strict=True)]
        rows = [i.numpy() if hasattr(i, "numpy") else i for i in items]
        if isinstance(first, list) or np.ndim(rows[0]):
            if all(np.asarray(r).dtype.kind in "biufc" for r in rows):
                longest = max(map(len, rows))
                length = self.max_length if self.pad_to_max_length else min(longest, self.max_length or longest)
                return _padded(rows, self.padding_value, length)
            return items
        return host(items)


# ---- texts on disk --------------------------------------------------------------------------------------------------------------------------
class TextFolder(Dataset):
    """Text files in a folder for each class, root/positive/12.txt: (text, number of the class). Files are read when asked for.

    classes are the folders' names in order, samples the (path, class) pairs; transform is applied to each text (a Tokenizer, for example).
    Raises RuntimeError for a root without such files.

    >>> import pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name, text in (("bad", "awful"), ("good", "fine")):
    ...     (root / name).mkdir()
    ...     _ = (root / name / "1.txt").write_text(text)
    >>> list(md.data.text.TextFolder(root))
    [('awful', 0), ('fine', 1)]
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        transform: Callable[[str], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        extensions: Sequence[str] = (".txt",),
        encoding: str = "utf-8",
    ):
        self.root, self.transform, self.target_transform, self.encoding = Path(root).expanduser(), transform, target_transform, encoding
        self.classes = sorted(p.name for p in self.root.iterdir() if p.is_dir())
        self.samples = [
            (path, i)
            for i, name in enumerate(self.classes)
            for path in sorted((self.root / name).rglob("*"))
            if path.suffix.lower() in extensions and path.is_file()
        ]
        if not self.samples:
            raise RuntimeError(f"TextFolder: {self.root} has no folders with files {', '.join(extensions)}")

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        text: Any = path.read_text(encoding=self.encoding)
        return (
            text if self.transform is None else self.transform(text),
            target if self.target_transform is None else self.target_transform(target),
        )

    def __len__(self) -> int:
        return len(self.samples)


class CSV(Dataset):
    """Rows of a CSV file as (text, number of the class). Columns are names from the header line, or numbers where header=False.

    Several text columns are joined by a space. classes are the labels in alphabetical order (in numerical order where all are whole numbers), unless
    they are given. label=None: the items are texts. Raises ValueError, with the number of the line, for a column or class that is not there.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "reviews.csv")
    >>> with path.open("w") as file:
    ...     for line in ("text,label", "fine,good", "awful,bad"):
    ...         print(line, file=file)
    >>> list(md.data.text.CSV(path))
    [('fine', 1), ('awful', 0)]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        text: str | int | Sequence[str | int] = "text",
        label: str | int | None = "label",
        transform: Callable[[str], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        header: bool = True,
        delimiter: str = ",",
        classes: Sequence[str] | None = None,
        encoding: str = "utf-8-sig",
    ):
        self.transform, self.target_transform = transform, target_transform
        self.texts: list[str] = []
        labels: list[str] = []
        wanted = [text] if isinstance(text, (str, int)) else list(text)
        with open(path, newline="", encoding=encoding) as file:
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                names: list[Any] = next(rows, []) if header else []
                columns = [self._column(path, c, names, header) for c in wanted]
                target = None if label is None else self._column(path, label, names, header)
                for row in rows:
                    if row:
                        self.texts.append(" ".join(row[c] for c in columns))
                        labels.append(row[target] if target is not None else "")
            except IndexError:
                raise ValueError(f"CSV: {path}, line {rows.line_num} has {len(row)} columns, too few for {wanted} and {label!r}") from None
            except csv.Error as error:
                raise ValueError(f"CSV: {path}, line {rows.line_num}: {error}") from None
        whole = all(re.fullmatch(r"[+-]?\d+", v) for v in labels)
        self.classes = list(classes) if classes is not None else sorted(set(labels), key=int if whole and target is not None else None)
        number = {name: i for i, name in enumerate(self.classes)}
        unknown = set(labels) - set(number)
        if unknown:
            raise ValueError(f"CSV: {path} has labels that are not among the classes: {', '.join(sorted(unknown)[:5])}")
        self.targets = None if target is None else np.array([number[v] for v in labels], np.int64)

    @staticmethod
    def _column(path: Any, column: str | int, names: list[str], header: bool) -> int:
        if isinstance(column, int):
            return column
        if not header or column not in names:
            have = ", ".join(names) if header else "no header line"
            raise ValueError(f"CSV: {path} has no column {column!r} ({have})")
        return names.index(column)

    def __getitem__(self, index: int) -> Any:
        text: Any = self.texts[index]
        text = text if self.transform is None else self.transform(text)
        if self.targets is None:
            return text
        target = int(self.targets[index])
        return text, target if self.target_transform is None else self.target_transform(target)

    def __len__(self) -> int:
        return len(self.texts)


explain(globals(), __all__)
