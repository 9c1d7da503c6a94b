"""Which positions of a tokenised caption carry text: one rule per family of text encoders."""

from __future__ import annotations

import torch

from uwmlib.errors import UwmError

# Padding id of SigLIP's tokenizer, for tokenizers that do not say theirs.
SIGLIP_PAD_ID = 1


def up_to_end_of_text(ids: torch.Tensor, *, end_id: int | None = None) -> torch.Tensor:
    """Mark every position up to and including the first end-of-text token (CLIP).

    Start and end tokens count, padding does not, which is the attention mask of CLIP's own tokenizer. Padding
    with zeros (open_clip) and padding with the end token itself (transformers) give the same mask.

    Parameters
    ----------
    ids : LongTensor, shape [B, L]
    end_id : int, optional
        The end token's id. By default it is the largest id of each row, as in OpenAI's vocabulary.

    Returns
    -------
    BoolTensor, shape [B, L]
        All False in a row that holds no `end_id`.
    """
    is_end = ids == (ids.amax(dim=1, keepdim=True) if end_id is None else end_id)
    ends_before = is_end.long().cumsum(dim=1) - is_end.long()
    return (ends_before == 0) & is_end.any(dim=1, keepdim=True)


def not_padding(ids: torch.Tensor, *, pad_id: int) -> torch.Tensor:
    """Mark every position whose id is not the padding id (SigLIP).

    SigLIP's end token is its padding token (id 1), so under this released rule the end token does not count.

    Parameters
    ----------
    ids : LongTensor, shape [B, L]
    pad_id : int

    Returns
    -------
    BoolTensor, shape [B, L]
    """
    return ids != pad_id


def not_padding_and_class(ids: torch.Tensor, *, pad_id: int, class_last: bool) -> torch.Tensor:
    """Mark non-padding ids, with the always valid entry for CoCa's appended class token.

    CoCa appends a class embedding, so its sequence is one longer than the ids. Its published weights were
    trained with an attention mask whose always valid entry stands in *front*, one place off; the released UWM
    code keeps that. open_clip repairs it only for models with `correct_cls_mask`.

    Parameters
    ----------
    ids : LongTensor, shape [B, L]
    pad_id : int
    class_last : bool
        Whether the always valid entry stands at the end (the model's `correct_cls_mask`).

    Returns
    -------
    BoolTensor, shape [B, L + 1]
    """
    valid = ids != pad_id
    always = valid.new_ones(len(ids), 1)
    return torch.cat([valid, always] if class_last else [always, valid], dim=1)  # [B, L] -> [B, L + 1]


def require_tokens(mask: torch.Tensor) -> None:
    """Raise UwmError naming the first row of `mask` (BoolTensor [B, T]) that marks nothing."""
    empty = ~mask.any(dim=1)
    if empty.any():
        position = int(empty.nonzero()[0])
        raise UwmError(f"Caption {position} of the batch has no token that carries text: give it some text.")
