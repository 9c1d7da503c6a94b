"""The two profiles that run the same notebooks: mini (everything ships) and paper (bring models and data)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from uwmlib.errors import UwmError
from uwmlib.mini.zero_shot_sets import NAMES
from uwmlib.models import Vlm, load_model
from uwmlib.options import known


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
    base, safe : str
        Names for `load_model`: the model to edit, and its Safe-CLIP fine-tune.
    base_weights, safe_weights : str
        Weights for `load_model`; empty for those that belong to the name.
    data : str
        Name or manifest path for `load_tuples`.
    zero_shot : tuple of str
        Names for `zero_shot_set`; empty where this profile has no classification sets.
    architectures : dict of str to Source
        Row of Table 4 -> the model.
    llavas : dict of str to Source
        Row of Table 5 -> the captioning model.
    """

    name: str
    base: str
    safe: str
    data: str
    zero_shot: tuple[str, ...]
    architectures: dict[str, Source]
    llavas: dict[str, Source]
    base_weights: str = ""
    safe_weights: str = ""

    def load_base(self, device: str = "cpu") -> Vlm:
        """Load the model to edit."""
        return Source(self.base, self.base_weights).load(device)

    def load_safe(self, device: str = "cpu") -> Vlm:
        """Load its Safe-CLIP fine-tune."""
        return Source(self.safe, self.safe_weights).load(device)


PARTS = ("base", "base_weights", "safe", "safe_weights", "data")
CLIP = "hf:openai/clip-vit-large-patch14"
SAFE_CLIP = "aimagelab/safeclip_vit-l_14"
LLAVA = "hf:llava-hf/llava-1.5-13b-hf"
PROFILES = {
    "mini": Profile(
        "mini",
        base="mini-ViT-L-14",
        safe="mini-Safe-CLIP",
        data="mini-visu",
        zero_shot=NAMES,
        architectures={
            "ViT-L14": Source("mini-ViT-L-14"),
            "ViT-B16": Source("mini-ViT-B-16"),
            "ViT-B32": Source("mini-ViT-B-32"),
            "CoCa": Source("mini-CoCa"),
            "SigLIP": Source("mini-SigLIP"),
            "Safe-CLIP": Source("mini-Safe-CLIP"),
        },
        llavas={"LLaVA": Source("mini-LLaVA"), "LLaVA+Safe-CLIP": Source("mini-LLaVA-Safe-CLIP")},
    ),
    # Safe-CLIP's weights go with OpenAI's tokenizer and preprocessing. The unsafe ViSU images are withheld by their
    # authors, so there is no default for the data.
    "paper": Profile(
        "paper",
        base=CLIP,
        safe=CLIP,
        safe_weights=SAFE_CLIP,
        data="",
        zero_shot=(),
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


def profile(name: str, **parts: str) -> Profile:
    """Return a profile, with any of its parts replaced by one's own.

    Parameters
    ----------
    name : str
        "mini" or "paper".
    **parts : str
        `base`, `base_weights`, `safe`, `safe_weights` or `data`; each replaces the profile's own choice where it is
        not empty. A model of one's own does not inherit the weights of the one that it replaces.

    Raises
    ------
    UwmError
        If the profile or a part is unknown, or "paper" is asked for without data.
    """
    known(name, PROFILES, "profile")
    unknown = next((part for part in parts if part not in PARTS), None)
    if unknown is not None:
        raise UwmError(f"A profile has no part {unknown!r} to replace: choose from {', '.join(PARTS)}.")
    given = {part: value for part, value in parts.items() if value}
    for model in ("base", "safe"):
        if model in given:
            given.setdefault(f"{model}_weights", "")
    chosen = replace(PROFILES[name], **given)
    if not chosen.data:
        raise UwmError(
            "The profile 'paper' needs pairs of your own, because the unsafe ViSU images are withheld: "
            "pass the path of a manifest as `data`."
        )
    return chosen
