"""The mini world's word-level tokenizers, with the conventions of CLIP and of SigLIP."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from uwmlib.mini.worlds import World


def split_words(text: str) -> list[str]:
    """Return the lower-case words of a text; whatever is no letter separates them."""
    return re.findall(r"[a-z]+", text.lower())


class MiniTokenizer:
    """Words to ids: 0 pads, words follow in alphabetical order, then unknown, start and end of text.

    The end-of-text id is the largest one, as in CLIP, whose text encoder reads its output at the largest id.
    """

    def __init__(self, *, world: World) -> None:
        self.context_length = world.context_length
        self.ids = {word: index + 1 for index, word in enumerate(world.words)}
        self.unknown = len(self.ids) + 1
        self.start = self.unknown + 1
        self.end = self.unknown + 2
        self.vocab_size = self.unknown + 3

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return int64 ids, shape (len(texts), L), L of the world; longer texts keep their first words and end."""
        out = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids = [self.ids.get(word, self.unknown) for word in split_words(text)]
            ids = [self.start, *ids[: self.context_length - 2], self.end]
            out[row, : len(ids)] = torch.tensor(ids)
        return out


class MiniSiglipTokenizer:
    """Words to ids as SigLIP has them: no start, and id 1 both ends a text and pads it to the full context."""

    pad = 1

    def __init__(self, *, world: World) -> None:
        self.context_length = world.context_length
        self.ids = {word: index + 2 for index, word in enumerate(world.words)}
        self.unknown = 0
        self.vocab_size = len(self.ids) + 2

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return int64 ids, shape (len(texts), L), L of the world; longer texts keep their first words and one end."""
        out = torch.full((len(texts), self.context_length), self.pad)
        for row, text in enumerate(texts):
            ids = [self.ids.get(word, self.unknown) for word in split_words(text)][: self.context_length - 1]
            out[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return out
