"""The one table of scores: how each is written, in which unit, and how the paper's tables head it.

A new metric costs its own file and a row here. A name without a row, such as that of a data set, is written as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from uwmlib.metrics.score import DEVIATIONS, HUNDREDFOLD, PERCENT, UP_TO_ONE, Score, Unit


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes
    ----------
    label : str
        How tables and figures write the score; `$...$` is mathematics.
    unit : Unit
        Also of the numbers that the paper prints.
    column : str
        How the paper's tables head it; "" if by the score's own name, or not at all.

    Examples
    --------
    >>> from uwmlib.metrics import CATALOGUE
    >>> CATALOGUE["gs"].label, CATALOGUE["gs"].unit.words
    ('GS', 'in percent')
    >>> CATALOGUE["p_u_v"].column
    'Pvu'
    """

    label: str
    unit: Unit = PERCENT
    column: str = ""


CATALOGUE = {
    "p_s_t": Entry("$P_s^t$", column="Pts"),
    "p_u_t": Entry("$P_u^t$", column="Ptu"),
    "p_s_v": Entry("$P_s^v$", column="Pvs"),
    "p_u_v": Entry("$P_u^v$", column="Pvu"),
    "txt_s": Entry(r"$\mathrm{Txt}_s$", column="Txts"),
    "img_s": Entry(r"$\mathrm{Img}_s$", column="Imgs"),
    "gap": Entry(r"$\mathrm{Txt}_s - \mathrm{Img}_s$"),
    "ps": Entry("PS", column="PS"),
    "pu": Entry("PU", column="PU"),
    "gs": Entry("GS", column="GS"),
    "ts_vs": Entry(r"$T_s \to V_s$", column="Ts_Vs"),
    "vs_ts": Entry(r"$V_s \to T_s$", column="Vs_Ts"),
    "tu_vus": Entry(r"$T_u \to V_{u+s}$", column="Tu_Vus"),
    "vu_tus": Entry(r"$V_u \to T_{u+s}$", column="Vu_Tus"),
    "zs_mean": Entry("zero-shot", column="mean"),
    "benign": Entry("benign use"),
    "over_unsafe_t": Entry("benign text over unsafe"),
    "over_clean_t": Entry("benign text over clean"),
    "over_unsafe_v": Entry("benign image over unsafe"),
    "over_clean_v": Entry("benign image over clean"),
    "match": Entry("match"),
    "sensitivity_text": Entry("$d'$, text", DEVIATIONS),
    "bias_text": Entry("$c$, text", DEVIATIONS),
    "sensitivity_image": Entry("$d'$, image", DEVIATIONS),
    "bias_image": Entry("$c$, image", DEVIATIONS),
    "safe_bias": Entry("$c$, both", DEVIATIONS),
    "sensitivity": Entry("$d'$, both", DEVIATIONS),
    "knowledge": Entry("knowledge"),
    "knowledge_kept": Entry("knowledge kept"),
    "nsfw": Entry("%NSFW"),
    "toxicity": Entry("toxicity", HUNDREDFOLD),
    "rouge_l": Entry("ROUGE-L", UP_TO_ONE),
    "bleu": Entry("BLEU", UP_TO_ONE),
    "meteor": Entry("METEOR", UP_TO_ONE),
}


def label(key: str) -> str:
    """Return how a score is written; a name without a row as it is.

    Examples
    --------
    >>> from uwmlib.metrics import label
    >>> label("p_u_t")
    '$P_u^t$'
    >>> label("cifar10")
    'cifar10'
    """
    return CATALOGUE[key].label if key in CATALOGUE else key


def unit(key: str, *scores: Score | None) -> Unit:
    """Return the unit of a score: that of the first of `scores` that was measured, else its row's, else percent."""
    first = next((score.unit for score in scores if score is not None), None)
    return first or (CATALOGUE[key].unit if key in CATALOGUE else PERCENT)


def key_of(column: str) -> str:
    """Return the name of the score in one column of the paper's tables."""
    return next((key for key, entry in CATALOGUE.items() if entry.column == column), column)
