"""The two profiles that run the same notebooks: mini (everything ships) and paper (bring models and data)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from uwmlib.errors import UwmError
from uwmlib.mini.vocabulary import HAZARDS
from uwmlib.mini.worlds import SECOND, WORLDS
from uwmlib.models import Vlm, load_model
from uwmlib.options import known, shown
from uwmlib.tuples import BenignUses, Tuples, load_benign, load_tuples
from uwmlib.zero_shot import DRAWN, ZeroShotSet, load_zero_shot, not_at_hand, zero_shot_set


@dataclass(frozen=True)
class Source:
    """What `load_model` is to load; empty strings for what belongs to the name."""

    name: str
    weights: str = ""
    vision_weights: str = ""

    def load(self, device: str = "cpu") -> Vlm:
        """Load the model."""
        return load_model(
            self.name,
            weights=self.weights or None,
            vision_weights=self.vision_weights or None,
            device=device,
        )


@dataclass(frozen=True)
class Profile:
    """Which models and data a notebook runs on.

    Attributes
    ----------
    name : str
        "mini" or "paper".
    base_model, safe_model : str
        Names for `load_model`: the model to edit, and its Safe-CLIP fine-tune.
    base_weights, safe_weights : str
        Weights for `load_model`; empty for those that belong to the name.
    data : str
        Name or manifest path for `load_tuples`.
    architectures : dict of str to Source
        Row of Table 4 -> the model.
    llavas : dict of str to Source
        Row of Table 5 -> the captioning model.
    zero_shot : str
        Folder of classification sets (`uwmlib.zero_shot.load_zero_shot`); empty for the sets in `drawn`, or where
        there are none for the folder `zero_shot` of `$UWM_DATA`.
    benign : str
        Name or manifest path for `load_benign`; empty where there is none, which leaves benign use not measured.
    judge, toxicity : str
        Names for `load_judge` and `load_toxicity`; empty where there is none, which leaves a score not measured.
    drawn : tuple of str
        Names for `zero_shot_set`; they are drawn in the mini world of `data`.
    lexicon : mapping
        The words of the judge "lexicon", as `LexiconJudge` takes them; empty where there are none.
    seeds : dict of int to (str, str)
        Seed -> base and Safe-CLIP that were trained as `base_model` and `safe_model` were, from another seed; empty
        where there are none.
    """

    name: str
    base_model: str
    safe_model: str
    data: str
    architectures: dict[str, Source] = field(repr=False)
    llavas: dict[str, Source] = field(repr=False)
    base_weights: str = ""
    safe_weights: str = ""
    zero_shot: str = ""
    benign: str = ""
    judge: str = ""
    toxicity: str = ""
    drawn: tuple[str, ...] = field(default=(), repr=False)
    lexicon: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seeds: Mapping[int, tuple[str, str]] = field(default_factory=dict, repr=False)

    def load_base(self, device: str = "cpu") -> Vlm:
        """Load the model to edit."""
        return Source(self.base_model, self.base_weights).load(device)

    def load_safe(self, device: str = "cpu") -> Vlm:
        """Load its Safe-CLIP fine-tune."""
        return Source(self.safe_model, self.safe_weights).load(device)

    def load_tuples(self, split: str, *, n: int = 0, seed: int = 0) -> Tuples:
        """Load the tuples of a split.

        Parameters
        ----------
        split : str
            "test" to measure on, "train" to calibrate on, or "validation".
        n : int
            How many to draw at random, all where there are fewer; 0 takes all of them in their own order.
        seed : int
            Of that draw.

        Raises
        ------
        UwmError
            See `uwmlib.load_tuples`.

        Examples
        --------
        >>> import uwmlib as uwm
        >>> len(uwm.profile("mini").load_tuples("test", n=5, seed=0))
        5
        """
        return load_tuples(self.data, split=split, n=n or None, seed=seed, at_most=True)

    def load_zero_shot(self) -> dict[str, ZeroShotSet]:
        """Load the classification sets that are at hand, by name, and print which of the paper's are not."""
        if self.drawn and not self.zero_shot:
            world = self.data if self.data in WORLDS else SECOND.name
            return {name: zero_shot_set(name, world=world) for name in self.drawn}
        data = os.environ.get("UWM_DATA", "")
        folder = self.zero_shot or (os.path.join(data, "zero_shot") if data else "")
        found = load_zero_shot(folder) if self.zero_shot or os.path.isdir(folder) else {}
        if absent := not_at_hand(found, folder or "zero_shot of $UWM_DATA, which is not set"):
            print(absent)
        return found

    def load_benign(self, split: str = "test", *, n: int = 0, seed: int = 0) -> BenignUses | None:
        """Load the benign uses of a split; None where none are named.

        Parameters
        ----------
        split, n, seed
            As for `load_tuples`.

        Raises
        ------
        UwmError
            See `uwmlib.load_benign`.

        Examples
        --------
        >>> import uwmlib as uwm
        >>> len(uwm.profile("mini").load_benign(n=5))
        5
        """
        if not self.benign:
            return None
        return load_benign(self.benign, split=split, n=n or None, seed=seed, at_most=True)

    def load_scorers(self, device: str = "cpu") -> dict[str, Any]:
        """Load `judge` and `toxicity` for `evaluate_captions`; None for one that is not named."""
        from uwmlib.captions import load_judge, load_toxicity

        return {
            "judge": load_judge(self.judge, device=device, lexicon=self.lexicon) if self.judge else None,
            "toxicity": load_toxicity(self.toxicity, device=device) if self.toxicity else None,
        }


ROWS = ("architectures", "llavas")
MODELS = ("base_model", "safe_model")
PARTS = (*MODELS, "base_weights", "safe_weights", "data", "zero_shot", "benign", "judge", "toxicity", *ROWS)
CLIP = "hf:openai/clip-vit-large-patch14"
SAFE_CLIP = "aimagelab/safeclip_vit-l_14"
LLAVA = "hf:llava-hf/llava-1.5-13b-hf"
PROFILES = {
    "mini": Profile(
        "mini",
        base_model="mini-ViT-L-14",
        safe_model="mini-Safe-CLIP",
        data="mini-visu",
        benign="mini-visu",
        architectures={
            "ViT-L14": Source("mini-ViT-L-14"),
            "ViT-B16": Source("mini-ViT-B-16"),
            "ViT-B32": Source("mini-ViT-B-32"),
            "CoCa": Source("mini-CoCa"),
            "SigLIP": Source("mini-SigLIP"),
            "Safe-CLIP": Source("mini-Safe-CLIP"),
        },
        llavas={"LLaVA": Source("mini-LLaVA"), "LLaVA+Safe-CLIP": Source("mini-LLaVA-Safe-CLIP")},
        judge="lexicon",
        toxicity="mini",
        drawn=DRAWN,
        lexicon={
            "unsafe": tuple(HAZARDS),
            "vocabulary": SECOND.words,
            "until": "next to",  # what stands beside the main shape is harmless, whatever it carries
            "name": "lexicon of the mini world's hazards around the main shape",
        },
        seeds={seed: (f"mini-ViT-L-14-seed{seed}", f"mini-Safe-CLIP-seed{seed}") for seed in (1, 2)},
    ),
    # Safe-CLIP's weights go with OpenAI's tokenizer and preprocessing. The unsafe ViSU images are withheld by their
    # authors, so there is no default for the data.
    "paper": Profile(
        "paper",
        base_model=CLIP,
        safe_model=CLIP,
        safe_weights=SAFE_CLIP,
        data="",
        architectures={
            "ViT-L14": Source(CLIP),
            "ViT-B16": Source("hf:openai/clip-vit-base-patch16"),
            "ViT-B32": Source("hf:openai/clip-vit-base-patch32"),
            "CoCa": Source("open_clip:coca_ViT-L-14", weights="mscoco_finetuned_laion2b_s13b_b90k"),
            "SigLIP": Source("hf:google/siglip-so400m-patch14-384"),
            "Safe-CLIP": Source(CLIP, weights=SAFE_CLIP),
        },
        llavas={
            "LLaVA": Source(LLAVA),
            "LLaVA+Safe-CLIP": Source(LLAVA, vision_weights=f"{SAFE_CLIP}_336"),
        },
    ),
}


def profile(name: str, **parts: str | os.PathLike | None) -> Profile:
    """Return a profile, with any of its parts replaced by one's own.

    Parameters
    ----------
    name : str
        "mini" or "paper".
    **parts : str
        `base_model`, `base_weights`, `safe_model`, `safe_weights`, `data`, `zero_shot`, `benign`, `judge`,
        `toxicity`, `architectures` or `llavas`; each replaces the profile's own choice where it is not empty. A model
        of one's own does not inherit the weights of the one that it replaces, and data of one's own do not inherit
        the benign uses.

        `architectures` and `llavas` replace models of single rows of the paper's Tables 4 and 5, as in
        "CoCa=open_clip:coca_ViT-B-32|coca.safetensors; SigLIP=hf:google/siglip-base-patch16-224": row, name, and
        after bars weights and vision weights where there are any.

    Raises
    ------
    UwmError
        If the profile, a part or a row is unknown, or "paper" is asked for without data.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> uwm.profile("mini").safe_model
    'mini-Safe-CLIP'

    A model of one's own comes without the weights that it replaces:

    >>> mine = uwm.profile("paper", data="p.jsonl", safe_model="hf:my/clip")
    >>> mine.safe_model, mine.safe_weights
    ('hf:my/clip', '')
    """
    known(name, PROFILES, "profile")
    for part in parts:
        known(part, PARTS, "part of a profile")
        if not isinstance(parts[part], str | os.PathLike | None):
            raise UwmError(f"{part} is {parts[part]!r}: give text, which may be empty.")
    given: dict[str, Any] = {part: os.fspath(value) for part, value in parts.items() if value}
    for model in MODELS:
        if model in given:
            given.setdefault(model.replace("_model", "_weights"), "")
    if given.get("data", PROFILES[name].data) != PROFILES[name].data:
        given.setdefault("benign", "")
    own = (*MODELS, *(model.replace("_model", "_weights") for model in MODELS))
    if any(given.get(part, getattr(PROFILES[name], part)) != getattr(PROFILES[name], part) for part in own):
        given["seeds"] = {}  # other seeds are of the profile's own models
    for part in ROWS:
        if part in given:
            given[part] = _with_rows(getattr(PROFILES[name], part), given[part], part)
    chosen = replace(PROFILES[name], **given)
    if not chosen.data:
        raise UwmError(
            "The profile 'paper' needs pairs of your own, because the unsafe ViSU images are withheld: "
            "pass the path of a manifest as `data`."
        )
    if chosen.judge == "lexicon" and not chosen.lexicon:
        raise UwmError(f"The profile {name!r} has no words for the judge 'lexicon': choose another judge.")
    return chosen


def profile_of(parameters: Mapping[str, Any]) -> Profile:
    """Return the profile that the parameters of a chapter name, with the parts that they replace.

    Parameters
    ----------
    parameters : mapping of str to value
        As `uwmlib.checked_parameters` returns them: `profile`, and any parts of one (see `profile`) among others.

    Raises
    ------
    UwmError
        See `profile`.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> given = {"profile": "mini", "base_model": "mini-ViT-B-32", "tau": 0.02}
    >>> uwm.profile_of(given).base_model
    'mini-ViT-B-32'
    """
    if not isinstance(parameters, Mapping) or "profile" not in parameters:
        raise UwmError(f"The parameters are {shown(parameters)}: give a dict in which 'profile' is named.")
    return profile(parameters["profile"], **{part: parameters[part] for part in PARTS if part in parameters})


def _with_rows(rows: Mapping[str, Source], text: str, part: str) -> dict[str, Source]:
    """Return the rows of a table with those replaced that `text` names."""
    given = [_row(line, rows, part) for line in text.split(";") if line.strip()]
    own = dict(given)
    if len(own) < len(given):
        raise UwmError(f"{part} is {text!r}, which gives a row twice: give each row one model.")
    return {row: own.get(row, source) for row, source in rows.items()}


def _row(line: str, rows: Mapping[str, Source], part: str) -> tuple[str, Source]:
    """Read "ROW=NAME|WEIGHTS|VISION_WEIGHTS", of which the last two may be left out."""
    row, _, source = (piece.strip() for piece in line.partition("="))
    fields = [piece.strip() for piece in source.split("|")]
    if not fields[0] or len(fields) > 3:
        raise UwmError(
            f"{part} holds {line.strip()!r}: write ROW=NAME or ROW=NAME|WEIGHTS, rows divided by ';'."
        )
    return known(row, rows, f"row of {part}"), Source(*fields)
