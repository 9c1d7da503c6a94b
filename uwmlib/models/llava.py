"""LLaVA of the transformers library: a vision tower whose weights can be scored and edited, and its captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from uwmlib.cache import as_cache
from uwmlib.errors import UwmError
from uwmlib.models.pixels import Pixels
from uwmlib.models.vlm import Vlm
from uwmlib.options import check_batch_size

if TYPE_CHECKING:
    from uwmlib.cache import Cache

#: What the released evaluation asks the model.
QUESTION = "Please, provide a caption for the image."


class Llava(Vlm):
    """LLaVA behind the face of a Vlm: `score` and edits reach its vision tower, `caption` describes images.

    Parameters
    ----------
    model : LlavaForConditionalGeneration
        With a CLIP vision tower.
    name : str
    processor : LlavaProcessor
        Its chat template puts image and question into the model's own format.

    Notes
    -----
    LLaVA-1.5 reads the features *before* the tower's last block, so an edit of that block changes no caption.
    There is no text encoder to compare images with: `encode_text` and text sites raise UwmError.
    """

    def __init__(self, model: nn.Module, *, name: str, processor: Any) -> None:
        images = processor.image_processor
        side = model.config.vision_config.image_size
        super().__init__(
            model,
            name=name,
            backend="transformers",
            tokenizer=self._no_text,
            mask_rule=self._no_text,
            pixels=Pixels((side, side), tuple(images.image_mean), tuple(images.image_std), self._transform),
            image_features=self._image_features,
            text_features=self._no_text,
        )
        self.processor = processor

    @property
    def tower(self) -> nn.Module:
        """The vision tower, as a module with `embeddings` and `encoder`."""
        tower = self.model.model.vision_tower
        return getattr(tower, "vision_model", tower)

    def replace_tower(self, state: dict[str, torch.Tensor]) -> None:
        """Put the weights of another CLIP's vision tower in place of this one's (LLaVA with Safe-CLIP, Table 5).

        Raises
        ------
        UwmError
            If names or shapes differ; nothing is changed then.
        """
        ours = {key: tensor.shape for key, tensor in self.tower.state_dict().items()}
        theirs = {key: tensor.shape for key, tensor in state.items()}
        if ours != theirs:
            key = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))[0]
            raise UwmError(
                f"The vision tower does not fit {self.name} ({key} differs): take one of its size."
            )
        self.tower.load_state_dict(state)

    @torch.inference_mode()
    def caption(
        self,
        images: Any,
        *,
        question: str = QUESTION,
        max_new_tokens: int = 32,
        batch_size: int = 64,
        progress: bool = False,
        cache: Cache | PathLike | str | None = None,
    ) -> list[str]:
        """Describe images, always by the most probable next word.

        The released evaluation samples at temperature 0.2; greedy decoding gives the same captions every time.

        Parameters
        ----------
        images : uint8 array [N, H, W, 3] or ImageFiles
        question : str
        max_new_tokens : int
        batch_size : int
        progress : bool
            Show a progress bar.
        cache : Cache or the path of its folder, optional
            Where captions are looked for and kept, as ids of the language model.

        Returns
        -------
        list of str, length N
        """
        check_batch_size(batch_size)
        prompt = self._prompt(question)

        def make() -> list[list[int]]:
            starts = range(0, len(images), batch_size)
            bar = tqdm(starts, disable=not progress, desc="captions", leave=False)
            parts = [self._generate(images[s : s + batch_size], prompt, max_new_tokens) for s in bar]
            return [answer for part in parts for answer in part]

        cache = as_cache(cache)
        ids = make() if cache is None else _kept(cache, self._facts(images, prompt, max_new_tokens), make)
        answers = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    def _facts(self, images: Any, prompt: torch.Tensor, max_new_tokens: int) -> dict[str, Any]:
        from uwmlib.tuples.tuples import image_digest

        return {
            "captions": image_digest(images).hex(), "model": self.identity("captions"),
            "prompt": prompt.tolist(), "max_new_tokens": max_new_tokens,
            "pad": self.processor.tokenizer.pad_token_id,
        }  # fmt: skip

    def _probe(self, part: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        if part != "captions":
            return super()._probe(part)
        pixels, ids = self.pixels.probe(), self._prompt(QUESTION)
        answer = self.model(
            input_ids=ids.to(self.device), pixel_values=pixels[:1].to(self.device, self.dtype),
            attention_mask=torch.ones_like(ids, device=self.device),
        )  # fmt: skip
        return {"pixels": pixels, "ids": ids}, answer.logits[:, -1]  # [1, L, V] -> [1, V]

    def _prompt(self, question: str) -> torch.Tensor:
        """Return the ids [1, L] of the question about one image, its placeholder repeated for every patch."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        blank = Image.new("RGB", self.pixels.size)
        return self.processor(text=text, images=blank, return_tensors="pt").input_ids

    def _generate(
        self, images: np.ndarray | Sequence[Image.Image], prompt: torch.Tensor, max_new_tokens: int
    ) -> list[list[int]]:
        """Return the ids that answer each image; after the end of an answer only padding follows."""
        pixels = self.preprocess(images).to(self.device, self.dtype)
        ids = prompt.to(self.device).expand(len(pixels), -1)  # [1, L] -> [B, L]
        out = self.model.generate(
            input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=max_new_tokens, pad_token_id=self.processor.tokenizer.pad_token_id,
        )  # fmt: skip
        return out[:, ids.shape[1] :].tolist()

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.tower(pixel_values=pixels).pooler_output

    def _transform(self, image: Image.Image) -> torch.Tensor:
        return self.processor.image_processor(images=image, return_tensors="pt").pixel_values[0]

    def _no_text(self, *_: Any) -> NoReturn:
        raise UwmError(f"{self.name} has no text encoder: use its vision sites, or caption images with it.")


def _kept(cache: Cache, facts: dict[str, Any], make: Callable[[], list[list[int]]]) -> list[list[int]]:
    """Keep lists of ids in a cache of tensors, as the bytes of their JSON."""

    def as_tensor() -> dict[str, torch.Tensor]:
        return {"json": torch.frombuffer(bytearray(json.dumps(make()).encode()), dtype=torch.uint8)}

    return json.loads(bytes(cache.tensors(facts, as_tensor)["json"].tolist()).decode())


def tower_from_open_clip(visual: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of open_clip's vision transformer under the names of transformers' CLIP tower.

    Parameters
    ----------
    visual : open_clip VisionTransformer
        With a class token, without bias in the patch embedding, as CLIP has it.
    """
    theirs = visual.state_dict()
    renamed = {
        "embeddings.class_embedding": theirs["class_embedding"],
        "embeddings.patch_embedding.weight": theirs["conv1.weight"],
        "embeddings.position_embedding.weight": theirs["positional_embedding"],
    }
    for part in ("weight", "bias"):
        renamed[f"pre_layrnorm.{part}"] = theirs[f"ln_pre.{part}"]
        renamed[f"post_layernorm.{part}"] = theirs[f"ln_post.{part}"]
        for layer in range(len(visual.transformer.resblocks)):
            block, twin = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
            for name, other in _BLOCK.items():
                renamed[f"{twin}.{other}.{part}"] = theirs[f"{block}.{name}.{part}"]
            stacked = theirs[f"{block}.attn.in_proj_{part}"].chunk(3)  # [3 D, ...] -> three of [D, ...]
            for name, tensor in zip("qkv", stacked, strict=True):
                renamed[f"{twin}.self_attn.{name}_proj.{part}"] = tensor.clone()
    return renamed


_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
