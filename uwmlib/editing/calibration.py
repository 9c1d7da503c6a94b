"""One streaming pass over calibration tuples that scores any set of sites of both encoders at once."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from uwmlib.cache import Cache, as_cache, code_hash
from uwmlib.editing.saliency import EPSILON, WEIGHTINGS, PairSums, token_statistics, weight_in_batch
from uwmlib.editing.scores import Scores, model_facts, read_scores
from uwmlib.editing.weight_edit import parameter_hash
from uwmlib.errors import UwmError
from uwmlib.files import require_writable
from uwmlib.models.sites import Site, encoders_of
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import check_batch_size, finite_number, known, per_encoder
from uwmlib.tuples.tuples import Tuples, require_tuples


def score(
    vlm: Vlm,
    tuples: Tuples,
    *,
    text: str | Sequence[str] | None = "out",
    vision: str | Sequence[str] | None = "fc2",
    batch_size: int = 64,
    epsilon: float | Mapping[str, float] = EPSILON,
    weigh: str = "tuples",
    save_to: str | os.PathLike | None = None,
    save_every: float = 30.0,
    progress: bool = True,
    cache: Cache | str | os.PathLike | None = None,
) -> Scores:
    """Score weights by what unsafe and safe inputs send through them (Eq. 8-10).

    Each batch embeds its safe and its unsafe half in one forward pass; the scores are sums of outer products
    made on the way (`saliency.PairSums`), so the pass costs little more than the forward passes themselves.

    Parameters
    ----------
    vlm : Vlm
        Not changed. Statistics are float32 also where the model is half precision.
    tuples : Tuples
        The calibration set D. The paper draws 400 per concept; the released code takes 8192 at random.
    text, vision : kind, list of kinds, or None
        Sites to score, out of "fc1", "fc2", "value", "out". The paper edits text "out" and vision "fc2".
    batch_size : int
        Tuples per forward pass.
    epsilon : float, or mapping of encoder to float
        Added to every standard deviation. The released code has {"text": 0, "vision": 1e-8}, the paper none.
    weigh : "tuples" or "batches"
        Whether every tuple counts the same, whatever the batch, or every batch, as in the released code: a short last
        batch then counts as much as a full one.
    save_to : path, optional
        Where to keep the sums. An unfinished pass over the same model, tuples, sites and scoring code goes
        on from there; a finished one is loaded without any forward pass.
    save_every : float
        Seconds between writes. They are put off further where writing would take over 5% of the time.
    progress : bool
        Show a progress bar on stderr.
    cache : Cache or the path of its folder, optional
        Where the sums of every kind of site are looked for and kept: one pass over what is missing serves every
        later call. An unfinished pass is kept there too, and goes on.

    Returns
    -------
    Scores

    Raises
    ------
    UwmError
        For batch_size below 1, an epsilon below 0, no or unknown kinds, NaN or infinite activations, a caption with
        fewer than two tokens (no standard deviation), or a `save_to` that belongs to another pass.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.score(vlm, tuples, text="out", vision="fc2", progress=False)
    >>> scores
    Scores('mini-ViT-L-14', 8 sites, n=8 of 8)
    >>> [site.name for site in scores.sites if site.encoder == "text"]
    ['text.0.out', 'text.1.out', 'text.2.out', 'text.3.out']
    >>> scores.score_of("text.0.out").shape
    torch.Size([96, 96])
    """
    require_vlm(vlm)
    require_tuples(tuples)
    check_batch_size(batch_size)
    reading = _reading(epsilon, weigh)
    sites = tuple(vlm.sites(text=text, vision=vision))
    cache = as_cache(cache)
    options = {"batch_size": batch_size, "save_every": save_every, "progress": progress, "reading": reading}
    if cache is not None and save_to is None:
        return _score_through(cache, vlm, tuples, sites, **options)
    facts = {encoder: vlm.facts(encoder) for encoder in encoders_of(sites)}
    start = _start(vlm, sites, _provenance(facts, tuples) | reading.facts(batch_size), save_to)
    return _finish(start, tuples, save_to=save_to, **options)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a pass reads Eq. 9: what is added to standard deviations, and how much a pair counts."""

    epsilon: Mapping[str, float]
    weigh: str

    def facts(self, batch_size: int) -> dict[str, Any]:
        """Return what the sums depend on besides the usual reading, which needs no mention."""
        facts: dict[str, Any] = {}
        if any(value != EPSILON for value in self.epsilon.values()):
            facts["epsilon"] = dict(self.epsilon)
        if self.weigh != "tuples":
            facts["weigh"] = f"{self.weigh} of {batch_size}"
        return facts


def _reading(epsilon: float | Mapping[str, float], weigh: str) -> Reading:
    """Return the checked reading, with an epsilon for each encoder."""
    known(weigh, WEIGHTINGS, "weighting")
    each = per_encoder(epsilon, "epsilon")
    return Reading({name: finite_number(value, "epsilon", least=0.0) for name, value in each.items()}, weigh)


def _finish(
    scores: Scores, tuples: Tuples, *, batch_size: int, save_to: str | os.PathLike | None, save_every: float,
    progress: bool, reading: Reading,
) -> Scores:  # fmt: skip
    """Go on with a pass until it has seen every tuple."""
    if save_to is not None and not scores.complete:
        require_writable(save_to)
    vlm, sites = scores.vlm, scores.sites
    magnitudes = {} if scores.complete else {site: vlm.weight(site).detach().abs().float() for site in sites}
    due = time.monotonic() + save_every
    with tqdm(total=len(tuples), initial=scores.n, desc="score", unit="tuple", disable=not progress) as bar:
        while not scores.complete:
            batch = tuples[scores.n : scores.n + batch_size]
            weight = weight_in_batch(len(batch), len(tuples), batch_size, weigh=reading.weigh)
            _add_batch(vlm, batch, scores, magnitudes, epsilon=reading.epsilon, weight=weight)
            scores = dataclasses.replace(scores, n=scores.n + len(batch))
            bar.update(len(batch))
            if save_to is not None and (scores.complete or time.monotonic() >= due):
                started = time.monotonic()
                scores.save(save_to)
                due = time.monotonic() + max(save_every, 20 * (time.monotonic() - started))
    return scores


def _score_through(
    cache: Cache, vlm: Vlm, tuples: Tuples, sites: tuple[Site, ...], *, reading: Reading, **options: Any
) -> Scores:
    """Take the sums of each kind of site from the cache, and make one pass over all that it lacks."""
    identities = {encoder: vlm.identity(encoder) for encoder in encoders_of(sites)}
    read = reading.facts(options["batch_size"])
    provenance = _provenance(identities, tuples) | read
    groups: dict[tuple[str, str], list[Site]] = {}
    for site in sites:
        groups.setdefault((site.encoder, site.kind), []).append(site)
    inputs = {encoder: _input_of(vlm, encoder, tuples) for encoder in identities}
    facts = {
        (encoder, kind): {
            "scores": [dataclasses.asdict(site) for site in of_kind],
            "model": identities[encoder],
        }
        | inputs[encoder]
        | read
        for (encoder, kind), of_kind in groups.items()
    }
    kept = {group: cache.find(facts[group]) for group in groups}
    missing = [group for group in groups if kept[group] is None]
    if missing:
        unfinished = cache.path({"unfinished": [facts[group] for group in missing]})
        rest = tuple(site for group in missing for site in groups[group])
        start = _go_on(vlm, rest, provenance | {"key": unfinished.name}, unfinished)
        sums = _finish(start, tuples, save_to=unfinished, reading=reading, **options).sums
        for group in missing:
            kept[group] = _as_tensors({site.name: sums[site.name] for site in groups[group]})
            cache.keep(facts[group], kept[group])
        unfinished.unlink(missing_ok=True)
    sums = {name: part for tensors in kept.values() for name, part in _as_sums(tensors, vlm.device).items()}
    base_hashes = {site.parameter: parameter_hash(vlm, site.parameter) for site in sites}
    return Scores(vlm, sites, sums, len(tuples), base_hashes, provenance)


def _input_of(vlm: Vlm, encoder: str, tuples: Tuples) -> dict[str, str]:
    """Say what an encoder reads; texts as the ids that this tokenizer makes of them."""
    facts = {"tuples": tuples.fingerprint}
    if encoder == "text":
        facts["tokens"] = vlm.tokens_hash([*tuples.safe_texts, *tuples.unsafe_texts])
    return facts


def _go_on(vlm: Vlm, sites: tuple[Site, ...], provenance: dict[str, Any], unfinished: Path) -> Scores:
    """Return the unfinished pass that a cache holds, or an empty one if it is damaged or another's."""
    try:
        return _start(vlm, sites, provenance, unfinished)
    except UwmError:
        return _start(vlm, sites, provenance, None)


def _as_tensors(sums: Mapping[str, PairSums]) -> dict[str, torch.Tensor]:
    return {f"{name}|{part}": tensor for name, each in sums.items() for part, tensor in vars(each).items()}


def _as_sums(tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, PairSums]:
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, part = key.split("|")
        parts.setdefault(name, {})[part] = tensor.to(device)
    return {name: PairSums(**each) for name, each in parts.items()}


def _provenance(facts: Mapping[str, Mapping[str, str]], tuples: Tuples) -> dict[str, Any]:
    """Everything that the sums depend on apart from the sites; rounding alone depends on batch and machine."""
    return model_facts(facts) | {
        "tuples": tuples.fingerprint,
        "n_tuples": len(tuples),
        "code": code_hash("models", "tuples", "editing/saliency.py", "editing/calibration.py"),
    }


def _start(
    vlm: Vlm, sites: tuple[Site, ...], provenance: dict[str, Any], save_to: str | os.PathLike | None
) -> Scores:
    """Return the pass kept in `save_to`, or an empty one."""
    if save_to is None or not Path(save_to).exists():
        sums = {site.name: PairSums.zeros(tuple(vlm.weight(site).shape), vlm.device) for site in sites}
        base_hashes = {site.parameter: parameter_hash(vlm, site.parameter) for site in sites}
        return Scores(vlm, sites, sums, 0, base_hashes, provenance)
    kept = read_scores(save_to, vlm)
    theirs, ours = kept.provenance | {"sites": kept.sites}, provenance | {"sites": sites}
    differing = [what for what in ours if ours[what] != theirs.get(what)]
    if differing:
        raise UwmError(
            f"{save_to} holds scores of another pass (its {' and '.join(differing)} differ): "
            f"give another path, or delete that file."
        )
    return kept


def _add_batch(
    vlm: Vlm, batch: Tuples, scores: Scores, magnitudes: dict[Site, torch.Tensor], *,
    epsilon: Mapping[str, float], weight: float,
) -> None:  # fmt: skip
    """Embed [B safe; B unsafe] of every encoder that has sites, and add the B pairs to the sums."""
    where = f"tuples {scores.n} to {scores.n + len(batch) - 1}"
    watching = {"magnitudes": magnitudes, "where": where, "epsilon": epsilon, "weight": weight}
    text_sites = [site for site in scores.sites if site.encoder == "text"]
    vision_sites = [site for site in scores.sites if site.encoder == "vision"]
    with torch.inference_mode():
        if text_sites:
            tokens = vlm.tokenize([*batch.safe_texts, *batch.unsafe_texts])
            mask = vlm.token_mask(tokens)
            _check_captions(mask, scores.n)
            with vlm.capture(text_sites, _observer(scores, mask.to(vlm.device), **watching)):
                vlm.encode_text(tokens)
        if vision_sites:
            # [:] opens images that stand in files.
            pixels = torch.cat([vlm.preprocess(batch.safe_images[:]), vlm.preprocess(batch.unsafe_images[:])])
            with vlm.capture(vision_sites, _observer(scores, None, **watching)):
                vlm.encode_image(pixels)


def _observer(
    scores: Scores, mask: torch.Tensor | None, *, magnitudes: dict[Site, torch.Tensor], where: str,
    epsilon: Mapping[str, float], weight: float,
) -> Callable[[Site, torch.Tensor], None]:  # fmt: skip
    def observe(site: Site, z: torch.Tensor) -> None:
        norm, std = token_statistics(
            z.float(), mask, epsilon=epsilon[site.encoder]
        )  # [2B, T, in] -> two of [2B, in]
        if not torch.isfinite(norm.amax()):  # not below 0, so this asks for every one of them
            raise UwmError(f"{site.name} has NaN or infinite inputs in {where}: check those, or use float32.")
        scores.sums[site.name].add(norm, std, magnitudes[site], weight=weight)

    return observe


def _check_captions(mask: torch.Tensor, first: int) -> None:
    """Raise for a caption without a standard deviation; `mask` is [2B, T], the safe half first."""
    short = (mask.sum(dim=1) < 2).nonzero().flatten().tolist()
    if short:
        half = len(mask) // 2
        side = "safe" if short[0] < half else "unsafe"
        raise UwmError(
            f"The {side} caption of tuple {first + short[0] % half} has fewer than two tokens, so no "
            f"standard deviation: leave that tuple out."
        )
