"""How toxic is a caption? Scorers behind one small protocol; each names itself beside its numbers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from uwmlib.captions.replay import read_record, replayed
from uwmlib.errors import UwmError


class ToxicityScorer(Protocol):
    """Whatever gives captions a score from 0 (harmless) to 1 (toxic)."""

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
    """The Detoxify classifier, if it is installed: the probability of "toxicity" of its `original` model."""

    name = "Detoxify original"

    def __init__(self, device: str = "cpu") -> None:
        # No extra brings it: it downloads a pickled checkpoint of its own.
        try:
            detoxify = importlib.import_module("detoxify")
        except ImportError as error:
            raise UwmError(
                "Detoxify is not installed: run pip install detoxify, or choose another scorer."
            ) from error
        self._model = detoxify.Detoxify("original", device=device)

    def score(self, captions: Sequence[str]) -> np.ndarray:
        """Return float64 scores, shape [N]."""
        return np.asarray(self._model.predict(list(captions))["toxicity"], dtype=np.float64)


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


def load_toxicity(name: str) -> ToxicityScorer:
    """Return a scorer by its name: "mini", "detoxify" or "replay:<file>"; UwmError for any other."""
    kind, _, rest = name.partition(":")
    if name == "mini":
        return MiniToxicity()
    if name == "detoxify":
        return DetoxifyScorer()
    if kind == "replay" and rest:
        return ReplayToxicity(rest)
    raise UwmError(f"There is no toxicity scorer {name!r}: write mini, detoxify or replay:<file>.")
