"""Words for how what was found here stands to what the paper reports, and the rule behind each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from uwmlib.errors import UwmError
from uwmlib.metrics import Difference, SeedDifference

# The paper prints percentages with one decimal, and prints some quantities twice with values 0.1 apart.
PAPER_NOISE = 0.1

#: Share of its base below which a score has collapsed; the paper's collapses leave 0 to 8%.
COLLAPSE = 0.1

AGREES = "agrees in size"
LARGER = "same direction, larger"
SMALLER = "same direction, smaller"
SAME = "same direction"
OPPOSITE = "opposite"
NO_EFFECT = "no effect here"
CANNOT_TELL = "cannot tell"
PRESERVED = "preserved"
NOT_PRESERVED = "not preserved"
COLLAPSED = "collapsed"
NOT_COLLAPSED = "not collapsed"
NONE_IN_PAPER = "no direction in the paper"
NOT_MEASURED = "not measured here"

MEANINGS = {
    AGREES: "ours moved the same way, and the paper's size lies in our interval or within the margin of ours",
    LARGER: "ours moved the same way, by more than the paper's size and its margin; our interval excludes the paper's",
    SMALLER: "ours moved the same way, by less than the paper's size and its margin; our interval excludes the paper's",
    SAME: "ours moved the same way; in rankings and trends no size is compared, elsewhere our interval is too wide to",
    OPPOSITE: "ours moved the other way",
    NO_EFFECT: "ours did not move by more than chance, and our interval excludes the paper's size, either way",
    CANNOT_TELL: "our interval excludes too little: there are too few items to say",
    PRESERVED: "said to be kept, and our interval excludes a loss that no longer counts as kept",
    NOT_PRESERVED: "said to be kept, and our interval lies beyond the loss that still counts as kept",
    COLLAPSED: "said to collapse, and our interval leaves a tenth of the base at most",
    NOT_COLLAPSED: "said to collapse, and our interval leaves more than a tenth of the base",
    NONE_IN_PAPER: "the paper prints no difference, or one of at most 0.1, which is how far its own repeats differ",
    NOT_MEASURED: "nothing was measured here",
}

# A claim with several parts is as good as its worst one, and a verdict over seeds as that of the worst seed.
WORST_FIRST = (
    OPPOSITE, NOT_PRESERVED, NOT_COLLAPSED, NO_EFFECT, CANNOT_TELL, SMALLER, LARGER, NOT_MEASURED, NONE_IN_PAPER, SAME,
    AGREES, PRESERVED, COLLAPSED,
)  # fmt: skip

# What moved, and nothing of whether it should have: a loss never points up. Readable without colour.
MARKS = {1: "↑", -1: "↓", 0: "↔", None: "?"}
MOVES = {
    "↑": "ours rose by more than chance",
    "↓": "ours fell by more than chance",
    "↔": "ours did not move by more than chance",
    "?": "not measured here",
}


@dataclass(frozen=True)
class Margin:
    """How far from the paper's size a difference of the same size may be: max(points, share times the size).

    The defaults: one point, ten times what the paper's own repeats differ by, since less changes no reader's choice;
    and a third of the size, so that what is known to be half as large, or half as large again, is not the same.

    Attributes
    ----------
    points : float
        In the score's unit.
    share : float
        Of the paper's size.

    Examples
    --------
    >>> from uwmlib.paper import Margin
    >>> Margin().of(-1.9), Margin().of(12.9)
    (1.0, 4.3)
    """

    points: float = 1.0
    share: float = 1 / 3

    def of(self, size: float) -> float:
        """The margin around a difference of this size."""
        return max(self.points, self.share * abs(size))


MARGIN = Margin()


@dataclass(frozen=True)
class Verdict:
    """A word of `MEANINGS`, and how ours moved: +1, -1, 0 for "not by more than chance", None if not measured.

    `others` says how often the best word was found, where seeds do not agree.
    """

    word: str
    moved: int | None
    others: str = ""

    @property
    def rank(self) -> int:
        """Place of the word from the worst, 0, to the best."""
        return WORST_FIRST.index(self.word)

    def __str__(self) -> str:
        return f"{MARKS[self.moved]} {self.word}{self.others}"


def verdict(
    paper_difference: float | None,
    ours: Difference,
    *,
    margin: Margin = MARGIN,
    noise: float = PAPER_NOISE,
    counts: bool | None = None,
) -> str:
    """Say whether a difference that the paper prints is found here, and in which size.

    Parameters
    ----------
    paper_difference : float or None
        Printed difference in the score's unit; None or NaN if it is not printed.
    ours : Difference
        Ours, with its paired 95% interval [lo, hi].
    margin : Margin
        By default the larger of one point and a third of the paper's size.
    noise : float
        Printed differences up to this size have no direction (some quantities are printed twice, 0.1 apart).
    counts : bool, optional
        Whether our direction is more than chance; by default where the interval excludes 0. Tables say False where
        it does not survive their correction.

    Returns
    -------
    str
        With p the paper's difference, taken as positive, and m = margin.of(p):

        - "no direction in the paper": |p| <= noise;
        - "opposite": ours counts and is negative;
        - "agrees in size": ours counts, and p lies in [lo, hi] or within m of ours;
        - "same direction": as before, but lo < p - m and hi > p + m, so that the size cannot be told;
        - "same direction, smaller" or "same direction, larger": it counts, and neither is so;
        - "no effect here": it does not count, and both limits are closer to 0 than p - noise;
        - "cannot tell" otherwise.

    Raises
    ------
    UwmError
        If our numbers are not finite or the interval does not hold the difference.

    Examples
    --------
    Four differences of the sign that the paper has, or nearly:

    >>> from uwmlib.metrics import Difference
    >>> from uwmlib.paper import verdict
    >>> verdict(-1.9, Difference(-2.5, -4.0, -1.0))
    'agrees in size'
    >>> verdict(-1.9, Difference(-22.8, -24.9, -20.7))
    'same direction, larger'
    >>> verdict(12.9, Difference(0.1, -0.4, 0.7))
    'no effect here'
    >>> verdict(12.9, Difference(8.0, -2.0, 18.0))
    'cannot tell'
    """
    if paper_difference is None or not abs(paper_difference) > noise + 1e-9:
        _check(ours)
        return NONE_IN_PAPER
    size = abs(paper_difference)
    word = direction_verdict(paper_difference, ours, size=size - noise, counts=counts)
    if word != SAME:
        return word
    # The limits as the paper counts them: towards its side is up.
    lo, hi = (ours.lo, ours.hi) if paper_difference > 0 else (-ours.hi, -ours.lo)
    allowed = margin.of(size) + 1e-9
    if lo < size - allowed and hi > size + allowed:
        return SAME
    if lo <= size <= hi or abs(abs(ours.difference) - size) <= allowed:
        return AGREES
    return SMALLER if hi < size else LARGER


def direction_verdict(sign: float, ours: Difference, *, size: float = 1.0, counts: bool | None = None) -> str:
    """Say whether ours has a direction that the paper names without a size, as in rankings and trends.

    Parameters
    ----------
    sign : float
        Positive or negative, as the paper says.
    ours : Difference
    size : float
        What an interval must exclude, either way, to say that there is no effect; in the score's unit.
    counts : bool, optional
        As in `verdict`.

    Returns
    -------
    str
        "same direction", "opposite", "no effect here" or "cannot tell".

    Raises
    ------
    UwmError
        As `verdict`.

    Examples
    --------
    >>> from uwmlib.metrics import Difference
    >>> from uwmlib.paper import direction_verdict
    >>> direction_verdict(-1, Difference(-3.0, -5.0, -1.0))
    'same direction'
    """
    _check(ours)
    if excludes_zero(ours) if counts is None else counts:
        return SAME if (ours.difference > 0) == (sign > 0) else OPPOSITE
    return NO_EFFECT if max(-ours.lo, ours.hi) < size else CANNOT_TELL


def preservation_verdict(ours: Difference, *, loss: float, both: bool = False) -> str:
    """Say whether a score that the paper says is kept is kept here: equivalence, not a missing difference.

    Parameters
    ----------
    ours : Difference
        After minus before.
    loss : float
        The largest loss that counts as kept, in the score's unit, >= 0.
    both : bool
        Whether a gain above it counts as not kept either ("about the same").

    Returns
    -------
    str
        "preserved" if the 95% interval lies above -loss (within +-loss for both), "not preserved" if it lies beyond,
        "cannot tell" otherwise.

    Raises
    ------
    UwmError
        As `verdict`.

    Examples
    --------
    >>> from uwmlib.metrics import Difference
    >>> from uwmlib.paper import preservation_verdict
    >>> preservation_verdict(Difference(-0.5, -1.5, 0.5), loss=2.0)
    'preserved'
    >>> preservation_verdict(Difference(-0.5, -4.5, 3.5), loss=2.0)
    'cannot tell'
    """
    _check(ours)
    if ours.lo >= -loss and not (both and ours.hi > loss):
        return PRESERVED
    return NOT_PRESERVED if ours.hi < -loss or (both and ours.lo > loss) else CANNOT_TELL


def collapse_verdict(ours: Difference, *, share: float = COLLAPSE) -> str:
    """Say whether a score that collapses in the paper collapses here.

    Parameters
    ----------
    ours : Difference
        After minus before, with its `base`, the score before; the base's own interval is not counted.
    share : float
        Of the base, what may be left.

    Returns
    -------
    str
        "collapsed" if the whole 95% interval leaves at most that share, "not collapsed" if it leaves more,
        "cannot tell" otherwise.

    Raises
    ------
    UwmError
        If the base is not known; as `verdict`.

    Examples
    --------
    >>> from uwmlib.metrics import Difference
    >>> from uwmlib.paper import collapse_verdict
    >>> collapse_verdict(Difference(-49.0, -51.0, -47.0, base=50.0))
    'collapsed'
    >>> collapse_verdict(Difference(-6.0, -8.0, -4.0, base=50.0))
    'not collapsed'
    """
    _check(ours)
    limit = -(1 - share) * base_of(ours)
    if ours.hi <= limit:
        return COLLAPSED
    return NOT_COLLAPSED if ours.lo > limit else CANNOT_TELL


def judged(
    found: Difference | None, counting: tuple[bool, ...], rule: Callable[[Difference, bool], str]
) -> Verdict:
    """Apply a rule to what was found; over several seeds the worst of their words is the verdict.

    Parameters
    ----------
    found : Difference or None
    counting : tuple of bool
        For each seed whether its direction counts.
    rule : callable
        From the difference of one seed, and whether it counts, to a word.
    """
    if found is None:
        return Verdict(NOT_MEASURED, None)
    seeds = by_seed(found)
    counted = [
        Verdict(rule(one, count), int(math.copysign(1, one.difference)) if count else 0)
        for one, count in zip(seeds, counting, strict=True)
    ]
    worst, best = (pick(counted, key=lambda each: each.rank) for pick in (min, max))
    moves = {each.moved for each in counted}
    alike = sum(each.word == best.word for each in counted)
    others = f" ({best.word} on {alike} of {len(seeds)})" if alike < len(seeds) else ""
    return Verdict(worst.word, moves.pop() if len(moves) == 1 else 0, others)


def by_seed(found: Difference) -> tuple[Difference, ...]:
    """The difference of each seed, or the only one."""
    return found.by_seed if isinstance(found, SeedDifference) else (found,)


def excludes_zero(found: Difference) -> bool:
    """Whether the interval leaves zero out; one that touches it holds it."""
    return not found.lo <= 0 <= found.hi


def base_of(found: Difference) -> float:
    """The score that a difference is counted from."""
    if found.base is None:
        raise UwmError(
            "What is kept or collapses is a share of the score before: give the difference with its base."
        )
    return found.base


def legend() -> pd.DataFrame:
    """Every mark and word of a verdict with its meaning.

    Examples
    --------
    >>> from uwmlib.paper import legend
    >>> print(legend().at["opposite", "means"])
    ours moved the other way
    """
    return pd.DataFrame({"means": MOVES | MEANINGS}).rename_axis("mark or word")


def _check(found: Difference) -> None:
    if not (
        math.isfinite(found.difference) and found.lo <= found.difference <= found.hi
    ):  # NaN is in no interval
        raise UwmError(
            f"{found.difference} with interval [{found.lo}, {found.hi}] is no measurement: "
            "the interval must hold it."
        )
