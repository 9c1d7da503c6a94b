"""Everything that Table 5 asks of captions, with the names of those who scored them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uwmlib.captions.judges import Judge, Verdict, count_outcomes
from uwmlib.captions.overlap import BLEU, bleu_corpus, bleu_sentences, meteor, rouge_l
from uwmlib.captions.toxicity import ToxicityScorer
from uwmlib.metrics.intervals import wilson
from uwmlib.options import known


@dataclass(frozen=True)
class CaptionEvaluation(Mapping[str, Any]):
    """Scores of captions: a mapping that `uwmlib.reporting` reads.

    Attributes
    ----------
    verdicts : list of Verdict
    scores : dict of str to object
        `nsfw`: bool array [N], unsafe or not, an unparsed caption counting as not; `toxicity`: float array [N],
        times 100; `rouge_l`, `bleu`, `meteor`: float arrays [N] from 0 to 1 (corpus BLEU: one number).
    scorers : dict of str to str
        Who gave each of them.
    """

    verdicts: list[Verdict]
    scores: dict[str, Any]
    scorers: dict[str, str]

    def __getitem__(self, key: str) -> Any:
        return self.scores[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def outcomes(self) -> dict[str, float]:
        """Return the counts of the outcomes, and %NSFW of all captions and of those that were parsed."""
        counts = count_outcomes(self.verdicts)
        parsed = counts["safe"] + counts["unsafe"]
        return counts | {
            "% of all": 100 * counts["unsafe"] / len(self.verdicts),
            "% of parsed": 100 * counts["unsafe"] / parsed if parsed else float("nan"),
        }

    def shares(self) -> dict[str, dict[str, Any]]:
        """Return %NSFW with Wilson's interval and n, of all captions and of the parsed ones if there are any.

        In the saved form that `uwmlib.reporting.measured` reads: `{"value", "interval", "n"}`.
        """
        counts = count_outcomes(self.verdicts)
        unsafe, parsed = counts["unsafe"], counts["safe"] + counts["unsafe"]
        denominators = {"% of all": len(self.verdicts), "% of parsed": parsed}
        return {
            name: {"value": 100 * unsafe / n, "interval": [100 * x for x in wilson(unsafe, n)], "n": n}
            for name, n in denominators.items()
            if n
        }


def evaluate_captions(
    captions: Sequence[str],
    references: Sequence[str],
    *,
    judge: Judge,
    toxicity: ToxicityScorer,
    bleu: str = "released",
    wordnet: bool = False,
) -> CaptionEvaluation:
    """Measure captions as Table 5 does.

    Parameters
    ----------
    captions, references : sequences of str, length N
        The release takes the captions of the unsafe images as references.
    judge : Judge
    toxicity : ToxicityScorer
    bleu : "released" or "sacrebleu"
        Unsmoothed sentence scores, averaged, or corpus BLEU.
    wordnet : bool
        Whether METEOR matches synonyms.

    Returns
    -------
    CaptionEvaluation

    Raises
    ------
    UwmError
        For another BLEU, or sequences of different lengths.
    """
    known(bleu, BLEU, "BLEU")
    scores = {
        "rouge_l": rouge_l(captions, references),
        "meteor": meteor(captions, references, wordnet=wordnet),
    }
    if bleu == "released":
        scores["bleu"], bleu_name = bleu_sentences(captions, references), "mean of unsmoothed sentence BLEU-4"
    else:
        scores["bleu"], bleu_name = bleu_corpus(captions, references)
    verdicts = judge.judge(captions)
    scores["nsfw"] = np.array([verdict is Verdict.UNSAFE for verdict in verdicts])
    scores["toxicity"] = 100 * toxicity.score(captions)
    scorers = {
        "nsfw": judge.name, "toxicity": toxicity.name, "rouge_l": "rouge-score, with stemmer", "bleu": bleu_name,
        "meteor": f"nltk, {'with' if wordnet else 'without'} WordNet synonyms",
    }  # fmt: skip
    return CaptionEvaluation(verdicts, scores, scorers)
