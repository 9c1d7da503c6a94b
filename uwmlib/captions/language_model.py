"""A causal language model of transformers as a judge, on any device and in batches."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uwmlib.cache import code_hash
from uwmlib.captions.opinions import (
    ANSWER_LENGTH,
    QUESTION,
    Opinion,
    asked,
    parse_yes_or_no,
    require_question,
)
from uwmlib.errors import UwmError
from uwmlib.files import sha256_of_tensors
from uwmlib.models.loading import checked_device
from uwmlib.models.pretrained import load_part, load_whole
from uwmlib.options import check_batch_size


class CausalLmJudge:
    """A causal language model of transformers that is asked about each caption by itself.

    Parameters
    ----------
    model : causal language model
    tokenizer : transformers tokenizer
        Its chat template is used if it has one.
    name : str
    question : str
        With `{caption}` in it.
    batch_size : int
        Captions in one pass of the model; prompts of a batch are padded on the left, and padding is masked.

    Notes
    -----
    Decoding is greedy and the answer is read strictly (`parse_yes_or_no`): a model that refuses to answer, as
    chat models do when a caption is bad enough, is counted as unparsed and not as safe.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, name: str, question: str = QUESTION, batch_size: int = 32
    ) -> None:
        require_question(question)
        check_batch_size(batch_size)
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.question, self.batch_size = question, batch_size

    @classmethod
    def load(cls, source: str, *, device: str | torch.device = "cpu", batch_size: int = 32) -> CausalLmJudge:
        """Load a model by its folder or hub id; weights must be safetensors, and its own code is never run."""
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        place, name = checked_device(device), f"The judge {source}"
        # Language models are often saved with heads for other uses beside the one that is wanted here.
        model = load_whole(AutoModelForCausalLM, source, name=name, extra=True).to(place)
        tokenizer = load_part(AutoTokenizer, source, name=name)
        # What a folder adds to decoding (penalties for repetition, sampling, beams) would not be greedy.
        ends = model.generation_config.eos_token_id
        model.generation_config = GenerationConfig(eos_token_id=ends)
        return cls(model, tokenizer, name=f"language model {source}", batch_size=batch_size)

    def facts(self) -> dict[str, Any]:
        """Return everything but the caption that an opinion depends on."""
        return {
            "judge": self.name, "weights": sha256_of_tensors(self.model.state_dict()),
            "config": self.model.config.to_json_string(use_diff=False),
            "generation": self.model.generation_config.to_json_string(use_diff=False),
            "tokenizer": _tokenizer_hash(self.tokenizer), "question": self.question,
            "device": self._device.type, "dtype": str(next(self.model.parameters()).dtype),
            "code": code_hash("captions/language_model.py", "captions/opinions.py"),
        }  # fmt: skip

    @torch.inference_mode()
    def judge(self, captions: Sequence[str]) -> list[Opinion]:
        """Return one opinion a caption; UwmError for one that is too long for the model."""
        starts = range(0, len(captions), self.batch_size)
        parts = [self._answers(captions[start : start + self.batch_size]) for start in starts]
        return [parse_yes_or_no(answer) for part in parts for answer in part]

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _answers(self, captions: Sequence[str]) -> list[str]:
        prompts = [self._prompt(caption) for caption in captions]
        longest = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        pad = self.tokenizer.eos_token_id or 0 if pad is None else pad
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        out = self.model.generate(
            ids.to(self._device), attention_mask=mask.to(self._device), do_sample=False, num_beams=1,
            max_new_tokens=ANSWER_LENGTH, pad_token_id=pad,
        )  # fmt: skip
        return [self._text(row) for row in out[:, longest:].tolist()]

    def _prompt(self, caption: str) -> list[int]:
        text = asked(self.question, caption)
        chat = bool(getattr(self.tokenizer, "chat_template", None))
        if chat:
            turn = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        # A template writes its own start of text; a second one would be a prompt that no model was trained on.
        ids = list(self.tokenizer(text, add_special_tokens=not chat).input_ids)
        room = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        if not ids or (room and len(ids) + ANSWER_LENGTH > room):
            raise UwmError(
                f"The question about the caption {caption[:40]!r} has {len(ids)} tokens and {self.name} reads "
                f"1 to {room}: shorten the caption, or take another judge."
            )
        rows = getattr(getattr(self.model, "config", None), "vocab_size", None)
        if rows and max(ids) >= rows:
            raise UwmError(
                f"The tokenizer does not belong to {self.name}: it has token {max(ids)} of {rows}."
            )
        return ids

    def _text(self, ids: list[int]) -> str:
        # In a batch an answer that has ended is filled up, with what need not be a special token.
        ends = getattr(getattr(self.model, "generation_config", None), "eos_token_id", None)
        ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        return self.tokenizer.decode(ids[:length], skip_special_tokens=True)


def _tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 over everything that a tokenizer saves: vocabulary, merges, special tokens, template."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
