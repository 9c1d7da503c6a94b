"""Watch, or replace, what really enters a product, also where no module hook can see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.models.sites import Site, find_blocks, require_sites, weight_of
from uwmlib.options import shown

Observe = Callable[[Site, torch.Tensor], torch.Tensor | None]


@contextmanager
def capture(model: nn.Module, sites: Sequence[Site], observe: Observe) -> Iterator[None]:
    """Call `observe(site, z)` with the true input z of every site while the model's encoders run.

    Where it returns a tensor, the site's product runs with that one in place of z, so that a gate or an ablation
    can be tried without changing weights.

    `nn.MultiheadAttention` hands its weights, not its submodules, to one functional call, so a hook on its
    `out_proj` never fires (and released UWM code that relies on one silently edits nothing in CoCa). Inside
    this context such modules run the same arithmetic written out step by step; all other sites get ordinary
    hooks. Afterwards, also after an exception, the model is what it was.

    Parameters
    ----------
    model : nn.Module
    sites : sequence of Site
        At least one, no site twice. Sites of both encoders are allowed although only one encoder runs.
    observe : callable (Site, Tensor) -> Tensor or None
        z is [B, T, in], batch first, neither copied nor detached: reduce it, do not change it. None leaves the
        product as it is; a tensor of the same shape, number type and device replaces z in this product alone, not in
        others that read the same (query and key beside the value).

    Raises
    ------
    UwmError
        At the end, if a site saw no data although its encoder ran, or if none of the sites' encoders ran;
        at the start, for no or repeated sites or a model that is being captured already; while running, for
        an attention call that is not plain self-attention, or a replacement that does not fit or has no place.
    """
    sites = require_sites(sites)
    if not callable(observe):
        raise UwmError(f"The observer is {shown(observe)}: give a function of a site and its input.")
    _check_sites(model, sites)
    seen: set[Site] = set()
    ran: set[str] = set()

    def note(site: Site, z: torch.Tensor) -> torch.Tensor | None:
        seen.add(site)
        return _checked_replacement(site, z, observe(site, z))

    with ExitStack() as stack:
        for encoder in {site.encoder for site in sites}:
            first_block = find_blocks(model, encoder)[1][0]
            handle = first_block.register_forward_pre_hook(partial(_note_run, ran, encoder))
            stack.callback(handle.remove)
        attentions: dict[str, dict[str, Site]] = {}
        for site in sites:
            owner, attribute = _owner(model, site)
            if isinstance(model.get_submodule(owner), nn.MultiheadAttention):
                attentions.setdefault(owner, {})[attribute] = site
            else:
                stack.callback(_hook(model, owner, site, note).remove)
        for owner, watched in attentions.items():
            stack.enter_context(_explicit_attention(model.get_submodule(owner), watched, note))
        yield
    _check_seen(sites, seen, ran)


@contextmanager
def capture_blocks(
    model: nn.Module, encoder: str, observe: Callable[[int, torch.Tensor], None]
) -> Iterator[None]:
    """Call `observe(layer, x)` with the residual stream behind every block of an encoder while it runs.

    Parameters
    ----------
    model : nn.Module
    encoder : "text", "vision" or "language"
    observe : callable (int, Tensor) -> None
        The block's index, and x [B, T, width], batch first, neither copied nor detached.

    Raises
    ------
    UwmError
        If the model has no such encoder with plain blocks.
    """
    path, blocks = find_blocks(model, encoder)
    batch_first = _is_batch_first(model, path)

    def behind(layer: int, block: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        x = output[0] if isinstance(output, tuple) else output
        observe(layer, x if batch_first else x.transpose(0, 1))  # [B, T, width] or [T, B, width]

    with ExitStack() as stack:
        for layer, block in enumerate(blocks):
            stack.callback(block.register_forward_hook(partial(behind, layer)).remove)
        yield


def _is_batch_first(model: nn.Module, stack_path: str) -> bool:
    # open_clip transformers may run sequence first; the attribute stands on the module that holds the blocks.
    return getattr(model.get_submodule(stack_path.rpartition(".")[0]), "batch_first", True)


def _note_run(ran: set[str], encoder: str, *_: object) -> None:
    ran.add(encoder)


def _checked_replacement(site: Site, z: torch.Tensor, found: object) -> torch.Tensor | None:
    if found is not None and (not isinstance(found, torch.Tensor) or _kind(found) != _kind(z)):
        what = _kind(found) if isinstance(found, torch.Tensor) else shown(found)
        raise UwmError(
            f"The observer returned {what} for {site.name}: return None, or {_kind(z)} to replace z."
        )
    return found


def _kind(tensor: torch.Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f" ({tensor.layout})"
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}{layout}"


def _check_sites(model: nn.Module, sites: Sequence[Site]) -> None:
    if not sites:
        raise UwmError("There is no site to capture: ask for sites of the text or the vision encoder.")
    repeated = next((site for position, site in enumerate(sites) if site in sites[:position]), None)
    if repeated is not None:
        raise UwmError(f"Site {repeated.name} is asked for twice: give every site once.")
    for site in sites:
        weight_of(model, site)


def _check_seen(sites: Sequence[Site], seen: set[Site], ran: set[str]) -> None:
    for site in sites:
        if site.encoder in ran and site not in seen:
            raise UwmError(
                f"Site {site.name} saw no data although the {site.encoder} encoder ran: "
                f"the model does not call the layer of {site.parameter}, so this site cannot be scored."
            )
    if not seen:
        raise UwmError(
            f"Site {sites[0].name} saw no data: call encode_image or encode_text inside the capture."
        )


def _owner(model: nn.Module, site: Site) -> tuple[str, str]:
    """Return the path of the module whose call reads the site's weight, and the weight's name in it."""
    owner, _, attribute = site.parameter.rpartition(".")
    parent, _, child = owner.rpartition(".")
    if isinstance(model.get_submodule(parent), nn.MultiheadAttention):
        return parent, f"{child}.{attribute}"
    return owner, attribute


def _hook(model: nn.Module, owner: str, site: Site, note: Observe) -> torch.utils.hooks.RemovableHandle:
    """Hook a module whose only argument is the site's input."""
    batch_first = _is_batch_first(model, find_blocks(model, site.encoder)[0])

    def observed(inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        z = inputs[0]
        found = note(site, z if batch_first else z.transpose(0, 1))  # [B, T, in] or [T, B, in] -> [B, T, in]
        return found if found is None or batch_first else found.transpose(0, 1)

    def before(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
        found = observed(inputs)
        if found is not None and site.rows is not None:
            raise UwmError(
                f"The input of {site.name} cannot be replaced, because a {type(module).__name__} shares it between "
                f"query, key and value: return None."
            )
        return found

    def behind(module: nn.Linear, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        found = observed(inputs)
        return output if found is None else _with_rows(output, found, module.weight, module.bias, site.rows)

    module = model.get_submodule(owner)
    if site.rows is not None and isinstance(module, nn.Linear):
        return module.register_forward_hook(behind)  # the other rows of a stacked weight keep their input
    return module.register_forward_pre_hook(before)


def _with_rows(
    output: torch.Tensor,
    z: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    rows: tuple[int, int],
) -> torch.Tensor:
    """Return the output [..., out] of a stacked product with z [..., in] in place of its input for some rows."""
    first, behind = rows
    anew = F.linear(z, weight[first:behind], None if bias is None else bias[first:behind])
    return torch.cat([output[..., :first], anew, output[..., behind:]], dim=-1)


@contextmanager
def _explicit_attention(
    attention: nn.MultiheadAttention, watched: dict[str, Site], note: Observe
) -> Iterator[None]:
    """Give one attention module a `forward` of its own that shows the inputs of its two products."""
    if "forward" in vars(attention):
        raise UwmError(
            "The model is being captured already: leave the outer capture before you enter another."
        )
    if not attention._qkv_same_embed_dim or attention.bias_k is not None or attention.add_zero_attn:
        raise UwmError("Attention with separate key or value widths or added key biases cannot be captured.")
    attention.forward = partial(_attend, attention, watched, note)
    try:
        yield
    finally:
        del attention.forward


def _attend(
    attention: nn.MultiheadAttention,
    watched: dict[str, Site],
    note: Observe,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_padding_mask: torch.Tensor | None = None,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, None]:
    """Multi-head self-attention step by step; the signature is that of `nn.MultiheadAttention.forward`."""
    if key is not query or value is not query or query.ndim != 3:
        raise UwmError(
            "Only batched self-attention can be captured, not attention with other keys or values."
        )
    if key_padding_mask is not None or need_weights or (is_causal and attn_mask is None):
        raise UwmError(
            "Attention with a key padding mask, returned weights or an implied mask cannot be captured."
        )
    x = query if attention.batch_first else query.transpose(0, 1)  # -> [B, T, D]
    batch, length, width = x.shape
    heads = attention.num_heads
    stacked = attention.in_proj_weight, attention.in_proj_bias
    projected = F.linear(x, *stacked)
    site = watched.get("in_proj_weight")
    if site is not None and (found := note(site, x)) is not None:
        projected = _with_rows(projected, found, *stacked, site.rows)
    # [B, T, 3 D] -> three of [B, heads, T, D / heads]
    q, k, v = projected.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=_mask_of(attn_mask, batch, heads),
        dropout_p=attention.dropout if attention.training else 0.0,
    )
    z = mixed.transpose(1, 2).reshape(batch, length, width)  # [B, heads, T, D / heads] -> [B, T, D]
    site = watched.get("out_proj.weight")
    if site is not None and (found := note(site, z)) is not None:
        z = found
    out = F.linear(z, attention.out_proj.weight, attention.out_proj.bias)
    return out if attention.batch_first else out.transpose(0, 1), None


def _mask_of(mask: torch.Tensor | None, batch: int, heads: int) -> torch.Tensor | None:
    """Turn a mask of `nn.MultiheadAttention` into one of `scaled_dot_product_attention`."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = ~mask  # True forbids in the former and allows in the latter
    # [T, T] broadcasts as it is; [B * heads, T, T] -> [B, heads, T, T]
    return mask if mask.ndim == 2 else mask.view(batch, heads, *mask.shape[1:])
