"""Embeddings before they are made unit vectors, kept: what an edit behind the encoders does to them needs no pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from uwmlib.cache import Cache, as_cache
from uwmlib.errors import UwmError
from uwmlib.models.pixels import image_digest
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, check_batch_size, known, shown
from uwmlib.tuples.benign import BenignUses, require_benign
from uwmlib.tuples.paired import Paired
from uwmlib.tuples.tuples import Tuples, require_tuples
from uwmlib.zero_shot.sets import ZeroShotSet

Rows = torch.Tensor
Change = Callable[[Rows], Rows]


@dataclass(frozen=True, eq=False)
class Features:
    """Everything that an evaluation embeds, as it is before normalisation: each [N, D], float32 on the CPU.

    Attributes
    ----------
    model, data, split : str
        Names of the model and of the tuples, and the tuples' split.
    tuples : dict of str to Tensor
        "safe_text", "unsafe_text", "safe_image", "unsafe_image".
    benign : dict of str to Tensor
        "harmless_text", "unsafe_text", "clean_text" and the same of images; empty where none were given.
    zero_shot : dict of str to (Tensor, Tensor, Tensor)
        By set: its prompts [C, D], its images [N, D] and their labels [N].

    Examples
    --------
    What becomes of the features of texts if something is added to each:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import collect_features
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> features = collect_features(vlm, uwm.load_tuples("mini-visu", n=8))
    >>> changed = features.changed({"text": lambda rows: rows + 1})
    >>> difference = changed.tuples["safe_text"] - features.tuples["safe_text"]
    >>> round(difference.mean().item(), 5)
    1.0
    >>> changed.tuples["safe_image"] is features.tuples["safe_image"]
    True
    """

    model: str
    data: str
    split: str
    tuples: dict[str, Rows]
    benign: dict[str, Rows] = field(default_factory=dict)
    zero_shot: dict[str, tuple[Rows, Rows, torch.Tensor]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of tuples."""
        return len(self.tuples["safe_text"])

    def __repr__(self) -> str:
        return f"Features({self.n} tuples of {self.data!r} as {self.model!r} embeds them)"

    def changed(self, changes: Mapping[str, Change]) -> Features:
        """Return the features with those of an encoder replaced by what a function of them returns."""
        text, vision = (changes.get(known(encoder, ENCODERS, "encoder"), _unchanged) for encoder in ENCODERS)

        def of_parts(parts: dict[str, Rows]) -> dict[str, Rows]:
            return {part: (text if part.endswith("text") else vision)(rows) for part, rows in parts.items()}

        sets = {
            name: (text(prompts), vision(images), labels)
            for name, (prompts, images, labels) in self.zero_shot.items()
        }
        return replace(self, tuples=of_parts(self.tuples), benign=of_parts(self.benign), zero_shot=sets)

    def chosen(self, index: Sequence[int] | torch.Tensor) -> Features:
        """Return the features of some of the tuples, with all benign uses and sets."""
        at = torch.as_tensor(index)
        return replace(self, tuples={part: rows[at] for part, rows in self.tuples.items()})


def _unchanged(rows: Rows) -> Rows:
    return rows


def collect_features(
    vlm: Vlm,
    tuples: Tuples,
    *,
    zero_shot: Iterable[ZeroShotSet] = (),
    benign: BenignUses | None = None,
    batch_size: int = 128,
    progress: bool = False,
    cache: Cache | PathLike | str | None = None,
) -> Features:
    """Run a model once over everything that it is to be measured on, or fitted on.

    `uwmlib.evaluation.evaluate_features` measures from the result, however often, what edits of the last bias and of
    the projection do (`shift_edit`, `SafeShift`).

    Parameters
    ----------
    vlm : Vlm
        With whatever edit is applied to it at the moment.
    tuples : Tuples
    zero_shot : iterable of ZeroShotSet
    benign : BenignUses, optional
    batch_size : int
    progress : bool
    cache : Cache or the path of its folder, optional
        Where features are looked for and kept.

    Returns
    -------
    Features

    Raises
    ------
    UwmError
        For a name in place of a model, of tuples, of a set or of benign uses, batch_size below 1, or a broken image.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import collect_features
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> features = collect_features(vlm, uwm.load_tuples("mini-visu", n=8))
    >>> features.n, features.tuples["safe_text"].shape
    (8, torch.Size([8, 96]))
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    sets = list(zero_shot)
    if wrong := [each for each in sets if not isinstance(each, ZeroShotSet)]:
        raise UwmError(
            f"{shown(wrong[0])} is no zero-shot set: give a list of those that zero_shot_set returns."
        )
    embed = _Embedding(vlm, batch_size, progress, as_cache(cache))
    if benign is not None:
        require_benign(benign)
    return Features(
        vlm.name,
        tuples.name,
        tuples.split,
        embed.parts(tuples, ("safe_texts", "unsafe_texts"), ("safe_images", "unsafe_images")),
        {} if benign is None else embed.parts(benign, benign.TEXTS, benign.IMAGES),
        {
            data.name: (
                embed.texts(data.prompts),
                embed.images(data.images),
                torch.from_numpy(np.asarray(data.labels)),
            )
            for data in sets
        },
    )


class _Embedding:
    """A model's features of texts and of images, batch by batch, each part from the cache where it is there."""

    def __init__(self, vlm: Vlm, batch_size: int, progress: bool, cache: Cache | None) -> None:
        self.vlm, self.batch_size, self.progress, self.cache = vlm, batch_size, progress, cache
        self.identities: dict[str, Any] = {}  # taken once: it hashes all weights

    def parts(self, items: Paired, texts: Sequence[str], images: Sequence[str]) -> dict[str, Rows]:
        found = {part: self.texts(getattr(items, part)) for part in texts}
        found |= {part: self.images(getattr(items, part)) for part in images}
        return {part.removesuffix("s"): rows for part, rows in found.items()}

    def texts(self, texts: Sequence[str]) -> Rows:
        return self._kept(
            "text",
            lambda: self.vlm.tokens_hash(texts),
            lambda part: self.vlm.text_features(self.vlm.tokenize(part)),
            texts,
        )

    def images(self, images: Any) -> Rows:
        return self._kept(
            "vision",
            lambda: image_digest(images).hex(),
            lambda part: self.vlm.image_features(self.vlm.preprocess(part)),
            images,
        )

    def _kept(
        self, encoder: str, digest: Callable[[], str], encode: Callable[[Any], Rows], items: Any
    ) -> Rows:
        if self.cache is None:
            return self._run(encoder, encode, items)
        if encoder not in self.identities:
            self.identities[encoder] = self.vlm.identity(encoder)
        facts = {"features": encoder, "model": self.identities[encoder], "input": digest()}
        return self.cache.tensors(facts, lambda: {"features": self._run(encoder, encode, items)})["features"]

    @torch.inference_mode()
    def _run(self, encoder: str, encode: Callable[[Any], Rows], items: Any) -> Rows:
        starts = range(0, len(items), self.batch_size)
        bar = tqdm(starts, disable=not self.progress, desc=encoder, leave=False)
        rows = [encode(items[start : start + self.batch_size]).float().cpu() for start in bar]
        return torch.cat(rows).clone()
