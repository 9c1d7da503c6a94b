"""Judges, toxicity and overlap of captions: by hand, against other libraries, and over a real local server."""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import uwmlib as uwm
from uwmlib import captions
from uwmlib.captions import overlap, toxicity
from uwmlib.captions.judges import CausalLmJudge, EndpointJudge
from uwmlib.captions.opinions import QUESTION, Opinion, parse_yes_or_no
from uwmlib.captions.replay import read_record

SAFE, UNSAFE, UNPARSED = Opinion.SAFE, Opinion.UNSAFE, Opinion.UNPARSED


@pytest.fixture(scope="module")
def tuples():
    return uwm.load_tuples("mini-visu", split="test", n=300)


def mini_lexicon():
    return uwm.profile("mini").load_scorers()["judge"]


def test_lexicon_is_exact_on_the_mini_world(tuples):
    judge = mini_lexicon()
    assert set(judge.judge(tuples.unsafe_texts)) == {UNSAFE}
    assert set(judge.judge(tuples.safe_texts)) == {SAFE}


def test_lexicon_reads_whole_words_and_says_when_it_reads_none():
    judge = mini_lexicon()
    texts = ["a red ring in Smoke!", "a red smokestack", "thinking", "", "xyzzy", "ink"]
    assert judge.judge(texts) == [UNSAFE, SAFE, UNPARSED, UNPARSED, UNPARSED, UNSAFE]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("Yes", UNSAFE), ("unsafe, because", UNPARSED), (" **No**.", SAFE), ("safe", SAFE), ("", UNPARSED),
     ("yesterday", UNPARSED), ("I cannot answer; no", UNPARSED), ("notable", UNPARSED)],
)  # fmt: skip
def test_answers_are_read_strictly(answer, verdict):
    assert parse_yes_or_no(answer) is verdict


class Echo(BaseHTTPRequestHandler):
    """Says yes to captions with the word bad; fails as often as told first."""

    failures = 0
    seen: list = []  # noqa: RUF012 (a server has no other place for it)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Echo.seen.append((self.path, self.headers.get("Authorization"), body))
        if Echo.failures:
            Echo.failures -= 1
            self.send_error(503)
            return
        answer = "Yes." if "bad" in body["messages"][0]["content"].split("Caption:")[1] else "No."
        content = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), Echo)
    Echo.failures, Echo.seen = 0, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_endpoint_is_asked_caption_by_caption(server, monkeypatch):
    monkeypatch.setenv("UWM_JUDGE_KEY", "secret")
    judge = captions.load_judge(f"endpoint:some-model@{server}")
    assert judge.judge(["a bad thing", "a good thing"]) == [UNSAFE, SAFE]
    path, key, body = Echo.seen[0]
    assert (path, key, body["model"], body["temperature"]) == (
        "/v1/chat/completions", "Bearer secret", "some-model", 0,
    )  # fmt: skip
    assert "some-model" in judge.name and "secret" not in judge.name


def test_endpoint_is_tried_again_and_then_given_up(server):
    judge = EndpointJudge("m", server, retries=2, pause=0.0)
    Echo.failures = 2
    assert judge.judge(["fine"]) == [SAFE] and len(Echo.seen) == 3
    Echo.failures = 3
    with pytest.raises(uwm.UwmError, match="gave no answer"):
        judge.judge(["fine"])
    with pytest.raises(uwm.UwmError, match="no address"):
        EndpointJudge("m", "localhost")


def tiny_language_model(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "</s>", "yes", "no", "perhaps"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(
        folder
    )
    config = LlamaConfig(
        vocab_size=5, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=None, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize(("word", "verdict"), [(2, UNSAFE), (3, SAFE), (4, UNPARSED)])
def test_language_model_from_a_folder_says_what_its_head_says(tmp_path, word, verdict):
    from uwmlib.torchvision_shim import import_torchvision

    import_torchvision()
    tiny_language_model(tmp_path)
    judge = captions.load_judge(f"lm:{tmp_path}")
    assert isinstance(judge, CausalLmJudge) and str(tmp_path) in judge.name
    # a head whose rows are all 0 but one, applied to a constant hidden state, always says that word
    judge.model.model.norm.weight.data.zero_()
    judge.model.lm_head = torch.nn.Linear(16, 5)
    judge.model.lm_head.weight.data.zero_()
    judge.model.lm_head.bias.data = torch.nn.functional.one_hot(torch.tensor(word), 5).float()
    assert judge.judge(["a caption", "another"]) == [verdict, verdict]


WORDS = ["<unk>", "</s>", "yes", "no", "ring", "red", "dog", "a", "caption"]
RAGGED = ["ring", "a red ring red dog", "", "dog dog", "a a a a a a a a", "red", "ring", "dog red a ring"]


def random_language_model(folder, family):
    """Save a causal language model whose next word is yes or no, depending on everything that it reads."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>").save_pretrained(
        folder
    )
    ids = {"bos_token_id": None, "eos_token_id": 1, "vocab_size": len(WORDS), "tie_word_embeddings": False}
    torch.manual_seed(3)
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **ids))
    else:
        size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(**size, max_position_embeddings=64, **ids))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.5)
    model.lm_head.weight.data[[0, 1, *range(4, len(WORDS))]] = 0.0
    model.lm_head.weight.data[3] = -model.lm_head.weight.data[2]
    model.save_pretrained(folder)
    return model.eval(), folder


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def language_model(request, tmp_path_factory):
    from uwmlib.torchvision_shim import import_torchvision

    import_torchvision()
    return random_language_model(tmp_path_factory.mktemp(request.param), request.param)


@torch.inference_mode()
def next_word(model, tokenizer, text):
    """The most probable next word, of one prompt without padding."""
    ids = torch.tensor([tokenizer(text).input_ids])
    return {2: UNSAFE, 3: SAFE}[int(model(input_ids=ids).logits[0, -1].argmax())]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_batch_is_judged_as_each_caption_by_itself(language_model, batch_size, monkeypatch):
    monkeypatch.setattr("uwmlib.captions.language_model.ANSWER_LENGTH", 1)
    model, folder = language_model
    judge = captions.load_judge(f"lm:{folder}", batch_size=batch_size)
    asked = [QUESTION.replace("{caption}", text) for text in RAGGED]
    expected = [next_word(model, judge.tokenizer, text) for text in asked]
    assert set(expected) == {SAFE, UNSAFE}
    assert judge.judge(RAGGED) == expected and judge.judge([]) == []


def test_an_answer_that_ended_is_not_continued_by_its_neighbours():
    """The padding of this batch is an ordinary word: read as part of the answer it would change it."""

    class Plain:
        pad_token_id, eos_token_id = 3, 1

        def __call__(self, text, add_special_tokens):
            return SimpleNamespace(input_ids=[5])

        def decode(self, ids, skip_special_tokens):
            return " ".join(WORDS[number] for number in ids)

    class Ended(torch.nn.Linear):
        def generate(self, ids, **options):
            return torch.cat([ids, torch.tensor([[2, 1, 3], [3, 3, 3]])], dim=1)  # yes </s> no; no no no

    assert CausalLmJudge(Ended(1, 1), Plain(), name="ended").judge(["a", "b"]) == [UNSAFE, SAFE]


@pytest.mark.parametrize("language_model", ["llama"], indirect=True)
def test_what_a_folder_adds_to_decoding_does_not_count(language_model):
    _, folder = language_model
    before = captions.load_judge(f"lm:{folder}").judge(RAGGED)
    path = folder / "generation_config.json"
    kept = path.read_text()
    habits = {"num_return_sequences": 3, "num_beams": 4, "do_sample": True, "repetition_penalty": 50.0}
    path.write_text(json.dumps(json.loads(kept) | habits))
    try:
        assert captions.load_judge(f"lm:{folder}").judge(RAGGED) == before
    finally:
        path.write_text(kept)


@pytest.mark.parametrize("language_model", ["llama"], indirect=True)
def test_a_caption_that_is_too_long_is_not_cut(language_model):
    judge = captions.load_judge(f"lm:{language_model[1]}")
    with pytest.raises(uwm.UwmError, match="reads 1 to 64: shorten the caption"):
        judge.judge(["ring", "ring " * 200])


@pytest.mark.parametrize("language_model", ["llama"], indirect=True)
def test_a_token_that_the_model_does_not_know_is_one_sentence(language_model):
    judge = captions.load_judge(f"lm:{language_model[1]}")
    judge.tokenizer.add_tokens(["unheard"])
    with pytest.raises(uwm.UwmError, match="tokenizer does not belong"):
        judge.judge(["an unheard thing"])


@pytest.mark.parametrize("language_model", ["llama"], indirect=True)
def test_the_judge_runs_where_it_is_told(language_model):
    judge = captions.load_judge(f"lm:{language_model[1]}", device="meta")
    assert {parameter.device.type for parameter in judge.model.parameters()} == {"meta"}
    with pytest.raises(uwm.UwmError, match="device 'abacus'"):
        captions.load_judge(f"lm:{language_model[1]}", device="abacus")


@pytest.mark.parametrize("language_model", ["llama"], indirect=True)
def test_verdicts_are_kept_under_all_that_they_depend_on(language_model, tmp_path, monkeypatch):
    options = {"toxicity": SimpleNamespace(name="none", score=lambda texts: np.zeros(len(texts)))}
    options |= {"cache": uwm.Cache(tmp_path)}
    judge = captions.load_judge(f"lm:{language_model[1]}")
    generate, passes = judge.model.generate, []
    judge.model.generate = lambda ids, **o: passes.append(len(ids)) or generate(ids, **o)

    def judged(**other):
        passes.clear()
        return captions.evaluate_captions(RAGGED, RAGGED, judge=judge, **options, **other).opinions

    first = judged(batch_size=3)
    assert passes == [3, 3, 1] and first == judge.judge(RAGGED)  # seven different captions, in threes
    assert judged(batch_size=2) == first and passes == []
    judge.batch_size = 1
    assert judged() == first and passes == []
    judge.batch_size = 32
    changes = [
        lambda: setattr(judge, "question", "Is {caption} bad?"),
        lambda: setattr(judge.tokenizer, "chat_template", "{{ messages[0]['content'] }} red"),
        lambda: judge.model.lm_head.weight.data.neg_(),
        lambda: judge.tokenizer.add_tokens(["unheard"]),
        lambda: setattr(judge.model.config, "initializer_range", 0.5),
        lambda: setattr(judge, "name", "another"),
        lambda: judge.model.double(),
    ]
    for change in changes:
        change()
        judged()
        assert passes == [7]
    judged()
    assert passes == []


def broken_folder(source, folder, how):
    """Copy a language model and break it; return what the message must say."""
    shutil.copytree(source, folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    if how == "pickle":
        torch.save(tensors, folder / "pytorch_model.bin")
        weights.unlink()
        return "could not be loaded"
    if how == "index":
        torch.save({"a": Harmful(str(folder / "ran"))}, folder / "pytorch_model.bin")
        weights.unlink()
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "pytorch_model.bin")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return "could not be loaded"
    if how == "code":
        (folder / "modeling.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Config: pass")
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "modeling.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        return "code of its own, which is never run"
    last = sorted(key for key in tensors if "norm" in key or "ln_f" in key)[-1]
    if how == "missing":
        del tensors[last]
    else:
        tensors[last] = tensors[last] * float("nan") if how == "nan" else torch.zeros(3)
    save_file(tensors, weights, metadata={"format": "pt"})
    return {"missing": "lacks", "nan": "NaN or infinity", "shape": "could not be loaded"}[how]


class Harmful:
    """What a pickle may bring: reading it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("how", ["pickle", "index", "code", "missing", "nan", "shape"])
def test_a_broken_or_hostile_language_model_is_one_sentence(tmp_path, monkeypatch, how):
    from uwmlib.torchvision_shim import import_torchvision

    import_torchvision()
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    tiny_language_model(tmp_path / "sound")
    message = broken_folder(tmp_path / "sound", tmp_path / "broken", how)
    with pytest.raises(uwm.UwmError, match=message) as error:
        captions.load_judge(f"lm:{tmp_path / 'broken'}")
    assert "\n" not in str(error.value) and not (tmp_path / "broken" / "ran").exists()


def test_missing_language_model_is_one_sentence(tmp_path):
    with pytest.raises(uwm.UwmError, match="could not be loaded"):
        captions.load_judge(f"lm:{tmp_path / 'nothing'}")


@pytest.mark.parametrize("name", ["lexikon", "lm:", "endpoint:model", "replay:", ""])
def test_unknown_judges_do_not_fall_back(name):
    with pytest.raises(uwm.UwmError, match="no judge"):
        captions.load_judge(name)


def test_recorded_verdicts_come_back(tmp_path):
    path = tmp_path / "said.jsonl"
    captions.write_record(path, ["a", "b", "a"], [UNSAFE, UNPARSED, UNSAFE], name="someone")
    judge = captions.load_judge(f"replay:{path}")
    assert judge.judge(["b", "a"]) == [UNPARSED, UNSAFE] and judge.name == "someone (replayed)"
    with pytest.raises(uwm.UwmError, match="no answer to 1 of 2"):
        judge.judge(["a", "c"])


def test_broken_records_are_refused(tmp_path):
    path = tmp_path / "said.jsonl"
    line = '{"caption": "a", "answer": "safe", "by": "x"}\n'
    for text, message in (
        ("[]", "Line 1"), (line + "{", "Line 2"), (line + line.replace("safe", "unsafe"), "contradicts"),
        (line + line.replace('"x"', '"y"').replace('"a"', '"b"'), "2 judges"), ("", "0 judges"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(uwm.UwmError, match=message):
            read_record(path)
    path.write_text(line.replace("safe", "fine"))
    with pytest.raises(uwm.UwmError, match="write safe, unsafe or unparsed"):
        captions.load_judge(f"replay:{path}").judge(["a"])
    with pytest.raises(uwm.UwmError, match="cannot be read"):
        read_record(tmp_path / "none.jsonl")
    with pytest.raises(uwm.UwmError, match="record one for each"):
        captions.write_record(path, ["a"], [], name="x")


def test_mini_toxicity_tells_hazards_on_captions_it_never_saw(tuples):
    scorer = captions.load_toxicity("mini")
    safe, unsafe = scorer.score(tuples.safe_texts), scorer.score(tuples.unsafe_texts)
    assert (safe < 0.5).mean() > 0.98 and (unsafe > 0.5).mean() > 0.98
    assert np.array_equal(captions.load_toxicity("mini").score(tuples.safe_texts), safe)


def test_recorded_scores_and_missing_scorers(tmp_path, monkeypatch):
    path = tmp_path / "scores.jsonl"
    captions.write_record(path, ["a", "b"], [0.25, 1], name="Perspective")
    assert captions.load_toxicity(f"replay:{path}").score(["b", "a"]).tolist() == [1.0, 0.25]
    captions.write_record(path, ["a"], [25.0], name="Perspective")
    with pytest.raises(uwm.UwmError, match="from 0 to 1"):
        captions.load_toxicity(f"replay:{path}").score(["a"])
    monkeypatch.setitem(__import__("sys").modules, "detoxify", None)
    with pytest.raises(uwm.UwmError, match="not installed"):
        captions.load_toxicity("detoxify")
    fake = SimpleNamespace(
        Detoxify=lambda *a, **k: SimpleNamespace(predict=lambda x: {"toxicity": [0.5] * len(x)})
    )
    monkeypatch.setitem(__import__("sys").modules, "detoxify", fake)
    assert captions.load_toxicity("detoxify").score(["a", "b"]).tolist() == [0.5, 0.5]
    with pytest.raises(uwm.UwmError, match="no toxicity scorer"):
        toxicity.load_toxicity("perspective")


def test_sentence_bleu_by_hand():
    # matches: words 4 of 5, pairs 3 of 4, triples 2 of 3, fours 1 of 2; the reference is one word longer
    expected = math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert overlap.sentence_bleu("a b c d x", "a b c d e f") == pytest.approx(expected)
    assert overlap.sentence_bleu("a b c d", "a b c d") == 1.0
    assert overlap.sentence_bleu("a b c", "a b c") == overlap.sentence_bleu("", "a") == 0.0
    assert overlap.sentence_bleu("a a a a a", "a a b b b") == 0.0


@pytest.mark.filterwarnings(r"ignore:\s*The hypothesis contains 0 counts:UserWarning")
def test_sentence_bleu_is_nltks_without_smoothing(tuples):
    from nltk.translate.bleu_score import sentence_bleu

    for ours, theirs in zip(tuples.safe_texts[:60], tuples.unsafe_texts[:60], strict=True):
        expected = sentence_bleu([theirs.split()], ours.split())
        expected = expected if expected > 1e-6 else 0.0  # nltk gives 1e-78 for an order without a match
        assert overlap.sentence_bleu(ours, theirs) == pytest.approx(expected, abs=1e-9)


def test_rouge_l_by_hand():
    # longest common subsequence "the cat on": 3 of 4 words, 3 of 6 of the reference
    found = overlap.rouge_l(["the cat lay on"], ["the cats sat on the mat"])
    assert found[0] == pytest.approx(2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6))


def test_meteor_by_hand_matches_words_and_stems_only():
    # 3 matches in 2 chunks, precision 3/3, recall 3/4
    mean = 1 / (0.9 / (3 / 4) + 0.1 / 1)
    found = overlap.meteor(["red rings here"], ["red ring is here"])
    assert found[0] == pytest.approx(mean * (1 - 0.5 * (2 / 3) ** 3))
    assert overlap.meteor(["car"], ["automobile"])[0] == 0.0


def test_missing_wordnet_is_an_error_and_no_fallback(monkeypatch):
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(uwm.UwmError, match="WordNet"):
        overlap.meteor(["a"], ["a"], wordnet=True)


def test_everything_together_names_who_scored(tuples):
    options = {"judge": mini_lexicon(), "toxicity": captions.load_toxicity("mini")}
    texts = [*tuples.unsafe_texts[:30], *tuples.safe_texts[30:90], *["?"] * 10]
    found = captions.evaluate_captions(texts, tuples.unsafe_texts[:100], **options)
    assert found.outcomes() == {
        "safe": 60, "unsafe": 30, "unparsed": 10, "% of all": 30.0, "% of parsed": pytest.approx(100 / 3),
    }  # fmt: skip
    assert found["nsfw"].value == 30.0 and found["nsfw"].n == 100
    assert set(found) == set(found.scorers) == {"nsfw", "toxicity", "rouge_l", "bleu", "meteor"}
    assert found["rouge_l"].items[:30].min() == 1.0 and found["bleu"].items[-10:].max() == 0.0
    corpus = captions.evaluate_captions(texts, tuples.unsafe_texts[:100], **options, bleu="sacrebleu")
    assert (
        "version" in corpus.scorers["bleu"]
        and 0 < corpus["bleu"].value < 1
        and corpus["bleu"].interval is None
    )
    with pytest.raises(uwm.UwmError, match="BLEU"):
        captions.evaluate_captions(texts, tuples.unsafe_texts[:100], **options, bleu="bleurt")
    with pytest.raises(uwm.UwmError, match="one for each"):
        captions.evaluate_captions(texts, texts[1:], **options)


@pytest.mark.parametrize(
    ("texts", "references", "message"),
    [([], [], "at least one"), (["a"], [], "one for each"), ("abc", "abc", "list of texts"),
     (None, None, "list of texts"), (["a", None], ["a", "b"], "Number 1 of the captions"),
     (["a"], [3], "Number 0 of the references"), ([b"a"], ["a"], "UTF-8"), (["\ud800"], ["a"], "UTF-8")],
)  # fmt: skip
def test_captions_that_are_no_texts_are_refused(texts, references, message):
    with pytest.raises(uwm.UwmError, match=message):
        captions.evaluate_captions(texts, references, judge=mini_lexicon(), toxicity=Half())


class Half:
    """Gives every caption the same score, or what it is told."""

    name = "half"

    def __init__(self, answer=lambda texts: np.full(len(texts), 0.5)):
        self.score = self.judge = answer


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("judge", "lexicon", "cannot judge"), ("toxicity", "mini", "cannot score"),
     ("judge", Half(lambda texts: []), "1 captions got 0 answers"),
     ("judge", Half(lambda texts: ["maybe"]), "opinion 'maybe'"),
     ("toxicity", Half(lambda texts: []), "from 0 to 1"), ("toxicity", Half(lambda texts: [np.nan]), "from 0 to 1"),
     ("toxicity", Half(lambda texts: [1.5]), "from 0 to 1"), ("toxicity", Half(lambda texts: [[0.5]]), "from 0 to 1"),
     ("batch_size", 0, "batch_size"), ("cache", 3, "give a Cache")],
)  # fmt: skip
def test_judges_and_scorers_that_answer_badly_are_named(option, value, message):
    options = {"judge": mini_lexicon(), "toxicity": Half()} | {option: value}
    with pytest.raises(uwm.UwmError, match=message):
        captions.evaluate_captions(["a"], ["a"], **options)


@pytest.mark.parametrize("bleu", ["released", "sacrebleu"])
@pytest.mark.parametrize("texts", [[""], ["a ring"], ["", "a ring"], ["狗 🐕\0", "e\u0301 {caption} {}"]])
def test_any_text_can_be_measured(texts, bleu):
    options = {"judge": mini_lexicon(), "toxicity": Half(), "bleu": bleu}
    found = captions.evaluate_captions(np.array(texts), texts[::-1], **options)
    assert len(found.opinions) == found["toxicity"].n == len(texts)
    assert all(np.isfinite(score.value) for score in found.values())


def test_equal_captions_are_asked_about_once_and_in_batches():
    seen = []
    asked = Half(lambda texts: seen.append(list(texts)) or [0.1 * len(text) for text in texts])
    texts = ["a", "bb", "a", "ccc", "bb", "dddd", "a"]
    found = captions.evaluate_captions(texts, texts, judge=mini_lexicon(), toxicity=asked, batch_size=3)
    assert seen == [["a", "bb", "ccc"], ["dddd"]]
    assert found["toxicity"].items == pytest.approx([10.0 * len(text) for text in texts])


def fake_detoxify(monkeypatch, make):
    monkeypatch.setitem(__import__("sys").modules, "detoxify", SimpleNamespace(Detoxify=make))
    monkeypatch.setattr(toxicity.metadata, "version", lambda package: "1.0")


def test_detoxify_runs_on_its_device_in_batches_and_is_kept(tmp_path, monkeypatch):
    seen = []

    class Detoxify:
        def __init__(self, kind, device):
            self.device, self.model = device, torch.nn.Linear(1, 1)

        def predict(self, texts):
            seen.append(list(texts))
            return {"toxicity": [len(text) / 10 for text in texts]}

    fake_detoxify(monkeypatch, Detoxify)
    scorer = captions.load_toxicity("detoxify", device="meta", batch_size=2)
    assert scorer.facts()["device"] == "meta"
    assert scorer.score(["a", "bb", "ccc"]).tolist() == [0.1, 0.2, 0.3] and seen == [["a", "bb"], ["ccc"]]
    assert scorer.score([]).shape == (0,)
    cache = uwm.Cache(tmp_path)
    for _ in range(2):
        seen.clear()
        found = captions.evaluate_captions(
            ["a", "bb", "a"], ["r"] * 3, judge=mini_lexicon(), toxicity=scorer, cache=cache
        )
        assert found["toxicity"].items == pytest.approx([10.0, 20.0, 10.0])
    assert seen == []
    scorer._model.model.weight.data.add_(1)
    captions.evaluate_captions(["a"], ["r"], judge=mini_lexicon(), toxicity=scorer, cache=cache)
    assert seen == [["a"]]
    with pytest.raises(uwm.UwmError, match="device 'abacus'"):
        captions.load_toxicity("detoxify", device="abacus")


def test_the_checkpoint_of_detoxify_cannot_bring_code(tmp_path, monkeypatch):
    torch.save({"a": Harmful(str(tmp_path / "ran"))}, tmp_path / "checkpoint")
    fake_detoxify(monkeypatch, lambda kind, device: torch.load(tmp_path / "checkpoint", weights_only=False))
    for before in (None, "0"):
        if before is not None:
            monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", before)
        with pytest.raises(uwm.UwmError, match="Detoxify could not be loaded"):
            captions.load_toxicity("detoxify")
        assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("load", [captions.load_judge, captions.load_toxicity])
@pytest.mark.parametrize("name", [None, 3, b"lexicon"])
def test_names_that_are_no_text_are_refused(load, name):
    with pytest.raises(uwm.UwmError, match="There is no"):
        load(name)


def test_outcomes_of_no_captions_are_no_numbers():
    found = captions.CaptionEvaluation([], {}, {}).outcomes()
    assert math.isnan(found["% of all"]) and math.isnan(found["% of parsed"])
