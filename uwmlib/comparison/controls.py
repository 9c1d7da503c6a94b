"""A method beside the edits that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from uwmlib.editing import Scores, WeightEdit, select_magnitude, select_random, select_reversed
from uwmlib.options import ENCODERS, whole_number

EditAt = Callable[[float], WeightEdit | Sequence[WeightEdit]]


def with_controls(
    scores: Scores,
    *,
    alpha: float | Mapping[str, float] = -1.0,
    variant: str = "released",
    seeds: int = 3,
) -> dict[str, EditAt]:
    """Return UWM and its three controls on the same layers, each a function of tau.

    All take what they need from one calibration pass. "UWM" and "reversed" (`select_reversed`) select by the share tau
    of a layer's score, "magnitude" (`select_magnitude`) of its |W|, "random" (`select_random`) of its weights. So one
    tau is not one size of edit: compare at equal knowledge (`at_knowledge`).

    Parameters
    ----------
    scores : Scores
    alpha
        Factor of the selected weights, see `Scores.select`.
    variant : "released" or "paper"
        Which ratio UWM takes and the reversed score turns round.
    seeds : int
        How many random edits there are at each tau, of the seeds 0, 1, ...

    Returns
    -------
    dict of str to callable (float) -> WeightEdit, or a list of them
        "UWM", "random", "reversed" and "magnitude", for `evaluate_strengths` and `at_knowledge`.

    Raises
    ------
    UwmError
        If `seeds` is no whole number of at least 1; the callables as `Scores.select`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.comparison import with_controls
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=8)
    >>> scores = uwm.score(vlm, tuples, progress=False)
    >>> methods = with_controls(scores, seeds=2)
    >>> list(methods)
    ['UWM', 'random', 'reversed', 'magnitude']
    >>> [edit.description["seed"] for edit in methods["random"](0.1)]
    [0, 1]
    """
    vlm, drawn = scores.vlm, range(whole_number(seeds, "seeds"))
    kinds = {
        encoder: list(dict.fromkeys(site.kind for site in scores.sites if site.encoder == encoder))
        for encoder in ENCODERS
    }
    return {
        "UWM": lambda tau: scores.select(tau=tau, alpha=alpha, variant=variant),
        "random": lambda tau: [
            select_random(vlm, tau=tau, alpha=alpha, seed=seed, **kinds) for seed in drawn
        ],
        "reversed": lambda tau: select_reversed(scores, tau=tau, alpha=alpha, variant=variant),
        "magnitude": lambda tau: select_magnitude(vlm, tau=tau, alpha=alpha, **kinds),
    }
