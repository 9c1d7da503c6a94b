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
    keys = {caption: {"answer": dict(facts or {}), "caption": caption} for caption in dict.fromkeys(captions)}
    kept = cache is not None and facts is not None
    answers = {}
    if kept:
        for caption, key in keys.items():
            if cache.path(key).is_file():
                answers[caption] = _through(cache, key, lambda one=caption: _all(ask, [one])[0])
    unknown = [caption for caption in keys if caption not in answers]
    starts = range(0, len(unknown), batch_size)
    for start in tqdm(starts, disable=not progress, desc=desc, leave=False):
        part = unknown[start : start + batch_size]
        found = dict(zip(part, _all(ask, part), strict=True))
        for caption, answer in found.items():
            if kept and keeps(answer):
                _through(cache, keys[caption], lambda said=answer: said)
        answers |= found
    return [answers[caption] for caption in captions]


def _all(ask: Callable[[list[str]], Sequence[Any]], captions: list[str]) -> list[Any]:
    answers = list(ask(captions))
    if len(answers) != len(captions):
        raise UwmError(
            f"{len(captions)} captions got {len(answers)} answers: a judge or scorer gives one each."
        )
    return answers


def _through(cache: Cache, key: dict[str, Any], make: Callable[[], Any]) -> Any:
    """Keep one JSON-able answer in a cache of tensors, as the bytes of its JSON."""

    def as_tensor() -> dict[str, torch.Tensor]:
        return {"json": torch.frombuffer(bytearray(json.dumps(make()).encode()), dtype=torch.uint8)}

    return json.loads(bytes(cache.tensors(key, as_tensor)["json"].tolist()).decode())
