"""What a page says of the data that it was run on."""

from __future__ import annotations

from uwmlib.tuples import Tuples


def describe_tuples(*, test: Tuples, calibration: Tuples) -> str:
    """Return a line with the numbers of tuples, and with how many were both calibrated and tested on.

    Two tuples count as one where both captions and the concept are the same. A manifest without splits gives the
    same tuples twice: figures on those are no test of anything.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.reporting import describe_tuples
    >>> tuples = uwm.load_tuples("mini-visu", n=8)
    >>> print(describe_tuples(test=tuples, calibration=tuples[:3]))
    8 test tuples, 3 calibration tuples, of which 3 have the captions of ...
    """
    tested = set(_captions(test))
    shared = sum(captions in tested for captions in _captions(calibration))
    note = f", of which {shared} have the captions of test tuples" if shared else ""
    return f"{len(test)} test tuples, {len(calibration)} calibration tuples{note}"


def _captions(tuples: Tuples) -> list[tuple[str, str, str]]:
    return list(zip(tuples.safe_texts, tuples.unsafe_texts, tuples.concepts, strict=True))
