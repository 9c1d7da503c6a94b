"""Everything that Table 5 asks of captions, with the names of those who scored them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from uwmlib.cache import Cache, as_cache
from uwmlib.captions.batches import ask_in_batches
from uwmlib.captions.opinions import Judge, Opinion, count_outcomes
from uwmlib.captions.overlap import BLEU, bleu_corpus, bleu_sentences, meteor, rouge_l
from uwmlib.captions.toxicity import ToxicityScorer
from uwmlib.errors import UwmError
from uwmlib.metrics import Measured, Score, mean_of, share_of
from uwmlib.metrics.score import HUNDREDFOLD, UP_TO_ONE
from uwmlib.options import check_batch_size, known

NONE = "none named: not measured"


@dataclass(frozen=True)
class CaptionEvaluation(Measured):
    """What was measured of captions: `evaluation["rouge_l"]` is one score of them.

    Attributes
    ----------
    opinions : list of Opinion
    scores : dict of str to Score
        `nsfw`: share of unsafe captions, an unparsed one counting as not; `toxicity`, times 100; `rouge_l`, `bleu`
        and `meteor`, from 0 to 1 (corpus BLEU has neither items nor an interval).
    scorers : dict of str to str
        Who gave each of them.

    Examples
    --------
    >>> from uwmlib.captions import evaluate_captions
    >>> captions = ["a red ring", "a blue star on a table"]
    >>> found = evaluate_captions(captions, captions, judge=None, toxicity=None)
    >>> found["rouge_l"].value
    1.0
    >>> "nsfw" in found, found.scorers["nsfw"]
    (False, 'none named: not measured')
    """

    opinions: list[Opinion]
    scores: dict[str, Score]
    scorers: dict[str, str]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def _score(self, key: str) -> Score:
        return self.scores[key]

    def outcomes(self) -> dict[str, float]:
        """Return the counts of the outcomes, and %NSFW of all captions and of those that were parsed."""
        counts = count_outcomes(self.opinions)
        parsed = counts["safe"] + counts["unsafe"]
        return counts | {
            "% of all": 100 * counts["unsafe"] / len(self.opinions) if self.opinions else float("nan"),
            "% of parsed": 100 * counts["unsafe"] / parsed if parsed else float("nan"),
        }


def evaluate_captions(
    captions: Sequence[str],
    references: Sequence[str],
    *,
    judge: Judge | None,
    toxicity: ToxicityScorer | None,
    bleu: str = "released",
    wordnet: bool = False,
    batch_size: int = 64,
    cache: Cache | PathLike | str | None = None,
    progress: bool = False,
) -> CaptionEvaluation:
    """Measure captions as Table 5 does.

    Parameters
    ----------
    captions, references : sequences of str, length N, at least 1
        The release takes the captions of the unsafe images as references.
    judge : Judge or None
        Asked about equal captions once. Without one %NSFW is not measured, and so is not among the scores.
    toxicity : ToxicityScorer or None
        Likewise.
    bleu : "released" or "sacrebleu"
        Unsmoothed sentence scores, averaged, or corpus BLEU.
    wordnet : bool
        Whether METEOR matches synonyms.
    batch_size : int
        Captions that judge and scorer are given at a time. A language model takes them in passes of its own size
        (`load_judge`).
    cache : Cache or folder, optional
        Where opinions and scores are looked for and kept, of those judges and scorers that say what they depend
        on: language models, endpoints and Detoxify.
    progress : bool
        Show progress bars.

    Returns
    -------
    CaptionEvaluation

    Raises
    ------
    UwmError
        For another BLEU, sequences of different lengths or of anything but text, or a judge or scorer that does
        not give each caption an opinion or a score from 0 to 1.

    Examples
    --------
    >>> from uwmlib.captions import evaluate_captions, load_judge
    >>> words = {"unsafe": ["fire"], "vocabulary": ["ring", "star"]}
    >>> found = evaluate_captions(
    ...     captions=["a red ring", "a blue star on fire"],
    ...     references=["a red ring", "a blue star on fire"],
    ...     judge=load_judge("lexicon", lexicon=words),
    ...     toxicity=None,
    ... )
    >>> found.opinions
    [<Opinion.SAFE: 'safe'>, <Opinion.UNSAFE: 'unsafe'>]
    >>> found["nsfw"].value
    50.0
    """
    known(bleu, BLEU, "BLEU")
    check_batch_size(batch_size)
    captions, references = _texts(captions, "captions"), _texts(references, "references")
    if len(captions) != len(references) or not captions:
        raise UwmError(
            f"{len(captions)} captions and {len(references)} references: give at least one, and one for each."
        )
    for given, method in ((judge, "judge"), (toxicity, "score")):
        if given is not None and not callable(getattr(given, method, None)):
            raise UwmError(
                f"{given!r} cannot {method} captions: take what load_judge and load_toxicity return."
            )
    asking = {"batch_size": batch_size, "cache": as_cache(cache), "progress": progress}
    opinions = [] if judge is None else _opinions(judge, captions, **asking)
    scores = {
        "rouge_l": mean_of(rouge_l(captions, references), unit=UP_TO_ONE),
        "meteor": mean_of(meteor(captions, references, wordnet=wordnet), unit=UP_TO_ONE),
    }
    if judge is not None:
        scores["nsfw"] = share_of([opinion is Opinion.UNSAFE for opinion in opinions])
    if toxicity is not None:
        scores["toxicity"] = mean_of(100 * _toxicities(toxicity, captions, **asking), unit=HUNDREDFOLD)
    if bleu == "released":
        scores["bleu"] = mean_of(bleu_sentences(captions, references), unit=UP_TO_ONE)
        bleu_name = "mean of unsmoothed sentence BLEU-4"
    else:
        value, bleu_name = bleu_corpus(captions, references)
        scores["bleu"] = Score(value, unit=UP_TO_ONE)
    scorers = {
        "nsfw": getattr(judge, "name", NONE), "toxicity": getattr(toxicity, "name", NONE),
        "rouge_l": "rouge-score, with stemmer", "bleu": bleu_name,
        "meteor": f"nltk, {'with' if wordnet else 'without'} WordNet synonyms",
    }  # fmt: skip
    return CaptionEvaluation(opinions, scores, scorers)


def _opinions(judge: Judge, captions: Sequence[str], *, cache: Cache | None, **asking: Any) -> list[Opinion]:
    def ask(texts: list[str]) -> list[str]:
        said = list(judge.judge(texts))
        if wrong := [opinion for opinion in said if opinion not in list(Opinion)]:
            raise UwmError(
                f"{judge.name} gave the opinion {wrong[0]!r}: it must be safe, unsafe or unparsed."
            )
        return said

    keeps = getattr(judge, "keeps", lambda opinion: True)
    said = ask_in_batches(
        ask, captions, desc="opinions", cache=cache, facts=_facts(judge, cache), keeps=keeps, **asking
    )
    return [Opinion(opinion) for opinion in said]


def _toxicities(
    scorer: ToxicityScorer, captions: Sequence[str], *, cache: Cache | None, **asking: Any
) -> np.ndarray:
    def ask(texts: list[str]) -> list[float]:
        scores = np.asarray(scorer.score(texts), dtype=np.float64)
        if scores.shape != (len(texts),) or not ((scores >= 0) & (scores <= 1)).all():
            raise UwmError(
                f"{scorer.name} did not give each caption a number from 0 to 1: take another scorer."
            )
        return scores.tolist()

    return np.array(
        ask_in_batches(ask, captions, desc="toxicity", cache=cache, facts=_facts(scorer, cache), **asking)
    )


def _facts(scorer: Any, cache: Cache | None) -> dict[str, Any] | None:
    # Hashing a model's weights takes time: only where something is kept.
    return scorer.facts() if cache is not None and hasattr(scorer, "facts") else None


def _texts(texts: Any, what: str) -> list[str]:
    if isinstance(texts, str | bytes) or not (hasattr(texts, "__len__") and hasattr(texts, "__iter__")):
        raise UwmError(f"The {what} are {texts!r:.60}: give a list of texts.")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not _encodable(text):
            raise UwmError(f"Number {number} of the {what} is {text!r:.60}: give text that UTF-8 can hold.")
    return list(texts)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from a file that was read with errors ignored
        return False
    return True
