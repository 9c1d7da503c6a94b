"""Checks of named options: an unknown name is answered with the nearest known one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

from uwmlib.errors import UwmError

ENCODERS = ("text", "vision")
MOST = 12  #: names that one sentence lists


def known(
    value: Any, choices: Iterable[str], what: str, *, elsewhere: Mapping[str, str] | None = None
) -> str:
    """Return `value` if it is one of `choices`.

    Parameters
    ----------
    value : object
    choices : iterable of str
    what : str
        What is chosen, for the message.
    elsewhere : mapping of str to str, optional
        What the choices are called in other libraries, so that such a name is answered with ours.

    Raises
    ------
    UwmError
        Naming the nearest choice, or some of them where none is near.
    """
    names = list(choices)
    if isinstance(value, str) and value in names:
        return value
    same = (elsewhere or {}).get(value) if isinstance(value, str) else None
    raise UwmError(f"There is no {what} {value!r}: {hint(same or value, names)}")


def hint(value: Any, choices: Iterable[str], *, otherwise: str | None = None) -> str:
    """Return the end of a sentence about an unknown name: the nearest choice.

    Where none is near: `otherwise`, by default the choices, or the first of many.

    Examples
    --------
    >>> hint("taw", ["tau", "alpha"])
    "did you mean 'tau'?"
    >>> hint("seed", ["tau", "alpha"])
    "choose one of 'tau', 'alpha'."
    """
    names = list(choices)
    near = get_close_matches(str(value), names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if otherwise is not None:
        return otherwise
    if not names:
        return "there is none to choose."
    shown = ", ".join(map(repr, names[:MOST]))
    return f"choose one of {shown}." if len(names) <= MOST else f"there are {len(names)}, such as {shown}."


def shown(value: Any) -> str:
    """Return a short, one-line repr."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python prints no whole number of more than 4300 digits
        text = "a very large number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def number(value: Any, what: str) -> float:
    """Return `value` as a plain float, which JSON can hold; UwmError for what is none, text and bool included."""
    try:
        plain = value.item() if hasattr(value, "item") else value  # numbers of NumPy and torch
        if isinstance(plain, Real) and not isinstance(plain, bool):
            return float(plain)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise UwmError(f"{what} is {shown(value)}: give a number.")


def finite_number(value: Any, what: str, *, least: float = -math.inf) -> float:
    """Return `value` as a plain float; UwmError for what is no number, NaN, infinite or below `least`."""
    plain = number(value, what)
    if not math.isfinite(plain) or plain < least:
        span = "" if least == -math.inf else f" of at least {least:g}"
        raise UwmError(f"{what} is {shown(value)}: give a finite number{span}.")
    return plain


def is_whole(value: Any) -> bool:
    """Return whether `value` is a whole number: Python's or NumPy's, but no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def whole_number(value: Any, what: str, *, least: int = 1, most: int | None = None) -> int:
    """Return a whole number as an int; UwmError if it is none or out of range."""
    if not is_whole(value) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise UwmError(f"{what} is {shown(value)}: give a whole number {span}.")
    return int(value)


def whole_numbers(values: Any, what: str) -> list[int]:
    """Return several whole numbers as ints; UwmError for one alone, text, or what holds anything else."""
    if (
        isinstance(values, str | Mapping)
        or not isinstance(values, Iterable)
        or getattr(values, "ndim", 1) != 1
    ):
        raise UwmError(f"{what} are {values!r}: give a list of whole numbers.")
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    wrong = next((value for value in listed if not is_whole(value)), None)
    if wrong is not None or None in listed:
        raise UwmError(f"{what} hold {wrong!r}: give a list of whole numbers.")
    return [int(value) for value in listed]


def check_batch_size(value: Any) -> None:
    """Raise UwmError unless `value` is a whole number of at least 1."""
    whole_number(value, "batch_size")


def flaw_of_text(value: str) -> str | None:
    """Return what makes a caption or a name unusable, such as a NUL in it; None if nothing does."""
    if "\0" in value:
        return "a NUL character"
    # Half of a pair is no character: it cannot be encoded, hence neither hashed nor tokenized.
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "half a surrogate pair"
    visible = any(character.isprintable() and not character.isspace() for character in value)
    return None if visible else "no visible character"


def numbers(value: Any, what: str) -> float | dict[str, float]:
    """Return one number, or a mapping of encoder to number, as plain floats."""
    if isinstance(value, Mapping):
        return {encoder: number(each, what) for encoder, each in value.items()}
    return number(value, what)


def as_list(value: Any) -> list[Any]:
    """Return a list for None, one name or several; what is none of these becomes its one, wrong, name."""
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return [] if value is None else list(value) if several else [value]


def per_encoder(value: Any, what: str, encoders: Iterable[str] = ENCODERS) -> dict[str, Any]:
    """Spread one value over the encoders, or check a mapping that gives each encoder its own.

    Parameters
    ----------
    value : object or mapping of str to object
        One value for all, or `{"text": ..., "vision": ...}`.
    what : str
        The option's name, for the error message.
    encoders : iterable of str
        The encoders that need a value.

    Raises
    ------
    UwmError
        If the mapping has an unknown encoder, or lacks one that is needed.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(encoders, value)
    for encoder in value:
        known(encoder, ENCODERS, f"encoder for {what},")
    missing = [encoder for encoder in encoders if encoder not in value]
    if missing:
        raise UwmError(
            f"{what} has no value for the {missing[0]} encoder: give one value, or one for each encoder."
        )
    return {encoder: value[encoder] for encoder in encoders}
