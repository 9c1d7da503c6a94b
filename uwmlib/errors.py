"""The one exception that bad input raises."""

from __future__ import annotations


class UwmError(ValueError):
    """Bad input: the message is one sentence that names what was wrong and what to do about it.

    Examples
    --------
    >>> from uwmlib.metrics import wilson
    >>> wilson(3, 2)
    Traceback (most recent call last):
        ...
    uwmlib.errors.UwmError: 3 of 2 is not a rate: give whole numbers ...
    """


def in_one_line(error: Exception) -> str:
    """Return what another library's error says, for the brackets of a sentence; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
