"""The mini world's word-level tokenizers, with the conventions of CLIP and of SigLIP."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from uwmlib.mini.vocabulary import words

CONTEXT_LENGTH = 26


def split_words(text: str) -> list[str]:
    """Return the lower-case words of a text; whatever is no letter separates them."""
    return re.findall(r"[a-z]+", text.lower())


class MiniTokenizer:
    """Words to ids: 0 pads, words follow in alphabetical order, then unknown, start and end of text.

    The end-of-text id is the largest one, as in CLIP, whose text encoder reads its output at the largest id.
    """

    def __init__(self) -> None:
        self.ids = {word: index + 1 for index, word in enumerate(words())}
        self.unknown = len(self.ids) + 1
        self.start = self.unknown + 1
        self.end = self.unknown + 2
        self.vocab_size = self.unknown + 3

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return int64 ids, shape (len(texts), 26); longer texts keep their first words and their end."""
        out = torch.zeros(len(texts), CONTEXT_LENGTH, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids = [self.ids.get(word, self.unknown) for word in split_words(text)]
            ids = [self.start, *ids[: CONTEXT_LENGTH - 2], self.end]
            out[row, : len(ids)] = torch.tensor(ids)
        return out


class MiniSiglipTokenizer:
    """Words to ids as SigLIP has them: no start, and id 1 both ends a text and pads it to the full context."""

    pad = 1

    def __init__(self) -> None:
        self.ids = {word: index + 2 for index, word in enumerate(words())}
        self.unknown = 0
        self.vocab_size = len(self.ids) + 2

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return int64 ids, shape (len(texts), 26); longer texts keep their first words and one end."""
        out = torch.full((len(texts), CONTEXT_LENGTH), self.pad)
        for row, text in enumerate(texts):
            ids = [self.ids.get(word, self.unknown) for word in split_words(text)][: CONTEXT_LENGTH - 1]
            out[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return out
