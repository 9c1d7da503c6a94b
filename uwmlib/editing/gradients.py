"""The gradient baselines G-Unsafe and G-Safe-CLIP (Sec. 5.1, A.3): weights ranked by |gradient| of a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from uwmlib.cache import Cache, as_cache
from uwmlib.editing.choice import choose_weights
from uwmlib.editing.saliency import WEIGHTINGS, weight_in_batch
from uwmlib.editing.weight_edit import WeightEdit, parameter_hash
from uwmlib.errors import UwmError
from uwmlib.models.sites import Site, encoders_of
from uwmlib.models.trainable import gradients_of
from uwmlib.models.vlm import Vlm, require_vlm
from uwmlib.options import ENCODERS, known, per_encoder, whole_number
from uwmlib.tuples.tuples import require_tuples

if TYPE_CHECKING:
    from uwmlib.tuples import Tuples

LOSSES = ("g-unsafe", "g-safe-clip")
VARIANTS = ("released", "paper")
# Shares of weights removed: 1 minus the sparsity in the released run.sh.
DEFAULT_TAU = {"g-unsafe": 0.035, "g-safe-clip": 0.005}
CONTRASTIVE_SCALE = 100.0


def g_unsafe_loss(
    own_safe: torch.Tensor,
    own_unsafe: torch.Tensor,
    other_safe: torch.Tensor,
    other_unsafe: torch.Tensor,
    *,
    variant: str = "released",
) -> torch.Tensor:
    """Pull safe items towards unsafe ones and away from their safe partner.

    With D(a, b) = mean over tuples of 1 - cos(a, b):
    "paper", Eq. 12-15: D(own_safe, own_unsafe) - D(own_safe, other_safe);
    "released": D(own_safe, other_unsafe) - D(own_safe, other_safe), the unsafe item of the *other* modality,
    which is also what Sec. 5.1 describes.

    Parameters
    ----------
    own_safe, own_unsafe, other_safe, other_unsafe : Tensor, shape [B, D], unit length
        "own" is the modality of the encoder that is pruned.
    variant : "released" or "paper"

    Returns
    -------
    Tensor, scalar

    Examples
    --------
    The safe item is its safe partner (distance 0) and at right angles to the
    unsafe item of the other modality (distance 1):

    >>> import torch
    >>> from uwmlib.editing import g_unsafe_loss
    >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> g_unsafe_loss(x, y, other_safe=x, other_unsafe=y)
    tensor(1.)
    """
    known(variant, VARIANTS, "variant")
    target = other_unsafe if variant == "released" else own_unsafe
    return _distance(own_safe, target) - _distance(own_safe, other_safe)


def g_safe_clip_loss(
    own_safe: torch.Tensor,
    own_unsafe: torch.Tensor,
    other_safe: torch.Tensor,
    other_unsafe: torch.Tensor,
    *,
    variant: str = "released",
) -> torch.Tensor:
    """Pull safe items towards unsafe ones with Safe-CLIP's redirection losses turned round.

    L = (CE(100 S, diagonal) + CE(100 S^T, diagonal)) / 2 + mean(1 - cos(own_safe, own_unsafe)),
    S = own_safe other_unsafe^T. The paper (A.3) describes this in words and prints no equation, so both
    readings are the released loss. `other_safe` is not used; see `g_unsafe_loss` for the parameters.

    Examples
    --------
    Every safe item finds its own unsafe partner in the other modality, so the
    contrast is 0; its own modality's partner is at right angles:

    >>> import torch
    >>> from uwmlib.editing import g_safe_clip_loss
    >>> own = torch.eye(2)
    >>> g_safe_clip_loss(own, own.flip(0), other_safe=own, other_unsafe=own)
    tensor(1.)
    """
    known(variant, VARIANTS, "variant")
    logits = CONTRASTIVE_SCALE * own_safe @ other_unsafe.T  # [B, D] x [D, B] -> [B, B]
    pairs = torch.arange(len(logits), device=logits.device)
    contrast = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
    return contrast + _distance(own_safe, own_unsafe)


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 1 - (a * b).sum(dim=-1).mean()


_LOSS_OF = {"g-unsafe": g_unsafe_loss, "g-safe-clip": g_safe_clip_loss}


@dataclass(frozen=True)
class GradientScores:
    """Mean |gradient| per weight, as `gradient_scores` found it.

    Attributes
    ----------
    vlm : Vlm
    sites : tuple of Site
    gradients : dict of str to FloatTensor [out, in]
        Site name -> score.
    loss, variant : str
    n : int
        Number of tuples seen.
    base_hashes : dict of str to str
        Parameter name -> SHA-256 when the gradient was taken.
    fingerprint : str
        Of the tuples.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.gradient_scores(vlm, tuples, vision=None, progress=False)
    >>> scores.gradients["text.0.out"].shape
    torch.Size([96, 96])
    >>> edit = scores.select()  # the released share of G-Unsafe
    >>> print(f"{edit.share()['text']:.1%}")
    3.5%
    """

    vlm: Vlm
    sites: tuple[Site, ...]
    gradients: dict[str, torch.Tensor]
    loss: str
    variant: str
    n: int
    base_hashes: dict[str, str]
    fingerprint: str

    def select(
        self,
        *,
        tau: float | Mapping[str, float] | None = None,
        alpha: float | Mapping[str, float] = 0.0,
        rule: str | Mapping[str, str] | None = None,
        text: str | Sequence[str] | None = "all",
        vision: str | Sequence[str] | None = "all",
    ) -> WeightEdit:
        """Select the weights with the largest mean |gradient|, layer by layer.

        Parameters
        ----------
        tau : float in (0, 1), or mapping of encoder to float, optional
            By default the released share: 0.035 for G-Unsafe, 0.005 for G-Safe-CLIP.
        alpha : float, or mapping of encoder to float
            0 prunes, as the paper does.
        rule : "adaptive", "fixed" or "positive", or mapping of encoder to rule, optional
            By default that of the variant: "fixed", except for the vision encoder under the released
            G-Unsafe, whose class inherits the adaptive selection of UWM.
        text, vision : "all", kind, list of kinds, or None

        Raises
        ------
        UwmError
            As `Scores.select`.
        """
        released_g_unsafe = (self.loss, self.variant) == ("g-unsafe", "released")
        rule = rule or {"text": "fixed", "vision": "adaptive" if released_g_unsafe else "fixed"}
        return choose_weights(
            self.vlm,
            self.sites,
            lambda site: self.gradients[site.name],
            base_hashes=self.base_hashes,
            tau=DEFAULT_TAU[self.loss] if tau is None else tau,
            alpha=alpha,
            rule=rule,
            text=text,
            vision=vision,
            description={
                "method": self.loss,
                "variant": self.variant,
                "tuples": self.fingerprint,
                "n": self.n,
            },
        )


def gradient_scores(
    vlm: Vlm,
    tuples: Tuples,
    *,
    loss: str = "g-unsafe",
    variant: str = "released",
    text: str | Sequence[str] | None = "out",
    vision: str | Sequence[str] | None = "fc2",
    batch_size: int | Mapping[str, int] = 64,
    weigh: str = "tuples",
    progress: bool = True,
    cache: Cache | PathLike | str | None = None,
) -> GradientScores:
    """Rank weights by the mean over batches of |gradient of the loss|, one encoder at a time.

    Only the safe item of the encoder at hand carries a gradient. All other embeddings are constants of the
    unedited model, in the paper ("Base" copies) and in the release alike; every batch starts from gradient 0.

    Parameters
    ----------
    vlm : Vlm
        Left as it is, `.grad` and `requires_grad` included.
    tuples : Tuples
    loss : "g-unsafe" or "g-safe-clip"
        `g_unsafe_loss` (Eq. 12-15) or `g_safe_clip_loss`.
    variant : "released" or "paper"
        Which target G-Unsafe pulls towards, and which rule `GradientScores.select` takes by default.
    text, vision : kind, list of kinds, or None
    batch_size : int, or mapping of encoder to int
        It matters here: the absolute value is taken per batch, and the contrastive loss compares inside a
        batch. Released: 512 for text, 64 for vision.
    weigh : "tuples" or "batches"
        Whether a batch counts by its number of tuples, or as much as every other, as in the released code.
    progress : bool
        Show a progress bar on stderr.
    cache : Cache or the path of its folder, optional
        Where the gradients of the same pass are looked for and kept.

    Returns
    -------
    GradientScores

    Raises
    ------
    UwmError
        For batch_size below 1, unknown names, or a gradient that is NaN, infinite or zero
        throughout.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.gradient_scores(
    ...     vlm, tuples, loss="g-safe-clip", text=None, progress=False
    ... )
    >>> [site.name for site in scores.sites]
    ['vision.0.fc2', 'vision.1.fc2', 'vision.2.fc2', 'vision.3.fc2']
    >>> print(f"{scores.select().share()['vision']:.1%}")
    0.5%
    """
    require_vlm(vlm)
    require_tuples(tuples)
    known(loss, LOSSES, "loss")
    known(variant, VARIANTS, "variant")
    known(weigh, WEIGHTINGS, "weighting")
    given = per_encoder(batch_size, "batch_size")
    sizes = {encoder: whole_number(size, "batch_size") for encoder, size in given.items()}
    sites = tuple(vlm.sites(text=text, vision=vision))
    base_hashes = {site.parameter: parameter_hash(vlm, site.parameter) for site in sites}

    def make() -> dict[str, torch.Tensor]:
        how = {"loss": loss, "variant": variant, "sizes": sizes, "weigh": weigh}
        return _sums(vlm, tuples, sites, **how, progress=progress)

    cache = as_cache(cache)
    if cache is None:
        sums = make()
    else:
        facts = {
            "gradients": loss, "variant": variant, "sizes": sizes, "sites": [asdict(site) for site in sites],
            "models": [vlm.identity(encoder) for encoder in ENCODERS], "tuples": tuples.fingerprint,
            "tokens": vlm.tokens_hash([*tuples.safe_texts, *tuples.unsafe_texts]),
        }  # fmt: skip
        facts |= {} if weigh == "tuples" else {"weigh": weigh}
        sums = {name: part.to(vlm.device) for name, part in cache.tensors(facts, make).items()}
    return GradientScores(vlm, sites, sums, loss, variant, len(tuples), base_hashes, tuples.fingerprint)


def _sums(
    vlm: Vlm, tuples: Tuples, sites: Sequence[Site], *, loss: str, variant: str, sizes: Mapping[str, int],
    weigh: str, progress: bool,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Return the mean |gradient| of every site, by its name."""
    sums = {site.name: torch.zeros_like(vlm.weight(site).detach(), dtype=torch.float32) for site in sites}
    encoders = encoders_of(sites)
    with tqdm(total=len(tuples) * len(encoders), desc=loss, unit="tuple", disable=not progress) as bar:
        for encoder in encoders:
            of_encoder = [site for site in sites if site.encoder == encoder]
            for start in range(0, len(tuples), sizes[encoder]):
                batch = tuples[start : start + sizes[encoder]]
                each = weight_in_batch(len(batch), len(tuples), sizes[encoder], weigh=weigh)
                for site, gradient in _gradients(vlm, batch, of_encoder, _LOSS_OF[loss], variant):
                    sums[site.name] += gradient.abs().float() * (each * len(batch) / len(tuples))
                bar.update(len(batch))
    _check_gradients(sums)
    return sums


def _gradients(
    vlm: Vlm, batch: Tuples, sites: Sequence[Site], loss: Callable[..., torch.Tensor], variant: str
) -> Iterator[tuple[Site, torch.Tensor]]:
    """Yield (site, gradient [out, in]) of the loss of one encoder on one batch."""
    embed = {
        "text": lambda kind: vlm.encode_text(vlm.tokenize(getattr(batch, f"{kind}_texts"))),
        "vision": lambda kind: vlm.encode_image(vlm.preprocess(getattr(batch, f"{kind}_images")[:])),
    }
    own = embed[sites[0].encoder]
    other = embed["vision" if sites[0].encoder == "text" else "text"]
    with torch.no_grad():
        own_unsafe, other_safe, other_unsafe = own("unsafe"), other("safe"), other("unsafe")
    gradients = gradients_of(
        vlm.model,
        dict.fromkeys(site.parameter for site in sites),
        lambda: loss(own("safe"), own_unsafe, other_safe, other_unsafe, variant=variant),
    )
    for site in sites:
        gradient = gradients[site.parameter]
        yield site, gradient if site.rows is None else gradient[slice(*site.rows)]


def _check_gradients(gradients: Mapping[str, torch.Tensor]) -> None:
    for name, gradient in gradients.items():
        if not torch.isfinite(gradient).all():
            raise UwmError(f"The gradient of {name} is NaN or infinite: check the inputs, or use float32.")
        if not gradient.any():
            raise UwmError(f"No gradient reaches {name}, so its weights have no order: leave that site out.")
