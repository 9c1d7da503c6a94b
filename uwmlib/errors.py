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


def printable(text: object) -> str:
    """Return text whose control characters, such as a line end in the name of a file, are written out.

    Examples
    --------
    >>> from uwmlib.errors import printable
    >>> print(printable("a\\nb"))
    a\\nb
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def in_one_line(error: Exception) -> str:
    """Return what another library's error says, for the brackets of a sentence; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
