"""One face for every vision-language model: tokenise, preprocess, encode, and reach into the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from uwmlib.errors import UwmError
from uwmlib.files import sha256_of_tensors
from uwmlib.models.capture import Observe, capture
from uwmlib.models.identity import architecture_hash
from uwmlib.models.pixels import Pixels
from uwmlib.models.sites import Site, as_kinds, find_blocks, find_sites, weight_of
from uwmlib.models.tokens import require_tokens

# Short and padded; longer than any context, with capitals, accents, figures and signs.
PROBE_TEXTS = ("a small red ring", "Two Dogs, a caf\u00e9 & 3 x 7 blue stars (50% off)! " * 20)


class Vlm:
    """A vision-language model with two encoders, whichever library it comes from.

    Build one with `load_model`, or from a model at hand with `open_clip_backend.wrap` and
    `transformers_backend.wrap`. The encoders do not switch gradients off: use `torch.inference_mode()`.

    Parameters
    ----------
    model : nn.Module
        Put into eval mode; `requires_grad` of its parameters is left alone.
    name : str
    backend : "open_clip" or "transformers"
    tokenizer : callable, list of str -> LongTensor [B, L]
    mask_rule : callable, LongTensor [B, L] -> BoolTensor [B, T]
    pixels : Pixels
    image_features, text_features : callable
        Pixels [B, 3, H, W] or ids [B, L] to features [B, D] before normalisation.

    Examples
    --------
    >>> import torch
    >>> import uwmlib as uwm
    >>> vlm = uwm.load_model("mini-ViT-L-14")
    >>> with torch.inference_mode():
    ...     rows = vlm.encode_text(vlm.tokenize(["a red ring", "a blue star"]))
    >>> rows.shape
    torch.Size([2, 96])
    >>> [site.name for site in vlm.sites(text="out")]
    ['text.0.out', 'text.1.out', 'text.2.out', 'text.3.out']
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        backend: str,
        tokenizer: Callable[[list[str]], torch.Tensor],
        mask_rule: Callable[[torch.Tensor], torch.Tensor],
        pixels: Pixels,
        image_features: Callable[[torch.Tensor], torch.Tensor],
        text_features: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.model = model.eval()
        self.name = name
        self.backend = backend
        self.pixels = pixels
        self._tokenizer = tokenizer
        self._mask_rule = mask_rule
        self._image_features = image_features
        self._text_features = text_features

    def __repr__(self) -> str:
        return (
            f"Vlm({self.name!r}, backend={self.backend!r}, device={str(self.device)!r}, dtype={self.dtype})"
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters are now."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the parameters now."""
        return next(self.model.parameters()).dtype

    def weights_hash(self) -> str:
        """Return the SHA-256 (64 hex digits) over all parameters and persistent buffers as they are now."""
        return sha256_of_tensors(self.model.state_dict())

    def encoder_hash(self, encoder: str) -> str:
        """Return the SHA-256 over the weights of everything but the other encoder's blocks.

        An edit of the text encoder leaves the hash of "vision" as it was. Shared and further parameters count on
        both sides, and all of them where there is no other encoder.

        Parameters
        ----------
        encoder : "text" or "vision"
        """
        tensors, other = self.model.state_dict(), self._other_blocks(encoder)
        return sha256_of_tensors(
            {key: tensors[key] for key in tensors if other is None or not key.startswith(f"{other}.")}
        )

    def identity(self, part: str) -> dict[str, str]:
        """Return everything that the model's answers depend on apart from their input, as hashes.

        An edit of the text encoder leaves the identity of "vision" as it was.

        Parameters
        ----------
        part : "text" or "vision"
            The encoder that is asked; a LLaVA also has "captions".

        Returns
        -------
        dict
            "weights", "architecture" (classes, settings, hooks), "preprocessing" (what becomes of fixed pictures
            or texts), "behaviour" (the bits that the model, as it runs here and now, makes of these) and "device".
        """
        probe = self._probe(part)
        with torch.inference_mode():
            answer = self._answer(part, probe)
        here = {"behaviour": sha256_of_tensors({"": answer}), "device": device_name(self.device)}
        return self._facts_of(part, probe) | here

    def facts(self, part: str) -> dict[str, str]:
        """Return that part of the identity which is the same on every machine, without running the model.

        Parameters
        ----------
        part : as of `identity`

        Returns
        -------
        dict
            "weights", "architecture" and "preprocessing".
        """
        return self._facts_of(part, self._probe(part))

    def tokens_hash(self, texts: Sequence[str]) -> str:
        """Return the SHA-256 over what the text encoder reads of captions: their ids, and which carry text."""
        ids = self.tokenize(texts)
        return sha256_of_tensors({"ids": ids, "mask": self._mask_rule(ids)})

    def _facts_of(self, part: str, probe: dict[str, torch.Tensor]) -> dict[str, str]:
        return {
            "weights": self.encoder_hash(part),
            "architecture": architecture_hash(self.model, without=self._other_blocks(part)),
            "preprocessing": sha256_of_tensors(probe),
        }

    def _probe(self, part: str) -> dict[str, torch.Tensor]:
        """Return fixed inputs as a part of the model reads them."""
        if part == "text":
            ids = self.tokenize(PROBE_TEXTS)
            return {"ids": ids, "mask": self._mask_rule(ids)}
        return {"pixels": self.pixels.probe()}

    def _answer(self, part: str, probe: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return what a part of the model makes of its probe."""
        return self.encode_text(probe["ids"]) if part == "text" else self.encode_image(probe["pixels"][:1])

    def _other_blocks(self, encoder: str) -> str | None:
        """Return the dotted path of the blocks that an encoder does without; None if there are none."""
        other = {"text": "vision", "vision": "text"}.get(encoder)
        try:
            return other and find_blocks(self.model, other)[0]
        except UwmError:
            return None

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Turn captions into token ids.

        Parameters
        ----------
        texts : sequence of str, at least one
            Captions longer than the model's context are cut.

        Returns
        -------
        LongTensor, shape [B, L], on the CPU

        Raises
        ------
        UwmError
            For one bare string, no captions, or something that is not a string.
        """
        check_texts(texts)
        return self._tokenizer(list(texts))

    def token_mask(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mark the positions of the text encoder's sequence that carry text as the released code does.

        CLIP: up to and including the first end token. SigLIP: ids other than the padding id 1, which is its
        end token too. CoCa: ids other than 0, and one always valid entry, in front unless the model has
        `correct_cls_mask`; its sequence is one longer than the ids.

        Parameters
        ----------
        tokens : LongTensor, shape [B, L]

        Returns
        -------
        BoolTensor, shape [B, T], on the device of `tokens`

        Raises
        ------
        UwmError
            If a caption has no token left; the message gives its position in the batch.
        """
        _check_tokens(tokens)
        mask = self._mask_rule(tokens)
        require_tokens(mask)
        return mask

    def preprocess(self, images: np.ndarray | Sequence[Image.Image]) -> torch.Tensor:
        """Turn images into the pixels the model reads.

        Arrays that have the model's size already are only scaled and normalised, all at once; everything
        else goes through the model's own pipeline (resize, centre crop) one image at a time.

        Parameters
        ----------
        images : uint8 array [B, H, W, 3], or sequence of PIL images

        Returns
        -------
        FloatTensor, shape [B, 3, H, W], float32 on the CPU

        Raises
        ------
        UwmError
            For another number type or shape, no images, or something that is not an image.
        """
        return self.pixels(images)

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed images.

        Parameters
        ----------
        pixels : FloatTensor, shape [B, 3, H, W]
            From `preprocess`; moved to the model's device and number type.

        Returns
        -------
        Tensor, shape [B, D]
            Of unit length. Gradients flow unless the caller switches them off.
        """
        return F.normalize(self.image_features(pixels), dim=-1)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what `encode_image` makes unit vectors of, [B, D]: where an edit of the embedding adds."""
        height, width = self.pixels.size
        if not isinstance(pixels, torch.Tensor):
            raise UwmError(f"Pixels must be a tensor, not {type(pixels).__name__}: use preprocess first.")
        if pixels.ndim != 4 or pixels.shape[1:] != (3, height, width) or not pixels.is_floating_point():
            raise UwmError(
                f"Pixels must be floats [B, 3, {height}, {width}], not {pixels.dtype} {list(pixels.shape)}: "
                f"use preprocess first."
            )
        return self._image_features(pixels.to(self.device, self.dtype))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed captions.

        Parameters
        ----------
        tokens : LongTensor, shape [B, L]
            From `tokenize`; moved to the model's device.

        Returns
        -------
        Tensor, shape [B, D]
            Of unit length. Gradients flow unless the caller switches them off.
        """
        return F.normalize(self.text_features(tokens), dim=-1)

    def text_features(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return what `encode_text` makes unit vectors of, [B, D]."""
        _check_tokens(tokens)
        return self._text_features(tokens.to(self.device))

    def sites(
        self,
        *,
        text: str | Sequence[str] | None = None,
        vision: str | Sequence[str] | None = None,
        language: str | Sequence[str] | None = None,
    ) -> list[Site]:
        """List the sites of the given kinds, text encoder first, block by block.

        Parameters
        ----------
        text, vision : kind, list of kinds, or None
            Out of "fc1", "fc2", "value" and "out"; None leaves an encoder out.
        language : kind, list of kinds, or None
            The same of the language model of a LLaVA, where "fc1" is `up_proj` (the gate beside it is no site), "fc2"
            `down_proj`, "value" `v_proj` and "out" `o_proj`.

        Raises
        ------
        UwmError
            For an unknown kind, no kind at all, an encoder that the model lacks, or one without plain transformer
            blocks (a ResNet, a ConvNeXt, EVA-02).
        """
        wanted = {"text": as_kinds(text), "vision": as_kinds(vision), "language": as_kinds(language)}
        if not any(wanted.values()):
            raise UwmError(
                "No kind of site is asked for: give text=..., vision=... or both, for example text='out'."
            )
        return [
            site
            for encoder, kinds in wanted.items()
            if kinds
            for site in find_sites(self.model, encoder, kinds)
        ]

    def weight(self, site: Site) -> torch.Tensor:
        """Return the live weight [out, in] of a site: the parameter itself or a view of its rows.

        Raises
        ------
        UwmError
            If the site is another model's.
        """
        return weight_of(self.model, site)

    def capture(self, sites: Sequence[Site], observe: Observe) -> AbstractContextManager[None]:
        """Call `observe(site, z)` with the true input z [B, T, in] of each site while encoding.

        A tensor that it returns is used in place of z.

        See `uwmlib.models.capture.capture` for how, and for the errors raised.

        Examples
        --------
        >>> import uwmlib as uwm
        >>> vlm = uwm.load_model("mini-ViT-L-14")
        >>> image = uwm.load_tuples("mini-visu", n=1).safe_images
        >>> def show(site, z):
        ...     print(site.name, list(z.shape))
        >>> with vlm.capture(vlm.sites(vision="fc2")[:2], show):
        ...     _ = vlm.encode_image(vlm.preprocess(image))
        vision.0.fc2 [1, 37, 512]
        vision.1.fc2 [1, 37, 512]
        """
        return capture(self.model, sites, observe)


def device_name(device: torch.device) -> str:
    """Return what a device is, whatever its number: "cpu", or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def check_texts(texts: object) -> None:
    """Raise UwmError unless `texts` is a non-empty sequence of strings; one bare string is none."""
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not len(texts):
        raise UwmError(
            f"Texts must be a non-empty list of strings, not {texts!r}: wrap one caption as [caption]."
        )
    wrong = next((position for position, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise UwmError(f"Text {wrong} must be a string, not {type(texts[wrong]).__name__}.")


def _check_tokens(tokens: torch.Tensor) -> None:
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 2 or tokens.dtype != torch.long:
        raise UwmError("Tokens must be a LongTensor [B, L]: use tokenize first.")


def require_vlm(vlm: object) -> None:
    """Raise UwmError if `vlm` is no Vlm, most often the name of one."""
    if not isinstance(vlm, Vlm):
        found = repr(vlm) if isinstance(vlm, str) else f"a {type(vlm).__name__}"
        raise UwmError(f"The model is {found}: load it by its name with load_model.")
