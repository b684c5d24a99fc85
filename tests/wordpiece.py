"""Text → token ids as BERT's uncased models cut it (Devlin et al. 2018, arXiv 1810.04805): a minimal WordPiece."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

LONGEST_WORD = 100  # characters; BERT gives longer ones up unread


class WordPiece:
    """A vocabulary, one piece a line; a piece that goes on within a word is written ##piece."""

    def __init__(self, vocabulary: Path) -> None:
        pieces = vocabulary.read_text(encoding="utf-8").splitlines()
        self.ids = {piece: index for index, piece in enumerate(pieces)}

    def encode(self, text: str) -> list[int]:
        """Ids of `[CLS] text [SEP]`."""
        pieces = [piece for word in words(text) for piece in self.cut(word)]
        return [self.ids[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    def cut(self, word: str) -> list[str]:
        """The longest piece that the word begins with, then the longest of what is left; [UNK] where none fits."""
        pieces: list[str] = []
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            options = ("##" * (start > 0) + word[start:end] for end in ends)
            piece = next((option for option in options if option in self.ids), None)
            if piece is None or len(word) > LONGEST_WORD:
                return ["[UNK]"]
            pieces.append(piece)
            start += len(piece) - 2 * (start > 0)
        return pieces


def words(text: str) -> Iterator[str]:
    """Lower-cased words without accents; punctuation and Chinese characters are words of their own."""
    spaced = "".join(f" {c} " if _stands_alone(c) else "" if _is_control(c) else c for c in text)
    for word in spaced.split():
        lowered = unicodedata.normalize("NFD", word.lower())
        yield "".join(c for c in lowered if unicodedata.category(c) != "Mn")


def _stands_alone(c: str) -> bool:
    """Punctuation, for which BERT takes every ASCII symbol too, or a CJK ideograph (the two common blocks of them)."""
    ascii_symbol = c.isascii() and c.isprintable() and not c.isalnum() and c != " "
    return ascii_symbol or unicodedata.category(c).startswith("P") or "\u3400" <= c <= "\u9fff"


def _is_control(c: str) -> bool:
    return c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Cf") and not c.isspace())
