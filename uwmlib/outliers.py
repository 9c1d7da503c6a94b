"""Outlier features and massive activations of a model: the residual stream and what enters its matrices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import pandas as pd
import torch
from tqdm.auto import tqdm

from uwmlib.metrics import ActivationSums, weight_concentration
from uwmlib.models.capture import capture_blocks
from uwmlib.models.sites import Site, encoders_of
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import check_batch_size
from uwmlib.tuples.tuples import Tuples, require_tuples

__all__ = ["outlier_records"]

STREAM = "stream"


def outlier_records(
    vlm: Vlm,
    tuples: Tuples,
    *,
    text: str | Sequence[str] | None = "out",
    vision: str | Sequence[str] | None = "fc2",
    batch_size: int = 64,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure how concentrated activations and weights are, in one pass over safe and unsafe inputs.

    Padding does not count (`Vlm.token_mask`). In CLIP and CoCa an image's first token is the class token; SigLIP has
    none, and its first token is a patch. A text's last token is the end-of-text token in CLIP, the class token in CoCa
    with `correct_cls_mask`, and else the last one that the mask marks.

    Parameters
    ----------
    vlm : Vlm
        Not changed.
    tuples : Tuples
        Both texts, or both images, of every tuple run through the encoder.
    text, vision : kind, list of kinds, or None
        Sites whose inputs and weights are measured, as for `Vlm.sites`. With None the encoder is left out, its residual
        stream too.
    batch_size : int
        Tuples in a forward pass.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    DataFrame
        One row for the residual stream behind each block ("vision.2.stream") and for each site ("vision.2.fc2"), with
        "encoder", "layer", "kind", the columns of `metrics.ActivationSums.concentration`, and for sites those of
        `metrics.weight_concentration` as "weight_kurtosis" and so on.

    Raises
    ------
    UwmError
        For batch_size below 1, no or unknown kinds, an encoder without plain blocks, or NaN or infinite activations.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.outliers import outlier_records
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", n=4)
    >>> found = outlier_records(vlm, tuples, text=None, progress=False)
    >>> list(found.index[3:5])
    ['vision.3.stream', 'vision.0.fc2']
    >>> bool(found.at["vision.3.stream", "massive"] == 0)
    True
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    sites = vlm.sites(text=text, vision=vision)
    encoders = encoders_of(sites)
    sums: dict[tuple[str, int, str], ActivationSums] = {}
    with torch.inference_mode(), tqdm(total=len(tuples), desc="outliers", disable=not progress) as bar:
        for start in range(0, len(tuples), batch_size):
            batch = tuples[start : start + batch_size]
            for encoder in encoders:
                _add_batch(vlm, batch, encoder, [site for site in sites if site.encoder == encoder], sums)
            bar.update(len(batch))
    weights = {(site.encoder, site.layer, site.kind): vlm.weight(site).detach() for site in sites}
    rows = [
        {"place": ".".join(map(str, place)), "encoder": place[0], "layer": place[1], "kind": place[2]}
        | sums[place].concentration()
        | _of_weight(weights.get(place))
        for place in sorted(sums, key=lambda place: _order(place, encoders, sites))
    ]
    return pd.DataFrame(rows).set_index("place")


def _add_batch(
    vlm: Vlm, batch: Tuples, encoder: str, sites: list[Site], sums: dict[tuple[str, int, str], ActivationSums]
) -> None:
    """Run both halves of a batch through one encoder, and add what is seen."""
    mask = None

    def add(place: tuple[str, int, str], x: torch.Tensor) -> None:
        sums.setdefault(place, ActivationSums.zeros(x.shape[-1])).add(x, mask)

    with ExitStack() as stack:
        stack.enter_context(vlm.capture(sites, lambda site, z: add((encoder, site.layer, site.kind), z)))
        stream = capture_blocks(vlm.model, encoder, lambda layer, x: add((encoder, layer, STREAM), x))
        stack.enter_context(stream)
        if encoder == "text":
            tokens = vlm.tokenize([*batch.safe_texts, *batch.unsafe_texts])
            mask = vlm.token_mask(tokens)
            vlm.encode_text(tokens)
        else:
            # [:] opens images that stand in files.
            for images in (batch.safe_images, batch.unsafe_images):
                vlm.encode_image(vlm.preprocess(images[:]))


def _of_weight(weight: torch.Tensor | None) -> dict[str, float]:
    if weight is None:
        return {}
    return {f"weight_{name}": value for name, value in weight_concentration(weight).items()}


def _order(place: tuple[str, int, str], encoders: list[str], sites: list[Site]) -> tuple[int, int, int]:
    """Text before vision, the stream before the sites, kinds as they were asked for, layer by layer."""
    encoder, layer, kind = place
    kinds = [STREAM, *dict.fromkeys(site.kind for site in sites)]
    return encoders.index(encoder), kinds.index(kind), layer
