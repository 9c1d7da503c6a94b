"""Where a model's weights can be scored and edited: four products in every transformer block."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models.families import Layout, family_of
from uwmlib.options import as_list, known, shown

KINDS = ("fc1", "fc2", "value", "out")

# Names of the same layers elsewhere, so that a reader of the released code is pointed to ours.
_OTHER_NAMES = {
    "out_proj": "out",
    "v_proj": "value",
    "o_proj": "out",
    "c_fc": "fc1",
    "c_proj": "fc2",
    "up_proj": "fc1",
    "down_proj": "fc2",
    "proj": "out",
    "qkv": "value",
}


@dataclass(frozen=True)
class Site:
    """One matrix product `z @ W.T` inside an encoder.

    Attributes
    ----------
    encoder : "text", "vision" or "language"
        The last is LLaVA's language model, which reads image and question and answers in words.
    layer : int
        Index of the transformer block, from the input.
    kind : "fc1", "fc2", "value" or "out"
        First and second layer of the MLP, value and output projection of the attention.
    parameter : str
        Dotted name in `model.named_parameters()`.
    rows : (int, int) or None
        The rows of that parameter which are W, where it stacks query, key and value; None for all of them.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> site = vlm.sites(vision="fc2")[3]
    >>> site.name
    'vision.3.fc2'
    >>> site.parameter
    'visual.transformer.resblocks.3.mlp.c_proj.weight'
    >>> vlm.weight(site).shape
    torch.Size([128, 512])
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
        Of one of the families in `uwmlib.models.families`.
    encoder : "text", "vision" or "language"
    kinds : sequence of str
        Out of `KINDS`; the order is kept inside each block.

    Raises
    ------
    UwmError
        If the model has no such encoder, or it is no transformer of its family's layout.
    """
    path, blocks = find_blocks(model, encoder)
    layout = family_of(model).blocks[encoder][path]
    sites = []
    for layer, block in enumerate(blocks):
        shapes = {name: parameter.shape for name, parameter in block.named_parameters()}
        _require_plain(layout, block, shapes, f"Block {layer} of the {encoder} encoder")
        for kind in kinds:
            parameter = getattr(layout, kind)
            rows = _value_rows(shapes[parameter][0]) if kind == "value" and layout.stacked else None
            sites.append(Site(encoder, layer, kind, f"{path}.{layer}.{parameter}", rows))
    return sites


def find_blocks(model: nn.Module, encoder: str) -> tuple[str, nn.Module]:
    """Return the dotted path and the module list of an encoder's transformer blocks, or raise UwmError."""
    for path in family_of(model).blocks.get(encoder, ()):
        try:
            return path, model.get_submodule(path)
        except AttributeError:
            continue
    tower = getattr(model, "visual", None) if encoder == "vision" else None
    tower = getattr(tower, "trunk", tower)
    found = "" if tower is None else f", it has a {type(tower).__name__}"
    raise UwmError(
        f"{type(model).__name__} has no {encoder} transformer with plain blocks{found}, and so no {encoder} sites "
        f"to score or edit; what it embeds can still be measured."
    )


def _require_plain(layout: Layout, block: nn.Module, names: Container[str], what: str) -> None:
    lacking = next((name for kind in KINDS if (name := getattr(layout, kind)) not in names), None)
    if lacking is not None:
        raise UwmError(
            f"{what}, a {type(block).__name__}, is no plain one (it has no {lacking}), and so has no sites to score "
            f"or edit; what the model embeds can still be measured."
        )


def encoders_of(sites: Sequence[Site]) -> list[str]:
    """Return the encoders that sites are in, each once."""
    return list(dict.fromkeys(site.encoder for site in sites))


def require_sites(sites: object) -> list[Site]:
    """Return several sites as a list; UwmError for one alone, or what is none, most often its name."""
    listed = list(sites) if isinstance(sites, Iterable) else [sites]
    wrong = next((site for site in listed if not isinstance(site, Site)), None)
    if wrong is not None or not isinstance(sites, Iterable):
        raise UwmError(
            f"The sites are {shown(sites)}: give a list of sites, as vlm.sites(vision='fc2') does."
        )
    return listed


def weight_of(model: nn.Module, site: Site) -> torch.Tensor:
    """Return the live weight [out, in] of a site: the parameter itself or a view of its rows."""
    require_sites([site])
    try:
        parameter = model.get_parameter(site.parameter)
    except AttributeError as error:
        raise UwmError(f"The model has no parameter {site.parameter}: take sites from this model.") from error
    first, behind = site.rows or (0, 1)
    if parameter.ndim != 2 or not 0 <= first < behind <= len(parameter):
        raise UwmError(
            f"The model's {site.parameter} {list(parameter.shape)} is no matrix with the rows of {site.name}: "
            f"take sites from this model."
        )
    return parameter if site.rows is None else parameter[slice(*site.rows)]


def _value_rows(n_rows: int) -> tuple[int, int]:
    """The last third of a stacked [query; key; value] weight."""
    return 2 * n_rows // 3, n_rows


def as_kinds(kinds: str | Sequence[str] | None) -> list[str]:
    """Return a list of kinds for None, one or several; raise UwmError naming the nearest allowed kind."""
    wanted = [known(kind, KINDS, "kind of site", elsewhere=_OTHER_NAMES) for kind in as_list(kinds)]
    return list(dict.fromkeys(wanted))
