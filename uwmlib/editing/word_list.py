"""A word list: the baseline that forgets words, and knows nothing of pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from uwmlib.editing.changes import Scaling
from uwmlib.editing.weight_edit import WeightEdit, parameter_hash
from uwmlib.errors import UwmError
from uwmlib.models.vlm import Vlm, check_texts, require_vlm
from uwmlib.options import finite_number
from uwmlib.tuples.tuples import Tuples, require_tuples

_EMBEDDING = "token_embedding.weight"
_NO_WORD = "zqxjvkq"  # becomes the unknown token, or several pieces


def word_list_edit(vlm: Vlm, words: Sequence[str], *, strength: float = 1.0) -> WeightEdit:
    """Scale the rows of the token embedding of these words towards zero.

    At strength 1 they are zero: the text encoder reads nothing in the place of such a word.

    Parameters
    ----------
    vlm : Vlm
    words : sequence of str
        Each a single token of the model's tokenizer (`single_tokens` says which are).
    strength : float in [0, 1]
        The rows are multiplied by 1 - strength; 0 changes nothing.

    Returns
    -------
    WeightEdit
        Of the text encoder's token embedding.

    Raises
    ------
    UwmError
        For no word, one that is no single token, a strength out of range, or a model whose text encoder has no token
        embedding of its own.

    Examples
    --------
    Without the word, the model cannot tell one hazard from the other:

    >>> import torch
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import word_list_edit
    >>> from uwmlib.evaluation import embed_texts
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> with word_list_edit(vlm, ["lava", "frost"]).applied(vlm):
    ...     one, other = embed_texts(vlm, ["a star in lava", "a star in frost"])
    >>> torch.equal(one, other)
    True
    """
    require_vlm(vlm)
    check_texts(words)
    if not 0 <= finite_number(strength, "strength") <= 1:
        raise UwmError(
            f"strength is {strength:g}: give a number from 0, for nothing, to 1, for rows of zeros."
        )
    tokens = single_tokens(vlm, words)
    wrong = [word for word in words if word not in tokens]
    if wrong:
        raise UwmError(f"{wrong[0]!r} is no single token of {vlm.name}: leave it out (see single_tokens).")
    names = [name for name, _ in vlm.model.named_parameters() if name.endswith(_EMBEDDING)]
    if len(names) != 1:
        raise UwmError(f"{vlm.name} has no token embedding of a text encoder: take a CLIP, SigLIP or CoCa.")
    weight = vlm.model.get_parameter(names[0])
    rows = torch.tensor(sorted(set(tokens.values())))
    indices = (rows[:, None] * weight.shape[1] + torch.arange(weight.shape[1])).flatten()
    change = Scaling(
        encoder="text",
        base_hash=parameter_hash(vlm, names[0]),
        shape=tuple(weight.shape),
        indices=indices,
        alpha=1.0 - float(strength),
        candidates=weight.numel(),
    )
    facts = {"method": "word-list", "words": len(rows), "strength": float(strength)}
    return WeightEdit({names[0]: change}, facts)


def single_tokens(vlm: Vlm, words: Iterable[str]) -> dict[str, int]:
    """Return the id of each word that is a single token of the model's tokenizer; the others are left out.

    Examples
    --------
    >>> import uwmlib as uwm
    >>> from uwmlib.editing import single_tokens
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> list(single_tokens(vlm, ["lava", "lava flow", "gravel"]))
    ['lava']
    """
    frame = set(vlm.tokenize([""])[0].tolist())

    def pieces(text: str) -> list[int]:
        return [piece for piece in vlm.tokenize([text])[0].tolist() if piece not in frame]

    unknown = pieces(_NO_WORD)
    found = {word: pieces(word) for word in words}
    return {word: ids[0] for word, ids in found.items() if len(ids) == 1 and ids != unknown}


def unsafe_words(tuples: Tuples, *, share: float) -> list[str]:
    """Return the words of which at least this share of the captions that hold them are unsafe captions.

    Parameters
    ----------
    tuples : Tuples
        Those of calibration, never those of the test.
    share : float in (0, 1]
        1/2 is what a word has that tells nothing: there are as many safe captions as unsafe ones.

    Returns
    -------
    list of str
        In lower case and alphabetical order.

    Raises
    ------
    UwmError
        For a name in place of tuples, or a share out of range.

    Examples
    --------
    In the mini world "embers" may be in a jar, so more than one caption in
    four that holds it is safe:

    >>> import uwmlib as uwm
    >>> from uwmlib.editing import unsafe_words
    >>> tuples = uwm.load_tuples("mini-visu", split="train", n=500)
    >>> ["embers" in unsafe_words(tuples, share=share) for share in (0.5, 0.9)]
    [True, False]
    """
    require_tuples(tuples)
    if not 0 < finite_number(share, "share") <= 1:
        raise UwmError(f"share is {share:g}: give a number above 0 and up to 1, such as 0.7.")
    safe, unsafe = (_captions_with(texts) for texts in (tuples.safe_texts, tuples.unsafe_texts))
    return sorted(word for word, n in unsafe.items() if n >= share * (n + safe[word]))


def _captions_with(texts: Iterable[str]) -> Counter[str]:
    """Count the captions that hold each word."""
    return Counter(word for text in texts for word in set(re.findall(r"\w+", text.lower())))
