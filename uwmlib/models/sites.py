"""Where a model's weights can be scored and edited: four products in every transformer block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import nn

from uwmlib.errors import UwmError

KINDS = ("fc1", "fc2", "value", "out")
ENCODERS = ("text", "vision")

# Where the blocks of each encoder stand: open_clip's CLIP, its CustomTextCLIP and CoCa, timm towers,
# transformers, and LLaVA's vision tower in two versions of it. CoCa's text decoder and the pooling heads are
# no part of the encoders and stay out.
_STACKS = {
    "text": ("transformer.resblocks", "text.transformer.resblocks", "text_model.encoder.layers"),
    "vision": (
        "visual.transformer.resblocks",
        "visual.trunk.blocks",
        "vision_model.encoder.layers",
        "model.vision_tower.encoder.layers",
        "model.vision_tower.vision_model.encoder.layers",
    ),
}

# The parameter of each kind inside a block: open_clip (both of its attentions), timm, transformers.
_LAYOUTS = (
    {
        "fc1": "mlp.c_fc.weight",
        "fc2": "mlp.c_proj.weight",
        "value": "attn.in_proj_weight",
        "out": "attn.out_proj.weight",
    },
    {"fc1": "mlp.fc1.weight", "fc2": "mlp.fc2.weight", "value": "attn.qkv.weight", "out": "attn.proj.weight"},
    {
        "fc1": "mlp.fc1.weight",
        "fc2": "mlp.fc2.weight",
        "value": "self_attn.v_proj.weight",
        "out": "self_attn.out_proj.weight",
    },
)

# Names of the same layers elsewhere, so that a reader of the released code is pointed to ours.
_OTHER_NAMES = {
    "out_proj": "out",
    "v_proj": "value",
    "c_fc": "fc1",
    "c_proj": "fc2",
    "proj": "out",
    "qkv": "value",
}


@dataclass(frozen=True)
class Site:
    """One matrix product `z @ W.T` inside an encoder.

    Attributes
    ----------
    encoder : "text" or "vision"
    layer : int
        Index of the transformer block, from the input.
    kind : "fc1", "fc2", "value" or "out"
        First and second layer of the MLP, value and output projection of the attention.
    parameter : str
        Dotted name in `model.named_parameters()`.
    rows : (int, int) or None
        The rows of that parameter which are W, where it stacks query, key and value; None for all of them.
    """

    encoder: str
    layer: int
    kind: str
    parameter: str
    rows: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """A short unique name such as "vision.3.fc2"."""
        return f"{self.encoder}.{self.layer}.{self.kind}"


def find_sites(model: nn.Module, encoder: str, kinds: Sequence[str]) -> list[Site]:
    """List the sites of `kinds` in one encoder, block by block.

    Parameters
    ----------
    model : nn.Module
        An open_clip CLIP, CustomTextCLIP or CoCa, or a transformers CLIPModel, SiglipModel or LLaVA.
    encoder : "text" or "vision"
    kinds : sequence of str
        Out of `KINDS`; the order is kept inside each block.

    Raises
    ------
    UwmError
        If the encoder is not a transformer of a known layout.
    """
    path, blocks = find_blocks(model, encoder)
    sites = []
    for layer, block in enumerate(blocks):
        shapes = {name: parameter.shape for name, parameter in block.named_parameters()}
        layout = next((layout for layout in _LAYOUTS if shapes.keys() >= set(layout.values())), None)
        if layout is None:
            raise UwmError(
                f"Block {layer} of the {encoder} encoder, a {type(block).__name__}, has no known layout: "
                f"use the blocks of open_clip, of timm's plain ViT, or of CLIP and SigLIP in transformers."
            )
        for kind in kinds:
            rows = _value_rows(layout[kind], shapes[layout[kind]][0]) if kind == "value" else None
            sites.append(Site(encoder, layer, kind, f"{path}.{layer}.{layout[kind]}", rows))
    return sites


def find_blocks(model: nn.Module, encoder: str) -> tuple[str, nn.Module]:
    """Return the dotted path and the module list of an encoder's transformer blocks, or raise UwmError."""
    for path in _STACKS[encoder]:
        try:
            return path, model.get_submodule(path)
        except AttributeError:
            continue
    raise UwmError(
        f"{type(model).__name__} has no {encoder} transformer of a known kind and so no {encoder} sites: "
        f"use CLIP, SigLIP or CoCa with transformer encoders."
    )


def weight_of(model: nn.Module, site: Site) -> torch.Tensor:
    """Return the live weight [out, in] of a site: the parameter itself or a view of its rows."""
    try:
        parameter = model.get_parameter(site.parameter)
    except AttributeError as error:
        raise UwmError(f"The model has no parameter {site.parameter}: take sites from this model.") from error
    return parameter if site.rows is None else parameter[slice(*site.rows)]


def _value_rows(parameter: str, n_rows: int) -> tuple[int, int] | None:
    """The last third of a stacked [query; key; value] weight; None for a value weight of its own."""
    if parameter.endswith(("in_proj_weight", "qkv.weight")):
        return 2 * n_rows // 3, n_rows
    return None


def as_kinds(kinds: str | Sequence[str] | None) -> list[str]:
    """Return a list of kinds for None, one or several; raise UwmError naming the nearest allowed kind."""
    several = isinstance(kinds, Iterable) and not isinstance(kinds, str)
    wanted = [] if kinds is None else list(kinds) if several else [kinds]
    for kind in wanted:
        if kind not in KINDS:
            near = (
                [_OTHER_NAMES[kind]]
                if kind in _OTHER_NAMES
                else get_close_matches(str(kind), KINDS, n=1, cutoff=0)
            )
            raise UwmError(
                f"There is no kind of site {kind!r}: choose from {', '.join(KINDS)} (nearest: {near[0]})."
            )
    return list(dict.fromkeys(wanted))
