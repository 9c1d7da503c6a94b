"""The two profiles that run the same notebooks: mini (everything ships) and paper (bring models and data)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from uwmlib.errors import UwmError
from uwmlib.mini.zero_shot_sets import NAMES


@dataclass(frozen=True)
class Profile:
    """Which models and data a notebook runs on.

    Attributes
    ----------
    name : str
        "mini" or "paper".
    base, safe : str
        Names for `load_model`: the model to edit, and its Safe-CLIP fine-tune.
    data : str
        Name or manifest path for `load_tuples`.
    zero_shot : tuple of str
        Names for `zero_shot_set`; empty where this profile has no classification sets.
    """

    name: str
    base: str
    safe: str
    data: str
    zero_shot: tuple[str, ...]


PROFILES = {
    "mini": Profile("mini", "mini-ViT-L-14", "mini-Safe-CLIP", "mini-visu", NAMES),
    # The unsafe ViSU images are withheld by their authors, so there is no default for the data.
    "paper": Profile("paper", "hf:openai/clip-vit-large-patch14", "hf:aimagelab/safeclip_vit-l_14", "", ()),
}


def profile(name: str, *, base: str = "", safe: str = "", data: str = "") -> Profile:
    """Return a profile, with any of its parts replaced by one's own.

    Parameters
    ----------
    name : str
        "mini" or "paper".
    base, safe, data : str
        Replace the profile's own choice where not empty.

    Raises
    ------
    UwmError
        If the profile is unknown, or "paper" is asked for without data.
    """
    if name not in PROFILES:
        nearest = difflib.get_close_matches(name, PROFILES, n=1, cutoff=0)[0]
        raise UwmError(f"There is no profile {name!r}: did you mean {nearest!r}?")
    chosen = PROFILES[name]
    chosen = Profile(name, base or chosen.base, safe or chosen.safe, data or chosen.data, chosen.zero_shot)
    if not chosen.data:
        raise UwmError(
            "The profile 'paper' needs pairs of your own, because the unsafe ViSU images are withheld: "
            "pass the path of a manifest as `data`."
        )
    return chosen
