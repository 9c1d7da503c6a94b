"""Judges, toxicity and overlap of captions: by hand, against other libraries, and over a real local server."""

from __future__ import annotations

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import uwmlib as uwm
from uwmlib import captions
from uwmlib.captions import judges, overlap, toxicity
from uwmlib.captions.judges import CausalLmJudge, EndpointJudge
from uwmlib.captions.replay import read_record
from uwmlib.captions.verdicts import Verdict, parse_yes_or_no
from uwmlib.reporting import measured

SAFE, UNSAFE, UNPARSED = Verdict.SAFE, Verdict.UNSAFE, Verdict.UNPARSED


@pytest.fixture(scope="module")
def tuples():
    return uwm.load_tuples("mini-visu", split="test", n=300)


def test_lexicon_is_exact_on_the_mini_world(tuples):
    judge = captions.load_judge("lexicon")
    assert set(judge.judge(tuples.unsafe_texts)) == {UNSAFE}
    assert set(judge.judge(tuples.safe_texts)) == {SAFE}


def test_lexicon_reads_whole_words_and_says_when_it_reads_none():
    judge = captions.load_judge("lexicon")
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
    options = {"judge": judges.LexiconJudge(), "toxicity": captions.load_toxicity("mini")}
    texts = [*tuples.unsafe_texts[:30], *tuples.safe_texts[30:90], *["?"] * 10]
    found = captions.evaluate_captions(texts, tuples.unsafe_texts[:100], **options)
    assert found.outcomes() == {
        "safe": 60, "unsafe": 30, "unparsed": 10, "% of all": 30.0, "% of parsed": pytest.approx(100 / 3),
    }  # fmt: skip
    assert measured(found, "nsfw").value == 30.0 and measured(found, "nsfw").n == 100
    assert set(found) == set(found.scorers) == {"nsfw", "toxicity", "rouge_l", "bleu", "meteor"}
    assert found["rouge_l"][:30].min() == 1.0 and found["bleu"][-10:].max() == 0.0
    corpus = captions.evaluate_captions(texts, tuples.unsafe_texts[:100], **options, bleu="sacrebleu")
    assert "version" in corpus.scorers["bleu"] and 0 < corpus["bleu"] < 1
    with pytest.raises(uwm.UwmError, match="BLEU"):
        captions.evaluate_captions(texts, tuples.unsafe_texts[:100], **options, bleu="bleurt")
    with pytest.raises(uwm.UwmError, match="one for each"):
        captions.evaluate_captions(texts, texts[1:], **options)
