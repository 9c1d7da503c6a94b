"""Captions asked about once each, in batches; what was said is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from uwmlib.errors import UwmError

if TYPE_CHECKING:
    from uwmlib.cache import Cache


def ask_in_batches(
    ask: Callable[[list[str]], Sequence[Any]],
    captions: Sequence[str],
    *,
    batch_size: int,
    cache: Cache | None = None,
    facts: Mapping[str, Any] | None = None,
    keeps: Callable[[Any], bool] = lambda answer: True,
    progress: bool = False,
    desc: str = "captions",
) -> list[Any]:
    """Return the answer to every caption; equal captions are asked about once.

    Parameters
    ----------
    ask : callable, list of str -> as many answers
        Answers must be JSON-able to be kept.
    captions : sequence of str, length N
    batch_size : int
        Captions at a time; the answers to each batch are kept as soon as they are there.
    cache : Cache, optional
    facts : mapping, optional
        Everything but the caption that an answer depends on; nothing is kept without it.
    keeps : callable
        Says of an answer whether it may be kept.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list, length N

    Raises
    ------
    UwmError
        If there are not as many answers as captions.
    """
    answers: dict[str, Any] = {}
    kept = cache is not None and facts is not None
    different = list(dict.fromkeys(captions))
    if kept:
        cache.require_writable()
        found = {caption: cache.find(_key(facts, caption)) for caption in different}
        answers = {caption: _read(tensors) for caption, tensors in found.items() if tensors is not None}
    unknown = [caption for caption in different if caption not in answers]
    starts = range(0, len(unknown), batch_size)
    for start in tqdm(starts, disable=not progress, desc=desc, leave=False):
        part = unknown[start : start + batch_size]
        said = list(ask(part))
        if len(said) != len(part):
            raise UwmError(f"{len(part)} captions got {len(said)} answers: a judge or scorer gives one each.")
        for caption, answer in zip(part, said, strict=True):
            answers[caption] = answer
            if kept and keeps(answer):
                cache.keep(_key(facts, caption), _written(answer))
    return [answers[caption] for caption in captions]


def _key(facts: Mapping[str, Any], caption: str) -> dict[str, Any]:
    return {"answer": dict(facts), "caption": caption}


def _written(answer: Any) -> dict[str, torch.Tensor]:
    """Return a JSON-able answer as what a cache keeps: a tensor of the bytes of its JSON."""
    return {"json": torch.frombuffer(bytearray(json.dumps(answer).encode()), dtype=torch.uint8)}


def _read(tensors: Mapping[str, torch.Tensor]) -> Any:
    return json.loads(bytes(tensors["json"].tolist()).decode())
