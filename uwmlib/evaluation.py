"""Measure a model: embed once, then SafeGround, retrieval, zero-shot accuracy and benign use from embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from uwmlib.cache import Cache, as_cache
from uwmlib.editing.features import Features
from uwmlib.errors import UwmError
from uwmlib.metrics import (
    CATALOGUE,
    BenignUse,
    Measured,
    Retrieval,
    SafeGround,
    Score,
    accuracy,
    benign_use,
    classify,
    contrasts,
    mean_accuracy,
    retrieval,
    safeground,
)
from uwmlib.metrics.score import PERCENT
from uwmlib.models.pixels import check_array, check_pictures, image_digest
from uwmlib.models.vlm import Vlm, check_texts, require_vlm
from uwmlib.options import as_list, check_batch_size
from uwmlib.tuples.benign import BenignUses, require_benign
from uwmlib.tuples.paired import Paired
from uwmlib.tuples.tuples import Tuples, require_tuples
from uwmlib.zero_shot.sets import ZeroShotSet

_INPUTS = {"text": "texts", "vision": "images"}


@dataclass(frozen=True)
class Evaluation(Measured):
    """What was measured of one model on one set of tuples: `evaluation["gs"]` is one score of it.

    Attributes
    ----------
    model, data : str
        Names of the model and of the tuples.
    safeground : SafeGround
        Preferences of every tuple (Eq. 3-7).
    retrieval : Retrieval
        Ranks of every query in the four directions (Eq. 1-2).
    zero_shot : dict of str to Score
        Accuracies by name of the set; empty if none was asked for.
    split : str
        The split of the tuples; empty where they have none.
    benign : BenignUse or None
        Preferences for harmless uses; None if none were asked for.
    match : Score or None
        How often the right pairing is preferred (`uwmlib.metrics.Contrasts`); None if it was not asked for.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> evaluation = uwm.evaluate(vlm, uwm.load_tuples("mini-visu", n=8))
    >>> evaluation["ts_vs"].value, evaluation["ts_vs"].n
    (100.0, 8)
    >>> "gs" in evaluation, "zs_mean" in evaluation
    (True, False)
    """

    model: str
    data: str
    safeground: SafeGround
    retrieval: Retrieval
    zero_shot: dict[str, Score] = field(default_factory=dict)
    split: str = ""
    benign: BenignUse | None = None
    match: Score | None = None

    @classmethod
    def from_embeddings(
        cls,
        parts: Mapping[str, torch.Tensor],
        benign: Mapping[str, torch.Tensor] | None = None,
        *,
        match: bool = True,
        **facts: Any,
    ) -> Evaluation:
        """Measure embeddings, wherever they come from.

        Parameters
        ----------
        parts : mapping of str to Tensor, shape [N, D]
            As `embed_tuples` returns them.
        benign : mapping of str to Tensor, shape [K, D], optional
            As `embed_benign` returns them.
        match : bool
            Whether to measure `match` too.
        **facts
            `model` and `data`, and `split` and `zero_shot` where there are any.

        Raises
        ------
        UwmError
            As `safeground` and `benign_use`.

        Examples
        --------
        >>> import uwmlib as uwm
        >>> vlm = uwm.load_model("mini-ViT-L-14")
        >>> parts = uwm.embed_tuples(vlm, uwm.load_tuples("mini-visu", n=8))
        >>> found = uwm.Evaluation.from_embeddings(parts, model="mine", data="eight")
        >>> found["match"].value, found["gs"].n
        (87.5, 8)
        """
        return cls(
            **facts,
            safeground=safeground(**parts),
            retrieval=retrieval(**parts),
            benign=None if benign is None else benign_use(**benign),
            match=contrasts(**parts)["match"] if match else None,
        )

    def __iter__(self) -> Iterator[str]:
        """Yield the names of recall@1 and SafeGround, and of zero-shot sets, benign use and match, where asked for."""
        return chain(*self._parts())

    def _score(self, key: str) -> Score:
        return next(part[key] for part in self._parts() if key in part)

    def as_percent(self) -> dict[str, float]:
        """Return every rate in percent under the keys used throughout (recall is R@1)."""
        return {key: score.value for key, score in self.items() if score.unit == PERCENT}

    def _parts(self) -> tuple[Mapping[str, Score], ...]:
        mean = {"zs_mean": mean_accuracy(self.zero_shot)} if self.zero_shot else {}
        match = {} if self.match is None else {"match": self.match}
        return self.retrieval, self.safeground, self.zero_shot, mean, self.benign or {}, match

    def __str__(self) -> str:
        lines = [f"{self.model} on {self.data} (n = {self.safeground.n}; percent, 95% interval)"]
        for key, value in self.as_percent().items():
            low, high = self[key].interval
            lines.append(f"  {key:<16} {value:6.1f}   [{low:5.1f}, {high:5.1f}]")
        for query in ("text", "image"):
            pair = self.safeground.sensitivity_bias(query)
            lines.append(f"  {query} queries: sensitivity {pair.sensitivity:.2f}, safe bias {pair.bias:+.2f}")
        return "\n".join(lines)


def embed_images(
    vlm: Vlm,
    images: Any,
    *,
    batch_size: int = 128,
    progress: bool = False,
    cache: Cache | PathLike | str | None = None,
) -> torch.Tensor:
    """Embed images batch by batch.

    Parameters
    ----------
    vlm : Vlm
    images : uint8 array [N, H, W, 3] or ImageFiles
        Opened and preprocessed one batch at a time.
    cache : Cache or the path of its folder, optional
        Where to look for the embeddings first; they are kept there for the next time.

    Returns
    -------
    Tensor, shape [N, D], float32 on the CPU, unit norm

    Raises
    ------
    UwmError
        For a name in place of a model, or what are no images.
    """
    require_vlm(vlm)
    if isinstance(images, np.ndarray):
        check_array(images)
    elif not hasattr(images, "digest") or not len(images):  # files and shards open their pictures one by one
        check_pictures(images)
    options = {"batch_size": batch_size, "progress": progress, "cache": cache}
    return _embedded(vlm, "vision", [images], **options)[0]


def embed_texts(
    vlm: Vlm,
    texts: Sequence[str],
    *,
    batch_size: int = 256,
    progress: bool = False,
    cache: Cache | PathLike | str | None = None,
) -> torch.Tensor:
    """Embed texts batch by batch, or find them in `cache`; returns [N, D], float32 on the CPU, unit norm."""
    require_vlm(vlm)
    check_texts(texts)
    options = {"batch_size": batch_size, "progress": progress, "cache": cache}
    return _embedded(vlm, "text", [list(texts)], **options)[0]


def _embedded(
    vlm: Vlm, encoder: str, parts: Sequence[Any], *, batch_size: int, progress: bool,
    cache: Cache | PathLike | str | None,
) -> list[torch.Tensor]:  # fmt: skip
    """Embed several sets of images, or of texts; the encoder's identity is taken once for all of them."""

    def encode(inputs: Any) -> torch.Tensor:
        if encoder == "text":
            return vlm.encode_text(vlm.tokenize(inputs))
        return vlm.encode_image(vlm.preprocess(inputs))

    def embed(part: Any) -> torch.Tensor:
        return _in_batches(encode, part, batch_size, desc=_INPUTS[encoder], progress=progress)

    cache = as_cache(cache)
    if cache is None:
        return [embed(part) for part in parts]
    digest = vlm.tokens_hash if encoder == "text" else _image_hash
    facts = {"embeddings": encoder, "model": vlm.identity(encoder)}
    return [
        cache.tensors(facts | {"input": digest(part)}, lambda part=part: {"embeddings": embed(part)})[
            "embeddings"
        ]
        for part in parts
    ]


def _image_hash(images: Any) -> str:
    return image_digest(images).hex()


@torch.inference_mode()
def _in_batches(
    encode: Callable[[Any], torch.Tensor], inputs: Any, batch_size: int, *, desc: str, progress: bool
) -> torch.Tensor:
    """Encode batch by batch; rows come back as float32 on the CPU."""
    check_batch_size(batch_size)
    starts = tqdm(range(0, len(inputs), batch_size), disable=not progress, desc=desc, leave=False)
    return torch.cat([encode(inputs[start : start + batch_size]).float().cpu() for start in starts])


def embed_tuples(
    vlm: Vlm,
    tuples: Tuples,
    *,
    batch_size: int = 128,
    progress: bool = False,
    cache: Cache | PathLike | str | None = None,
) -> dict[str, torch.Tensor]:
    """Embed the four parts of every tuple.

    Returns
    -------
    dict
        `safe_text`, `unsafe_text`, `safe_image`, `unsafe_image`: each [N, D]; made for `safeground(**...)`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> parts = uwm.embed_tuples(vlm, uwm.load_tuples("mini-visu", n=8))
    >>> list(parts)
    ['safe_text', 'unsafe_text', 'safe_image', 'unsafe_image']
    >>> parts["safe_text"].shape
    torch.Size([8, 96])
    >>> uwm.safeground(**parts).n
    8
    """
    require_vlm(vlm)
    require_tuples(tuples)
    options = {"batch_size": batch_size, "progress": progress, "cache": cache}
    return _embedded_parts(
        vlm, tuples, ("safe_texts", "unsafe_texts"), ("safe_images", "unsafe_images"), **options
    )


def embed_benign(
    vlm: Vlm,
    uses: BenignUses,
    *,
    batch_size: int = 128,
    progress: bool = False,
    cache: Cache | PathLike | str | None = None,
) -> dict[str, torch.Tensor]:
    """Embed the six parts of every benign use.

    Returns
    -------
    dict
        `harmless_text`, `unsafe_text`, `clean_text`, and the same of images: each [N, D], float32 on the CPU, unit
        norm; made for `benign_use(**...)`.

    Raises
    ------
    UwmError
        For a name in place of a model or of benign uses, or a broken image.
    """
    require_vlm(vlm)
    require_benign(uses)
    options = {"batch_size": batch_size, "progress": progress, "cache": cache}
    return _embedded_parts(vlm, uses, uses.TEXTS, uses.IMAGES, **options)


def _embedded_parts(
    vlm: Vlm, items: Paired, texts: Sequence[str], images: Sequence[str], **options: Any
) -> dict[str, torch.Tensor]:
    """Embed parts of items: "safe_texts" as "safe_text"."""
    found = _embedded(vlm, "text", [getattr(items, part) for part in texts], **options)
    found += _embedded(vlm, "vision", [getattr(items, part) for part in images], **options)
    return {part.removesuffix("s"): rows for part, rows in zip((*texts, *images), found, strict=True)}


def evaluate_zero_shot(
    vlm: Vlm, data: ZeroShotSet, *, batch_size: int = 128, cache: Cache | PathLike | str | None = None
) -> Score:
    """Measure zero-shot accuracy on one set: one prompt a class, no ensemble, as the paper does."""
    classes = embed_texts(vlm, data.prompts, batch_size=batch_size, cache=cache)
    predicted = classify(embed_images(vlm, data.images, batch_size=batch_size, cache=cache), classes)
    return accuracy(predicted, torch.from_numpy(np.asarray(data.labels)))


def evaluate(
    vlm: Vlm,
    tuples: Tuples,
    *,
    zero_shot: Iterable[ZeroShotSet] = (),
    benign: BenignUses | None = None,
    match: bool = False,
    batch_size: int = 128,
    progress: bool = False,
    cache: Cache | PathLike | str | None = None,
) -> Evaluation:
    """Measure a model, with whatever edit is applied to it at the moment.

    Parameters
    ----------
    vlm : Vlm
    tuples : Tuples
    zero_shot : iterable of ZeroShotSet
        Classification sets to measure knowledge on.
    benign : BenignUses, optional
        Harmless uses to measure over-refusal on.
    match : bool
        Measure how often the right pairing of a tuple is preferred, too (`uwmlib.metrics.Contrasts`).
    batch_size : int
    progress : bool
        Show progress bars.
    cache : Cache or the path of its folder, optional
        Where embeddings are kept. An encoder that the applied edit leaves alone is not embedded again.

    Returns
    -------
    Evaluation

    Raises
    ------
    UwmError
        For a name in place of a model, of tuples, of a zero-shot set or of benign uses, two sets of one name or one
        that is a score's, batch_size below 1, or a broken image.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="test", n=8)
    >>> found = uwm.evaluate(vlm, tuples, zero_shot=[uwm.zero_shot_set("dtd")])
    >>> print(found["ts_vs"])
    100.0 [67.6, 100.0]
    >>> found["zs_mean"] == found["dtd"]  # the mean of one set
    True
    """
    sets = as_list(zero_shot)
    _check_loaded(vlm, tuples, sets, benign)
    options = {"batch_size": batch_size, "progress": progress, "cache": cache}
    return Evaluation.from_embeddings(
        embed_tuples(vlm, tuples, **options),
        None if benign is None else embed_benign(vlm, benign, **options),
        match=match,
        model=vlm.name,
        data=tuples.name,
        split=tuples.split,
        zero_shot={
            data.name: evaluate_zero_shot(vlm, data, batch_size=batch_size, cache=cache) for data in sets
        },
    )


def evaluate_features(features: Features) -> Evaluation:
    """Measure a model from its features, as `evaluate` does from its inputs.

    With `Features.changed` this measures an edit behind the encoders without a pass of the model; it is the
    edit's own measurement up to the rounding of its weights.

    Parameters
    ----------
    features : Features
        Of `uwmlib.editing.collect_features`.

    Returns
    -------
    Evaluation
        With zero-shot accuracies and benign use where their features were collected.

    Raises
    ------
    UwmError
        If these are no features, or a row of them is zero or holds NaN or Inf.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import collect_features, fit_safe_shift
    >>> from uwmlib.evaluation import evaluate_features
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> train = uwm.load_tuples("mini-visu", split="train", n=100)
    >>> features = collect_features(vlm, train)
    >>> shift = fit_safe_shift(vlm, features)
    >>> before, after = (
    ...     evaluate_features(features.changed(shift.changes(alpha)))
    ...     for alpha in (0, 1)
    ... )
    >>> after["p_u_v"].value > before["p_u_v"].value
    True
    """
    if not isinstance(features, Features):
        raise UwmError(f"{type(features).__name__} are no features: make them with collect_features.")
    unit = {part: torch.nn.functional.normalize(rows, dim=1) for part, rows in features.tuples.items()}
    zero_shot = {
        name: accuracy(
            classify(*(torch.nn.functional.normalize(x, dim=1) for x in (images, prompts))), labels
        )
        for name, (prompts, images, labels) in features.zero_shot.items()
    }
    return Evaluation(
        model=features.model,
        data=features.data,
        safeground=safeground(**unit),
        retrieval=retrieval(**unit),
        zero_shot=zero_shot,
        split=features.split,
        benign=benign_use(**features.benign) if features.benign else None,
    )


def _check_loaded(vlm: Vlm, tuples: Tuples, sets: Sequence[ZeroShotSet], benign: BenignUses | None) -> None:
    """Refuse names in place of what they name before anything is embedded."""
    require_vlm(vlm)
    require_tuples(tuples)
    if benign is not None:
        require_benign(benign)
    wrong = next((each for each in sets if not isinstance(each, ZeroShotSet)), None)
    if wrong is not None:
        raise UwmError(f"{wrong!r} is no zero-shot set: give a list of those that zero_shot_set returns.")
    names = [data.name for data in sets]
    taken = next((name for i, name in enumerate(names) if name in names[:i] or name in CATALOGUE), None)
    if taken is not None:
        raise UwmError(
            f"Another score or set is called {taken!r} too: give the zero-shot set a name of its own."
        )
