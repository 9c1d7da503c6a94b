"""Parameters of a run, checked together before any work: one name has one meaning in all chapters."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from uwmlib.errors import UwmError
from uwmlib.manifests import manifests_dir
from uwmlib.options import finite_number, known, shown, whole_number
from uwmlib.outputs import check_folder
from uwmlib.rows import SUFFIXES

SEEDS = 2**63  #: seeds are below this: torch takes no larger one
READINGS = ("released", "paper")
MODELS = ("mini-", "open_clip:", "hf-hub:", "local-dir:", "hf:")
JUDGES = ("lexicon", "lm:", "endpoint:", "replay:")
TOXICITIES = ("mini", "detoxify", "replay:")


def check_run(**parameters: Any) -> None:
    """Check the parameters of a chapter or a command by their names.

    Parameters
    ----------
    **parameters
        Any of `CHECKS`, such as `tau` (a share), `alpha` (finite), `seed` (0 to 2**63 - 1), `batch_size` (at
        least 1), `device` (one that torch sees here), `results_dir` and `cache_dir` (folders that can be written).

    Raises
    ------
    UwmError
        For the first value that cannot be used, naming the parameter, or for a name that is not in `CHECKS`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> uwm.check_run(tau=0.02, alpha=-1.0, seed=0, results_dir="")
    >>> uwm.check_run(tau=2)
    Traceback (most recent call last):
        ...
    uwmlib.errors.UwmError: tau is 2, but it is a share: give a number ...
    """
    for name, value in parameters.items():
        CHECKS[known(name, CHECKS, "parameter")](name, value)


def checked_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a notebook, checked: every name of `namespace` that is in `CHECKS`.

    A chapter calls it with `globals()` right after its parameters cell, and hands the result to
    `uwmlib.reporting.conclude`: what decides whether its numbers may be compared with the reference cannot be
    forgotten.

    Raises
    ------
    UwmError
        For the first value that cannot be used (see `check_run`).

    Examples
    --------
    >>> import uwmlib as uwm
    >>> uwm.checked_parameters({"tau": 0.02, "seed": 0, "vlm": "no parameter"})
    {'tau': 0.02, 'seed': 0}
    """
    given = {name: namespace[name] for name in CHECKS if name in namespace}
    check_run(**given)
    return given


def _real(name: str, value: Any, *, least: float = -math.inf) -> None:
    finite_number(value, name, least=least)


def _whole(name: str, value: Any, *, least: int = 0) -> None:
    whole_number(value, name, least=least, most=SEEDS - 1)


def _share(name: str, value: Any) -> None:
    _real(name, value)
    if not 0 < value < 1:
        raise UwmError(
            f"{name} is {shown(value)}, but it is a share: give a number between 0 and 1, such as 0.02."
        )


def _shares(name: str, value: Any) -> None:
    _text(name, value)
    try:
        shares = [float(part) for part in value.split()]
    except ValueError:
        shares = []
    if not shares or not all(0 < share < 1 for share in shares):
        raise UwmError(
            f"{name} is {shown(value)}: give numbers between 0 and 1, separated by spaces, such as '0.01 0.02'."
        )


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise UwmError(f"{name} is {shown(value)}: give True or False.")


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise UwmError(f"{name} is {shown(value)}: give text.")


def _one_of(name: str, value: Any, *, choices: tuple[str, ...]) -> None:
    _text(name, value)
    known(value, choices, name)


def _starts(name: str, value: Any, *, choices: tuple[str, ...]) -> None:
    """Check text that is empty or one of `choices`, or begins with one that ends in a colon or dash and goes on."""
    _text(name, value)
    if not value:  # the profile's own
        return
    open_ended = tuple(choice for choice in choices if choice[-1] in ":-")
    if value not in set(choices) - set(open_ended) and (
        not value.startswith(open_ended) or value in open_ended
    ):
        raise UwmError(f"{name} is {shown(value)}: give one of {', '.join(choices)}.")


def _model(name: str, value: Any) -> None:
    if isinstance(value, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", value):  # "ViT-L-14/openai"
        return
    _starts(name, value, choices=MODELS)


def _weights(name: str, value: Any) -> None:
    _text(name, value)
    if value.endswith(".safetensors") and not os.path.isfile(value):
        raise UwmError(f"{name} is {shown(value)}, and there is no such file: check the path.")


def _data(name: str, value: Any, *, drawn: tuple[str, ...]) -> None:
    _text(name, value)
    if value and value not in drawn and not (value.endswith(SUFFIXES) and os.path.isfile(value)):
        raise UwmError(
            f"{name} is {shown(value)}: give {' or '.join(map(repr, drawn))}, or the path of a .jsonl or .csv manifest."
        )


def _layer(name: str, value: Any) -> None:
    _text(name, value)
    if not re.fullmatch(r"(text|vision)\.\d+\.(fc1|fc2|value|out)", value):
        raise UwmError(f"{name} is {shown(value)}: give encoder, block and kind, such as 'vision.3.fc2'.")


def _rows(name: str, value: Any) -> None:
    from uwmlib.profiles import PROFILES

    _text(name, value)
    for row in value.split():
        known(row, PROFILES["mini"].architectures, "row")


def _sets(name: str, value: Any) -> None:
    _text(name, value)
    if value and not os.path.isdir(value):
        raise UwmError(f"{name} is {shown(value)}, and there is no such folder: check the path.")


def _own_rows(name: str, value: Any) -> None:
    from uwmlib.profiles import profile

    _text(name, value)
    profile("mini", **{name: value})


def _device(name: str, value: Any) -> None:
    from uwmlib.models.loading import checked_device

    if checked_device(value).type == "meta":
        raise UwmError(f"{name} is {shown(value)}, which holds shapes and no numbers: take 'cpu'.")


def _results_dir(name: str, value: Any) -> None:
    if not isinstance(value, str | os.PathLike):
        raise UwmError(f"{name} is {shown(value)}: give the path of a folder.")
    if str(value):
        check_folder(value)


def _cache_dir(name: str, value: Any) -> None:
    from uwmlib.cache import default_folder

    _results_dir(name, value if str(value) else default_folder())


def _update_reference(name: str, value: Any) -> None:
    _flag(name, value)
    if value:
        check_folder(manifests_dir() / "reference")


#: What is checked of each parameter, by its name.
CHECKS: dict[str, Callable[[str, Any], None]] = {
    "profile": partial(_one_of, choices=("mini", "paper")),
    "base_model": _model,
    "base_weights": _weights,
    "safe_model": _model,
    "safe_weights": _weights,
    "data": partial(_data, drawn=("mini-visu", "mini-visu-1")),
    "zero_shot": _sets,
    "benign": partial(_data, drawn=("mini-visu",)),
    "architectures": _own_rows,
    "llavas": _own_rows,
    "n": partial(_whole, least=1),
    "n_benign": _whole,
    "n_test": _whole,
    "n_calibration": _whole,
    "n_validation": _whole,
    "tau": _share,
    "strong_tau": _share,
    "taus": _shares,
    "alpha": _real,
    "alpha_steps": partial(_whole, least=2),
    "margin": partial(_real, least=0.0),
    "variant": partial(_one_of, choices=("released", "paper", "unsafe-only", "difference")),
    "baseline_reading": partial(_one_of, choices=READINGS),
    "layer": _layer,
    "only": _rows,
    "blur_unsafe": partial(_one_of, choices=("auto", "yes", "no")),
    "judge": partial(_starts, choices=JUDGES),
    "toxicity": partial(_starts, choices=TOXICITIES),
    "bleu": partial(_one_of, choices=("released", "sacrebleu")),
    "max_new_tokens": partial(_whole, least=1),
    "seed": _whole,
    "batch_size": partial(_whole, least=1),
    "device": _device,
    "progress": _flag,
    "cache_dir": _cache_dir,
    "results_dir": _results_dir,
    "update_reference": _update_reference,
}
