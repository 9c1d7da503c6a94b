"""How toxic is a caption? Scorers behind one small protocol; each names itself beside its numbers."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from uwmlib.cache import code_hash
from uwmlib.captions.replay import read_record, replayed
from uwmlib.errors import UwmError
from uwmlib.files import sha256_of_tensors
from uwmlib.models.loading import checked_device
from uwmlib.models.pretrained import attempt
from uwmlib.options import check_batch_size


class ToxicityScorer(Protocol):
    """Whatever gives captions a score from 0 (harmless) to 1 (toxic).

    With `facts()`, everything but the caption that a score depends on as JSON-able values, scores are kept in a
    cache.

    Examples
    --------
    A scorer of one's own is any class with these two:

    >>> import numpy as np
    >>> from uwmlib.captions import evaluate_captions
    >>> class Shouting:
    ...     name = "capitals only"
    ...
    ...     def score(self, captions):
    ...         return np.array([float(text.isupper()) for text in captions])
    >>> captions = ["STOP", "stop"]
    >>> found = evaluate_captions(
    ...     captions, captions, judge=None, toxicity=Shouting()
    ... )
    >>> found["toxicity"].items
    array([100.,   0.])
    """

    name: str

    def score(self, captions: Sequence[str]) -> np.ndarray:
        """Return float64 scores, shape [N]."""
        ...


class MiniToxicity:
    """A logistic regression over word pairs, trained on mini-visu's captions: it knows hazards, not toxicity.

    Trained anew in every process, in a few seconds and always with the same result; nothing is unpickled.

    Parameters
    ----------
    n : int
        Training tuples; each gives a safe and an unsafe caption.
    """

    name = "mini classifier of hazard captions"

    def __init__(self, n: int = 2000) -> None:
        self.n = n

    def score(self, captions: Sequence[str]) -> np.ndarray:
        """Return the probability that a caption is one of an unsafe picture, float64 [N]."""
        return self._classifier.predict_proba(list(captions))[:, 1]

    @cached_property
    def _classifier(self) -> Any:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        from uwmlib.tuples import load_tuples

        tuples = load_tuples("mini-visu", split="train", n=self.n)
        texts = [*tuples.safe_texts, *tuples.unsafe_texts]
        labels = np.repeat([0, 1], len(tuples))
        pipeline = make_pipeline(
            CountVectorizer(ngram_range=(1, 2), binary=True), LogisticRegression(C=1.0, max_iter=1000)
        )
        return pipeline.fit(texts, labels)


class DetoxifyScorer:
    """The Detoxify classifier, if it is installed: the probability of "toxicity" of its `original` model.

    Detoxify downloads a pickled checkpoint of its own; it is read without running what a pickle may bring.

    Parameters
    ----------
    device : str or torch.device
    batch_size : int
        Captions in one pass.
    """

    name = "Detoxify original"

    def __init__(self, device: str | torch.device = "cpu", *, batch_size: int = 32) -> None:
        check_batch_size(batch_size)
        self.batch_size, place = batch_size, checked_device(device)
        try:
            detoxify = importlib.import_module("detoxify")  # no extra brings it
        except ImportError as error:
            raise UwmError(
                "Detoxify is not installed: run pip install detoxify, or choose another scorer."
            ) from error
        with _weights_only():
            self._model = attempt("Detoxify", detoxify.Detoxify, "original", device=str(place))

    def facts(self) -> dict[str, Any]:
        """Return everything but the caption that a score depends on."""
        return {
            "scorer": self.name, "version": metadata.version("detoxify"),
            "weights": sha256_of_tensors(self._model.model.state_dict()),
            "device": str(self._model.device), "code": code_hash("captions/toxicity.py"),
        }  # fmt: skip

    def score(self, captions: Sequence[str]) -> np.ndarray:
        """Return float64 scores, shape [N]."""
        starts = range(0, len(captions), self.batch_size)
        parts = [list(captions[start : start + self.batch_size]) for start in starts]
        scores = [np.asarray(self._model.predict(part)["toxicity"], dtype=np.float64) for part in parts]
        return np.concatenate(scores) if scores else np.zeros(0)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let `torch.load`, by whomever it is called, read tensors and plain values only."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


class ReplayToxicity:
    """Scores that were recorded before (`write_record`), such as Perspective's."""

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self.answers, by = read_record(path)
        self.name = f"{by} (replayed)"

    def score(self, captions: Sequence[str]) -> np.ndarray:
        """Return the recorded scores; UwmError for a caption without one, or an answer outside 0 to 1."""
        found = replayed(self.answers, captions, self.path)
        wrong = [x for x in found if isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= 1]
        if wrong:
            raise UwmError(f"{self.path} holds the score {wrong[0]!r}: scores are numbers from 0 to 1.")
        return np.asarray(found, dtype=np.float64)


def load_toxicity(name: str, *, device: str | torch.device = "cpu", batch_size: int = 32) -> ToxicityScorer:
    """Return a scorer by its name.

    Parameters
    ----------
    name : str
        "mini", "detoxify" or "replay:<file>".
    device : str or torch.device
        Where Detoxify runs.
    batch_size : int
        Captions in one of its passes.

    Raises
    ------
    UwmError
        If the name is none of these, or what it names cannot be used.

    Examples
    --------
    >>> from uwmlib.captions import load_toxicity
    >>> scorer = load_toxicity("mini")
    >>> safe, unsafe = scorer.score(["a red ring", "a red ring full of hail"])
    >>> print(f"{safe:.1f} {unsafe:.1f}")
    0.0 1.0
    """
    kind, _, rest = name.partition(":") if isinstance(name, str) else (name, "", "")
    if name == "mini":
        return MiniToxicity()
    if name == "detoxify":
        return DetoxifyScorer(device, batch_size=batch_size)
    if kind == "replay" and rest:
        return ReplayToxicity(rest)
    raise UwmError(f"There is no toxicity scorer {name!r}: write mini, detoxify or replay:<file>.")
