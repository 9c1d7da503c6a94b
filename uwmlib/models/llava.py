"""LLaVA of the transformers library: a vision tower whose weights can be scored and edited, and its captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence, Sized
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from uwmlib.cache import as_cache
from uwmlib.errors import UwmError
from uwmlib.models.pixels import Pixels, as_pictures, image_digest
from uwmlib.models.vlm import Vlm, check_texts
from uwmlib.options import check_batch_size, flaw_of_text, shown, whole_number

if TYPE_CHECKING:
    from uwmlib.cache import Cache

#: What the released evaluation asks the model.
QUESTION = "Please, provide a caption for the image."


class Llava(Vlm):
    """LLaVA-1.5 behind the face of a Vlm: edits reach its vision tower and its language model.

    `score` scores the vision tower, `caption` describes images, and `log_prob` says how probable captions are.

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
    There is no text encoder to compare images with: `encode_text` and text sites raise UwmError. The language model
    has sites of its own, `sites(language=...)`.
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
        whole_number(max_new_tokens, "max_new_tokens")
        _check_some(images)
        prompt = self._prompt(question)

        def make() -> list[list[int]]:
            starts = range(0, len(images), batch_size)
            bar = tqdm(starts, disable=not progress, desc="captions", leave=False)
            parts = [
                self._generate(self._inputs(images[s : s + batch_size], prompt), max_new_tokens) for s in bar
            ]
            return [answer for part in parts for answer in part]

        cache = as_cache(cache)
        ids = make() if cache is None else _kept(cache, self._facts(images, prompt, max_new_tokens), make)
        answers = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    def log_prob(
        self, images: Any, captions: Sequence[str], *, question: str = QUESTION, batch_size: int = 64
    ) -> torch.Tensor:
        """Return the log-probability of each caption as the answer to a question about its image.

        For the tokens c_1 ... c_m of a caption and the end token c_{m+1},
        log p = sum_i log p(c_i | image, question, c_1 ... c_{i-1}).

        Parameters
        ----------
        images : uint8 array [N, H, W, 3] or ImageFiles
        captions : sequence of str, length N
            Each is tokenised by itself.
        question : str
        batch_size : int
            Changes nothing but rounding.

        Returns
        -------
        FloatTensor, shape [N], on the model's device
            At most 0. Gradients flow unless the caller switches them off: use `torch.inference_mode()` where none
            are wanted.

        Raises
        ------
        UwmError
            If there are not as many captions as images, or one has no token, the image's placeholder among them or
            more tokens than the model reads, or a question that is no text.
        """
        check_batch_size(batch_size)
        check_texts(captions)
        _check_some(images)
        if len(images) != len(captions):
            raise UwmError(f"There are {len(images)} images and {len(captions)} captions: give one for each.")
        prompt, answers = self._prompt(question), self._answers(captions)
        parts = [
            self._log_prob(self._inputs(images[s : s + batch_size], prompt), answers[s : s + batch_size])
            for s in range(0, len(images), batch_size)
        ]
        return torch.cat(parts)

    def _answers(self, captions: Sequence[str]) -> list[torch.Tensor]:
        """Return the ids of each caption, and the end of an answer."""
        tokenizer, placeholder = self.processor.tokenizer, self.model.config.image_token_id
        answers = []
        for position, caption in enumerate(captions):
            if flaw := flaw_of_text(caption):
                raise UwmError(
                    f"Caption {position} has {flaw} ({shown(caption)}): give it some text, and text alone."
                )
            ids = tokenizer(caption, add_special_tokens=False).input_ids
            if not ids or placeholder in ids:
                flaw = "stands for an image" if ids else "has no token"
                raise UwmError(f"Caption {position} {flaw}: give it some text, and text alone.")
            answers.append(torch.tensor([*ids, tokenizer.eos_token_id]))
        return answers

    def _log_prob(self, inputs: dict[str, torch.Tensor], answers: list[torch.Tensor]) -> torch.Tensor:
        # Behind the end of a caption the end token is repeated, which any vocabulary has; none of it counts.
        end = self.processor.tokenizer.eos_token_id
        ids = pad_sequence(answers, batch_first=True, padding_value=end).to(self.device)  # [B, A]
        lengths = torch.tensor([len(answer) for answer in answers], device=self.device)
        counts = torch.arange(ids.shape[1], device=self.device) < lengths[:, None]  # [B, A]
        mask = torch.cat([inputs["attention_mask"], counts.long()], dim=1)
        given = inputs | {"input_ids": torch.cat([inputs["input_ids"], ids], dim=1), "attention_mask": mask}
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and given["input_ids"].shape[1] > most:
            raise UwmError(
                f"An image, the question and the longest caption are {given['input_ids'].shape[1]} tokens, and "
                f"{self.name} reads {most}: shorten the caption."
            )
        # Each logit is of the next token: from the question's last to the caption's last but one, [B, A, V].
        logits = self.model(**given, logits_to_keep=ids.shape[1] + 1).logits[:, :-1]
        of_token = logits.float().log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]  # [B, A]
        return of_token.where(counts, 0.0).sum(dim=1)

    def _facts(self, images: Any, prompt: str, max_new_tokens: int) -> dict[str, Any]:
        return {
            "captions": image_digest(images).hex(), "model": self.identity("captions"),
            "prompt": self.processor.tokenizer(prompt).input_ids, "max_new_tokens": max_new_tokens,
            "pad": self.processor.tokenizer.pad_token_id,
        }  # fmt: skip

    def _probe(self, part: str) -> dict[str, torch.Tensor]:
        if part not in ("captions", "language"):
            return super()._probe(part)
        prompt = self._prompt(QUESTION)
        exact, others = (self._inputs(images, prompt) for images in self.pixels.noise())
        return {f"exact.{key}": value for key, value in exact.items()} | others

    def _answer(self, part: str, probe: dict[str, torch.Tensor]) -> torch.Tensor:
        if part not in ("captions", "language"):
            return super()._answer(part, probe)
        exact = {
            key.removeprefix("exact."): value for key, value in probe.items() if key.startswith("exact.")
        }
        return self.model(**exact).logits[:, -1]  # [1, L, V] -> [1, V]

    def _prompt(self, question: str) -> str:
        """Return the question about one image in the model's own format."""
        mark = getattr(self.processor, "image_token", None) or "<image>"
        flaw = "no text" if not isinstance(question, str) else flaw_of_text(question) if question else None
        if flaw or mark in question:
            wrong = flaw or f"{mark}, which stands for an image"
            raise UwmError(f"The question {shown(question)} has {wrong}: give it text alone.")
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )

    def _inputs(self, images: np.ndarray | Sequence[Image.Image], prompt: str) -> dict[str, torch.Tensor]:
        """Return what the model reads of images and a question: ids [B, L], their mask, and pixels."""
        pixels = self.preprocess(images).to(self.device, self.dtype)
        blank = Image.new("RGB", self.pixels.size)
        ids = self.processor(text=prompt, images=blank, return_tensors="pt").input_ids
        ids = ids.to(self.device).expand(len(pixels), -1)  # [1, L] -> [B, L]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}

    def _generate(self, inputs: dict[str, torch.Tensor], max_new_tokens: int) -> list[list[int]]:
        """Return the ids that answer each image; after the end of an answer only padding follows."""
        out = self.model.generate(
            **inputs, do_sample=False, max_new_tokens=max_new_tokens,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )  # fmt: skip
        return out[:, inputs["input_ids"].shape[1] :].tolist()

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.tower(pixel_values=pixels).pooler_output

    def _transform(self, image: Image.Image) -> torch.Tensor:
        return self.processor.image_processor(images=image, return_tensors="pt").pixel_values[0]

    def _no_text(self, *_: Any) -> NoReturn:
        raise UwmError(f"{self.name} has no text encoder: use its vision sites, or caption images with it.")


class LlavaNext(Llava):
    """LLaVA-NeXT, which reads an image whole and in crops; its vision tower is scored on whole images.

    Parameters
    ----------
    model : LlavaNextForConditionalGeneration
        With a CLIP vision tower.
    name : str
    processor : LlavaNextProcessor
    """

    def _inputs(self, images: np.ndarray | Sequence[Image.Image], prompt: str) -> dict[str, torch.Tensor]:
        """Return ids [B, L] padded in front, their mask, crops [B, C, 3, H, W] and the sizes of the images [B, 2]."""
        pictures = as_pictures(images)
        read = self.processor(
            text=[prompt] * len(pictures), images=pictures, padding=True, padding_side="left", return_tensors="pt"
        )  # fmt: skip
        read["pixel_values"] = read["pixel_values"].to(self.dtype)
        names = ("input_ids", "attention_mask", "pixel_values", "image_sizes")
        return {name: read[name].to(self.device) for name in names}

    def _transform(self, image: Image.Image) -> torch.Tensor:
        return super()._transform(image)[0]  # the first of the crops is the whole image


def _check_some(images: object) -> None:
    """Raise UwmError for what is no images at all; what they are is seen as they are read."""
    if not isinstance(images, Sized) or not len(images):
        raise UwmError(f"The images are {shown(images)}: give at least one, as a uint8 array [N, H, W, 3].")


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
