"""Byte-pair encoding (R. Sennrich, B. Haddow and A. Birch, 2016), on bytes as in GPT-2: any text can be encoded, and decoding gives it back.

Text is cut into words with the space before them; inside a word the commonest pair of neighbouring tokens becomes a token of its own, again and
again, until the vocabulary is full. Of equally common pairs the one of the smallest numbers is taken, so that training is a function of its texts.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from minidl.data.bars import bar

_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?\d+| ?(?:_|[^\s\w])+|\s+(?!\S)|\s+")
Pair = tuple[int, int]


class BytePairEncoding:
    """Tokens 0 … 255 are the bytes, then come the pairs that were learnt, then the specials (texts that are never cut).

    Raises ValueError for a pair of tokens that are not there before it, and for specials that are empty or given twice.

    >>> bpe = BytePairEncoding.train(["low lower lowest"] * 5, vocab_size=262)
    >>> [bpe.token(i) for i in bpe.encode("lower low")]
    [b'low', b'e', b'r', b' low']
    >>> bpe.decode(bpe.encode("ein Löwe 🦁"))
    'ein Löwe 🦁'
    """

    def __init__(self, merges: Sequence[Pair], specials: Sequence[str] = ()):
        self.merges = [(int(a), int(b)) for a, b in merges]
        self._bytes = [bytes([i]) for i in range(256)]
        for n, (a, b) in enumerate(self.merges):
            if not 0 <= a < 256 + n or not 0 <= b < 256 + n:
                raise ValueError(f"BytePairEncoding: pair {n} joins tokens {a} and {b}, but there are {256 + n} so far")
            self._bytes.append(self._bytes[a] + self._bytes[b])
        if len(set(specials)) != len(specials) or "" in specials:
            raise ValueError("BytePairEncoding: specials are texts, not empty and none twice")
        self.specials = {s: len(self._bytes) + i for i, s in enumerate(specials)}
        self._rank = {pair: i for i, pair in enumerate(self.merges)}
        self._cut = re.compile("(" + "|".join(re.escape(s) for s in sorted(self.specials, key=len, reverse=True)) + ")") if specials else None
        self._known: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = (), min_frequency: int = 2, *, progress: bool = True
    ) -> BytePairEncoding:
        """Learn pairs from texts until there are vocab_size tokens, or no pair is seen min_frequency times; a progress bar after two seconds.

        The pairs' counts are kept up to date word by word, so that each step costs what it changes. Raises ValueError for a vocab_size that does not
        hold the bytes and the specials.
        """
        wanted = vocab_size - 256 - len(specials)
        if wanted < 0:
            raise ValueError(f"BytePairEncoding: a vocabulary of {vocab_size} does not hold 256 bytes and {len(specials)} specials")
        pieces = Counter(piece for text in texts for piece in _PIECES.findall(text))
        rows = [(list(piece.encode()), n) for piece, n in pieces.items()]
        counts: Counter[Pair] = Counter()
        places: defaultdict[Pair, set[int]] = defaultdict(set)
        for i, (row, n) in enumerate(rows):
            for pair in itertools.pairwise(row):
                counts[pair] += n
                places[pair].add(i)
        heap = [(-n, pair) for pair, n in counts.items()]
        heapq.heapify(heap)
        merges: list[Pair] = []
        with bar(total=wanted, desc="byte pairs", delay=2, disable=not progress) as shown:
            while heap and len(merges) < wanted:
                n, pair = heapq.heappop(heap)
                if -n != counts[pair]:  # an old count
                    continue
                if -n < min_frequency:
                    break
                new = 256 + len(merges)
                merges.append(pair)
                changed: Counter[Pair] = Counter()
                for i in places.pop(pair):
                    row, times = rows[i]
                    joined = _join(row, pair, new)
                    for p in itertools.pairwise(row):
                        changed[p] -= times
                    for p in itertools.pairwise(joined):
                        changed[p] += times
                        places[p].add(i)
                    rows[i] = (joined, times)
                for p, change in changed.items():
                    if change:
                        counts[p] += change
                        if counts[p] > 0:
                            heapq.heappush(heap, (-counts[p], p))
                counts[pair] = 0
                shown.update()
        return cls(merges, specials)

    def __len__(self) -> int:
        return len(self._bytes) + len(self.specials)

    def token(self, number: int) -> bytes:
        """The bytes of a token. Raises IndexError for a number that no token has."""
        if 0 <= number < len(self._bytes):
            return self._bytes[number]
        for special, i in self.specials.items():
            if i == number:
                return special.encode()
        raise IndexError(f"BytePairEncoding: no token has the number {number}; there are {len(self)}")

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        if self._cut is None:
            return self._plain(text)
        out: list[int] = []
        for part in self._cut.split(text):
            if part in self.specials:
                out.append(self.specials[part])
            else:
                out += self._plain(part)
        return out

    __call__ = encode

    def _plain(self, text: str) -> list[int]:
        out: list[int] = []
        for piece in _PIECES.findall(text):
            known = self._known.get(piece)
            if known is None:
                known = list(piece.encode())
                while len(known) > 1:
                    pair = min(itertools.pairwise(known), key=lambda p: self._rank.get(p, len(self._rank)))
                    if pair not in self._rank:
                        break
                    known = _join(known, pair, 256 + self._rank[pair])
                if len(self._known) < 100_000:
                    self._known[piece] = known
            out += known
        return out

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of some tokens; bytes that are no text (a part of a character) become U+FFFD. Raises IndexError for a number that no token has."""
        return b"".join(self.token(int(n)) for n in numbers).decode("utf-8", errors="replace")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write pairs and specials as JSON."""
        Path(path).write_text(json.dumps({"merges": self.merges, "specials": list(self.specials)}), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BytePairEncoding:
        """Read what save wrote. Raises ValueError for anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls([(a, b) for a, b in content["merges"]], [str(s) for s in content["specials"]])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no byte-pair encoding: {error}") from error


def _join(row: list[int], pair: Pair, new: int) -> list[int]:
    out: list[int] = []
    i = 0
    while i < len(row):
        if i + 1 < len(row) and (row[i], row[i + 1]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(row[i])
            i += 1
    return out
