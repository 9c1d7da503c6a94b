"""A re-ranker: a term for every gallery item that no query changes, as further coordinates of embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from uwmlib.errors import UwmError
from uwmlib.metrics.tensors import as_tensor
from uwmlib.options import finite_number


def rerank(parts: Mapping[str, Tensor], priors: Mapping[str, Tensor], *, weight: float) -> dict[str, Tensor]:
    """Give every embedding a prior, which all queries of the other modality add to its similarity.

    With unit embeddings t and v and priors p(t), p(v) in [-1, 1], the cosine becomes
    (t . v + weight (p(t) + p(v))) / (1 + 2 weight). To a text query p(t) is the same for the whole gallery, so images
    are ranked by t . v + weight p(v): two whose priors are equal keep their order, exactly. The form is
    t' = [t, s, 0, s p(t), s r(t)] and v' = [v, s p(v), s r(v), s, 0], s^2 = weight, with r(x) = sqrt(1 - p(x)^2) so
    that all lengths are equal.

    Parameters
    ----------
    parts : mapping of str to Tensor, shape [N, D]
        Embeddings under names that end in "text" or "image", as `embed_tuples` and `embed_benign` give them.
    priors : mapping of str to Tensor, shape [N]
        Of the same names; 1 for what is safe, -1 for what is unsafe.
    weight : float
        At least 0. A prior of 1 or -1 that is never wrong decides every comparison from 1 on.

    Returns
    -------
    dict of str to Tensor, shape [N, D + 4], float64

    Raises
    ------
    UwmError
        If a part has no prior, one outside [-1, 1], or another number of them; for another name, or a negative weight.

    Examples
    --------
    The unsafe image is the better match, and the prior is against it:

    >>> import torch
    >>> from uwmlib.editing import rerank
    >>> parts = {
    ...     "query_text": torch.tensor([[0.0, 1.0]]),
    ...     "safe_image": torch.tensor([[1.0, 0.0]]),
    ...     "unsafe_image": torch.tensor([[0.0, 1.0]]),
    ... }
    >>> priors = {"query_text": torch.zeros(1), "safe_image": torch.ones(1)}
    >>> priors["unsafe_image"] = -torch.ones(1)
    >>> text, safe, unsafe = rerank(parts, priors, weight=1.0).values()
    >>> (text @ safe.T > text @ unsafe.T).item()
    True
    """
    scale = finite_number(weight, "weight", least=0.0) ** 0.5
    return {name: _with_prior(name, rows, priors.get(name), scale) for name, rows in parts.items()}


def _with_prior(name: str, rows: Tensor, prior: Tensor | None, scale: float) -> Tensor:
    rows = as_tensor(name, rows).double()
    if prior is None:
        raise UwmError(f"{name} has no prior: give one number for each of its rows.")
    prior = as_tensor(f"The prior of {name}", prior).double().to(rows.device)
    if prior.shape != rows.shape[:1] or not bool((prior.abs() <= 1).all()):
        raise UwmError(f"The prior of {name} must be {len(rows)} numbers from -1 to 1, one for each row.")
    rest = (1 - prior.square()).sqrt()
    one, zero = torch.ones_like(prior), torch.zeros_like(prior)
    if name.endswith("text"):
        further = [one, zero, prior, rest]
    elif name.endswith("image"):
        further = [prior, rest, one, zero]
    else:
        raise UwmError(f"{name} is neither texts nor images: end the name in 'text' or 'image'.")
    return torch.cat([F.normalize(rows, dim=1), scale * torch.stack(further, dim=1)], dim=1)
