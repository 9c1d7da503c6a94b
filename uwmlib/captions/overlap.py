"""How much of a reference a caption has: ROUGE-L, BLEU and METEOR, each with the name of its convention."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from uwmlib.errors import UwmError

BLEU = ("released", "sacrebleu")
MAX_ORDER = 4


def rouge_l(captions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return ROUGE-L's F-measure of every caption (rouge-score, with its stemmer, as the release), float64 [N]."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    pairs = _paired(captions, references)
    # rouge-score gives a whole number for a caption without words
    return np.array([float(scorer.score(target, text)["rougeL"].fmeasure) for text, target in pairs])


def sentence_bleu(
    caption: str, reference: str, *, order: int = MAX_ORDER, smooth: bool = False, brevity: bool = True
) -> float:
    """Return BLEU of one sentence, words separated by white space.

    The release averages such scores, of orders 2, 3 and 4. One order of n-grams without a match makes the score 0, as
    does a caption of fewer words than `order`, for which the release's torcheval raises an error instead.

    Parameters
    ----------
    caption, reference : str
    order : int
        Of the longest n-grams; the precisions of all orders up to it have the same weight.
    smooth : bool
        Count one more match and one more n-gram in every order above the first (Lin and Och, 2004).
    brevity : bool
        Whether a caption shorter than its reference is punished, by exp(1 - reference / caption) in words.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    All four words match, and two of three pairs of them; no triple does:

    >>> from uwmlib.captions.overlap import sentence_bleu
    >>> said, meant = "a red ring here", "here a red ring"
    >>> round(sentence_bleu(said, meant, order=2), 3)  # sqrt(1 * 2/3)
    0.816
    >>> sentence_bleu(said, meant), sentence_bleu(said, meant, smooth=True) > 0
    (0.0, True)
    """
    ours, theirs = caption.split(), reference.split()
    precisions = []
    for n in range(1, order + 1):
        found, wanted = (Counter(zip(*(x[i:] for i in range(n)), strict=False)) for x in (ours, theirs))
        added = int(smooth and n > 1)
        matches = sum((found & wanted).values()) + added
        if not matches:
            return 0.0
        precisions.append(matches / (sum(found.values()) + added))
    short = min(1.0, math.exp(1 - len(theirs) / len(ours))) if brevity else 1.0
    return short * math.exp(sum(map(math.log, precisions)) / order)


def bleu_sentences(captions: Sequence[str], references: Sequence[str], **options: Any) -> np.ndarray:
    """Return `sentence_bleu` of every caption, float64 [N], with its options; the release averages them."""
    pairs = _paired(captions, references)
    return np.array([sentence_bleu(text, target, **options) for text, target in pairs])


def bleu_corpus(captions: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Return sacrebleu's corpus BLEU from 0 to 1, and its signature."""
    from sacrebleu.metrics import BLEU as Metric

    texts, targets = zip(*_paired(captions, references), strict=True)
    metric = Metric()
    score = metric.corpus_score(list(texts), [list(targets)]).score / 100
    return score, metric.get_signature().format()


def meteor(captions: Sequence[str], references: Sequence[str], *, wordnet: bool = False) -> np.ndarray:
    """Return METEOR of every caption (nltk, words separated by white space), float64 [N].

    Parameters
    ----------
    captions, references : sequences of str, length N
    wordnet : bool
        Match synonyms too, as the release does. WordNet has to be downloaded (`nltk.download("wordnet")`);
        without it words match exactly or by their stems.

    Raises
    ------
    UwmError
        If WordNet is asked for and not installed.
    """
    from nltk.translate.meteor_score import single_meteor_score

    synonyms = _wordnet() if wordnet else SimpleNamespace(synsets=lambda word: [])
    return np.array([
        single_meteor_score(target.split(), text.split(), wordnet=synonyms)
        for text, target in _paired(captions, references)
    ])  # fmt: skip


def _wordnet() -> object:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise UwmError("WordNet is not installed: run nltk.download('wordnet'), or leave it out.") from error
    return wordnet


def _paired(captions: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    if len(captions) != len(references) or not len(captions):
        raise UwmError(f"{len(captions)} captions and {len(references)} references: give one for each.")
    return list(zip(captions, references, strict=True))
