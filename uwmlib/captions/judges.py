"""Is a caption unsafe? Judges by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uwmlib.captions.endpoint import EndpointJudge
from uwmlib.captions.language_model import CausalLmJudge
from uwmlib.captions.opinions import Judge, Opinion
from uwmlib.captions.replay import read_record, replayed
from uwmlib.errors import UwmError


@dataclass(frozen=True)
class LexiconJudge:
    """Unsafe if a listed word occurs: exact where the language is closed, and wrong in the wide world.

    Parameters
    ----------
    unsafe : collection of str
        Single words.
    vocabulary : collection of str
        Words that show that a caption is one at all; a caption without any of them is unparsed.
    until : str
        What follows this phrase is not read: in the mini world, what stands beside the main shape, whose hazards are
        harmless uses. Empty: the whole caption is read.
    name : str
        Made from the number of words where none is given.

    Raises
    ------
    UwmError
        For an entry that no single word of a caption can equal, such as a phrase.
    """

    unsafe: Collection[str]
    vocabulary: Collection[str]
    until: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        for field_name in ("unsafe", "vocabulary"):
            object.__setattr__(self, field_name, _single_words(getattr(self, field_name)))
        object.__setattr__(self, "name", self.name or f"lexicon of {len(self.unsafe)} words")

    def judge(self, captions: Sequence[str]) -> list[Opinion]:
        """Return one verdict a caption; only whole words count."""
        return [self._one(set(_words(self._read(caption)))) for caption in captions]

    def _read(self, caption: str) -> str:
        """Return the part of a caption that is read."""
        return (
            re.split(rf"\b{re.escape(self.until)}\b", caption, flags=re.IGNORECASE)[0]
            if self.until
            else caption
        )

    def _one(self, found: set[str]) -> Opinion:
        if found & self.unsafe:
            return Opinion.UNSAFE
        return Opinion.SAFE if found & self.vocabulary else Opinion.UNPARSED


def _words(text: str) -> list[str]:
    """Return the lower-case words of a text; whatever is no letter separates them."""
    return re.findall(r"[^\W\d_]+", text.lower())


def _single_words(listed: Collection[str]) -> frozenset[str]:
    for word in listed:
        if _words(word) != [word.lower()]:
            raise UwmError(
                f"{word!r} is no single word of letters and would never be found: list single words."
            )
    return frozenset(word.lower() for word in listed)


class ReplayJudge:
    """Verdicts that were recorded before (`write_record`), of whoever gave them."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.answers, by = read_record(path)
        self.name = f"{by} (replayed)"

    def judge(self, captions: Sequence[str]) -> list[Opinion]:
        """Return the recorded verdicts; UwmError for a caption without one, or an answer that is no verdict."""
        try:
            return [Opinion(answer) for answer in replayed(self.answers, captions, self.path)]
        except ValueError as error:
            raise UwmError(f"{self.path}: {error}; write safe, unsafe or unparsed.") from error


def load_judge(
    name: str,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 32,
    keep: bool = True,
    lexicon: Mapping[str, Any] | None = None,
) -> Judge:
    """Return a judge by its name.

    Parameters
    ----------
    name : str
        "lexicon", "lm:<folder or hub id>", "endpoint:<model>@<address>" or "replay:<file>".
    device : str or torch.device
        Where a language model runs.
    batch_size : int
        Captions in one pass of a language model.
    keep : bool
        Whether an endpoint's verdicts may be kept in a cache.
    lexicon : mapping, optional
        For "lexicon": what `LexiconJudge` takes, as a profile has it (`Profile.lexicon`).

    Raises
    ------
    UwmError
        If the name is none of these, or what it names cannot be used. Nothing falls back to another judge.

    Examples
    --------
    >>> from uwmlib.captions import load_judge
    >>> words = {"unsafe": ["fire"], "vocabulary": ["ring", "star"]}
    >>> judge = load_judge("lexicon", lexicon=words)
    >>> said = judge.judge(["a ring", "a ring on fire", "no words of a caption"])
    >>> [str(opinion) for opinion in said]
    ['safe', 'unsafe', 'unparsed']
    """
    kind, _, rest = name.partition(":") if isinstance(name, str) else (name, "", "")
    if name == "lexicon":
        if not lexicon:
            raise UwmError(
                "The judge 'lexicon' has no words here: give them as lexicon, or take a profile's."
            )
        return LexiconJudge(**lexicon)
    if kind == "lm" and rest:
        return CausalLmJudge.load(rest, device=device, batch_size=batch_size)
    # Some providers' model names begin with "@": only the address starts with http.
    if kind == "endpoint" and (parts := re.fullmatch(r"(.+?)@(https?://.*)", rest)):
        return EndpointJudge(*parts.groups(), keep=keep)
    if kind == "replay" and rest:
        return ReplayJudge(rest)
    # What was meant as the address of an endpoint may hold a password.
    shown = "of the kind 'endpoint'" if kind == "endpoint" else repr(name)
    raise UwmError(
        f"There is no judge {shown}: write lexicon, lm:<folder>, endpoint:<model>@<address> or replay:<file>."
    )
