"""What the library knows of each family of models: a new family is one more record of this kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models.tokens import SIGLIP_PAD_ID, not_padding, not_padding_and_class, up_to_end_of_text
from uwmlib.options import shown

MaskRule = Callable[[torch.Tensor], torch.Tensor]

# CLIP configurations written before transformers 4.31 give this wrong end-of-text id; the library then takes
# the largest id of the row, and so do we.
_LEGACY_END_ID = 2


@dataclass(frozen=True)
class Layout:
    """What the weight of each kind of site is called inside a transformer block.

    Attributes
    ----------
    fc1, fc2, value, out : str
        Dotted names of parameters, from the block: first and second layer of the MLP, value and output
        projection of the attention.
    stacked : bool
        Whether `value` names one weight [query; key; value], whose last third is meant.
    """

    fc1: str
    fc2: str
    value: str
    out: str
    stacked: bool = False


@dataclass(frozen=True)
class Family:
    """One family of models, as one library builds it.

    Attributes
    ----------
    name : str
        For models of transformers their `config.model_type`.
    library : str
        "open_clip", "transformers", or another.
    recognises : callable, nn.Module -> bool
        Whether a model is of this family.
    blocks : mapping of encoder to mapping of str to Layout
        Encoders are "text", "vision" and "language" (the decoder that answers in words). For each, the dotted paths
        at which its module list of blocks may stand, and the layout of the blocks there.
    heads : mapping of encoder to tuples of names
        The last layers of an encoder, from the embedding backwards to the one that it always has; for each build of
        the encoder one tuple. Those in front of the last are passed over where a model lacks them.
    mask_rule : callable (model, tokenizer) -> MaskRule, optional
        How to tell which token ids [B, L] carry text, as BoolTensor [B, T]; None where there is no text encoder.
    model_class, wrap : str
        Of models of transformers: their class there, and what makes a Vlm of one ("module:attribute").
    lowercase : bool
        Whether it was trained on captions in small letters.
    """

    name: str
    library: str
    recognises: Callable[[nn.Module], bool]
    blocks: Mapping[str, Mapping[str, Layout]]
    _: KW_ONLY
    heads: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    mask_rule: Callable[[nn.Module, Any], MaskRule] | None = None
    model_class: str = ""
    wrap: str = "uwmlib.models.transformers_backend:wrap"
    lowercase: bool = False


def register(family: Family) -> None:
    """Add a family of one's own; it is asked before the others.

    Raises
    ------
    UwmError
        If it is no Family, or its library has a family of that name already.
    """
    if not isinstance(family, Family) or not isinstance(family.name, str) or not callable(family.recognises):
        raise UwmError(
            f"{shown(family)} is no family of models: give a Family with its name and what recognises it."
        )
    if any((each.library, each.name) == (family.library, family.name) for each in FAMILIES):
        raise UwmError(f"There is a family {family.name!r} of {family.library} already: give another name.")
    FAMILIES.insert(0, family)


def family_of(model: nn.Module) -> Family:
    """Return the family of a model.

    Raises
    ------
    UwmError
        If no record recognises it.
    """
    family = next((each for each in FAMILIES if each.recognises(model)), None)
    if family is None:
        what = f" of type {_type_of(model)!r}" if _type_of(model) else ""
        raise UwmError(
            f"{type(model).__name__}{what} is of no known family: use CLIP, SigLIP, CoCa, MetaCLIP 2 or LLaVA, or "
            f"describe it with uwmlib.models.families.register."
        )
    return family


def family_named(model_type: str, *, name: str) -> Family:
    """Return the family of transformers that the configuration of the model `name` says by its `model_type`.

    Raises
    ------
    UwmError
        If there is none.
    """
    families = {family.name: family for family in FAMILIES if family.library == "transformers"}
    if model_type == "siglip2":
        raise UwmError(
            f"{name} is a SigLIP 2 with NaFlex, which reads patches of images of any size: take a SigLIP 2 of one "
            f"size, such as hf:google/siglip2-base-patch16-224."
        )
    if model_type not in families:
        raise UwmError(f"{name} is of type {model_type!r}: take a model of type {', '.join(families)}.")
    return families[model_type]


def _type_of(model: nn.Module) -> str | None:
    return getattr(getattr(model, "config", None), "model_type", None)


def _typed(model_type: str) -> Callable[[nn.Module], bool]:
    return lambda model: _type_of(model) == model_type


def _pool_of(model: nn.Module) -> str | None:
    """What the text encoder of an open_clip model pools."""
    text = getattr(model, "text", model)
    return getattr(text, "pool_type", getattr(text, "text_pool_type", None))


def _has_class_token(model: nn.Module) -> bool:
    return getattr(getattr(model, "text", model), "cls_emb", None) is not None


def _is_siglip(model: nn.Module) -> bool:
    return _pool_of(model) == "last" and getattr(model, "text", model).attn_mask is None


def _is_clip(model: nn.Module) -> bool:
    return hasattr(model, "visual") and not _has_class_token(model) and not _is_siglip(model)


def _mask_of_clip(model: nn.Module, tokenizer: Any) -> MaskRule:
    text, pool = getattr(model, "text", model), _pool_of(model)
    if pool == "argmax":
        return up_to_end_of_text
    if pool == "eos":
        return partial(up_to_end_of_text, end_id=getattr(text, "eos_id", getattr(text, "text_eos_id", None)))
    raise UwmError(
        f"No rule says which tokens of the text encoder {type(text).__name__} (pooling {pool!r}) carry text: "
        f"use a model with the text encoder of CLIP, SigLIP or CoCa."
    )


def _mask_of_siglip(model: nn.Module, tokenizer: Any) -> MaskRule:
    inner = getattr(tokenizer, "tokenizer", tokenizer)  # open_clip wraps the tokenizer of transformers
    pad_id = getattr(inner, "pad_token_id", None)
    return partial(not_padding, pad_id=SIGLIP_PAD_ID if pad_id is None else pad_id)


def _mask_of_coca(model: nn.Module, tokenizer: Any) -> MaskRule:
    text = getattr(model, "text", model)
    return partial(not_padding_and_class, pad_id=text.pad_id, class_last=text.correct_cls_mask)


def _mask_of_typed_clip(model: nn.Module, tokenizer: Any) -> MaskRule:
    end_id = model.config.text_config.eos_token_id
    return partial(up_to_end_of_text, end_id=None if end_id == _LEGACY_END_ID else end_id)


def _mask_of_metaclip_2(model: nn.Module, tokenizer: Any) -> MaskRule:
    # Its end token is truly number 2.
    return partial(up_to_end_of_text, end_id=model.config.text_config.eos_token_id)


# Both attentions of open_clip's blocks; the blocks of timm's plain ViT; of CLIP and SigLIP in transformers; of
# Llama and Mistral, whose first layer of the MLP has a gate beside it that is no site.
_OPEN_CLIP = Layout(
    "mlp.c_fc.weight", "mlp.c_proj.weight", "attn.in_proj_weight", "attn.out_proj.weight", stacked=True
)
_TIMM = Layout("mlp.fc1.weight", "mlp.fc2.weight", "attn.qkv.weight", "attn.proj.weight", stacked=True)
_TRANSFORMERS = Layout(
    "mlp.fc1.weight", "mlp.fc2.weight", "self_attn.v_proj.weight", "self_attn.out_proj.weight"
)
_LLAMA = Layout(
    "mlp.up_proj.weight", "mlp.down_proj.weight", "self_attn.v_proj.weight", "self_attn.o_proj.weight"
)

# CoCa's text decoder and the pooling heads are no part of the encoders and stay out.
_BLOCKS_OF_OPEN_CLIP = {
    "text": {"transformer.resblocks": _OPEN_CLIP, "text.transformer.resblocks": _OPEN_CLIP},
    "vision": {"visual.transformer.resblocks": _OPEN_CLIP, "visual.trunk.blocks": _TIMM},
}
_BLOCKS_OF_TRANSFORMERS = {
    "text": {"text_model.encoder.layers": _TRANSFORMERS},
    "vision": {"vision_model.encoder.layers": _TRANSFORMERS},
}
_BLOCKS_OF_LLAVA = {
    # Where the tower stands differs between versions of transformers.
    "vision": {
        "model.vision_tower.encoder.layers": _TRANSFORMERS,
        "model.vision_tower.vision_model.encoder.layers": _TRANSFORMERS,
    },
    "language": {"model.language_model.layers": _LLAMA},
}

# open_clip's CustomTextCLIP and CoCa, its CLIP; its own vision transformer, timm's.
_HEADS_OF_OPEN_CLIP = {
    "text": (("text.text_projection", "text.ln_final"), ("text_projection", "ln_final")),
    "vision": (
        ("visual.proj", "visual.attn_pool_contrastive", "visual.ln_post"),
        (
            "visual.head.pool",
            "visual.head.mlp",
            "visual.head.proj",
            "visual.trunk.head",
            "visual.trunk.fc_norm",
            "visual.trunk.attn_pool.mlp.fc2",
            "visual.trunk.attn_pool.proj",
            "visual.trunk.norm",
        ),
    ),
}
_HEADS_OF_TRANSFORMERS = {
    "text": (("text_projection", "text_model.head", "text_model.final_layer_norm"),),
    "vision": (("visual_projection", "vision_model.head.mlp.fc2", "vision_model.post_layernorm"),),
}

_open_clip_family = partial(
    Family, library="open_clip", blocks=_BLOCKS_OF_OPEN_CLIP, heads=_HEADS_OF_OPEN_CLIP
)

#: The families that are known, and those that `register` added. SigLIP 2 of a fixed size is a SigLIP.
FAMILIES: list[Family] = [
    _open_clip_family("clip", recognises=_is_clip, mask_rule=_mask_of_clip),
    _open_clip_family("siglip", recognises=_is_siglip, mask_rule=_mask_of_siglip),
    _open_clip_family("coca", recognises=_has_class_token, mask_rule=_mask_of_coca),
    Family(
        "clip", "transformers", _typed("clip"), _BLOCKS_OF_TRANSFORMERS,
        heads=_HEADS_OF_TRANSFORMERS, mask_rule=_mask_of_typed_clip, model_class="CLIPModel",
    ),
    Family(
        "siglip", "transformers", _typed("siglip"), _BLOCKS_OF_TRANSFORMERS,
        heads=_HEADS_OF_TRANSFORMERS, mask_rule=_mask_of_siglip, model_class="SiglipModel", lowercase=True,
    ),
    Family(
        "metaclip_2", "transformers", _typed("metaclip_2"), _BLOCKS_OF_TRANSFORMERS,
        heads=_HEADS_OF_TRANSFORMERS, mask_rule=_mask_of_metaclip_2, model_class="MetaClip2Model",
    ),
    Family(
        "llava", "transformers", _typed("llava"), _BLOCKS_OF_LLAVA,
        model_class="LlavaForConditionalGeneration", wrap="uwmlib.models.llava:Llava",
    ),
    Family(
        "llava_next", "transformers", _typed("llava_next"), _BLOCKS_OF_LLAVA,
        model_class="LlavaNextForConditionalGeneration", wrap="uwmlib.models.llava:LlavaNext",
    ),
]  # fmt: skip
