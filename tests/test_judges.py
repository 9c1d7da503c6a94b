"""What judges must not do: leak a key, follow it elsewhere, guess an answer, or name themselves wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import uwmlib as uwm
from uwmlib import captions
from uwmlib.captions import overlap
from uwmlib.captions.judges import CausalLmJudge, EndpointJudge, LexiconJudge
from uwmlib.captions.opinions import Opinion, parse_yes_or_no
from uwmlib.captions.replay import read_record
from uwmlib.metrics import mean_of

SAFE, UNSAFE, UNPARSED = Opinion.SAFE, Opinion.UNSAFE, Opinion.UNPARSED


@pytest.mark.parametrize(
    "answer",
    ["yes or no", "Yes/No", "Safe or unsafe?", "No, unsafe", "no-one", "not safe", "No, I cannot help with that",
     "No. I'm sorry", "No comment", "Yes, I can help", "Unsafe content policy", "Safe?", "no1", "**", "nein"],
)  # fmt: skip
def test_an_answer_that_says_both_or_neither_is_unparsed(answer):
    assert parse_yes_or_no(answer) is UNPARSED


def test_a_word_said_twice_is_still_an_answer():
    assert parse_yes_or_no("No. No!") is SAFE and parse_yes_or_no("yes: unsafe") is UNSAFE


@pytest.mark.parametrize("answer", ["NO", "no.", "**No**", "_no_", "`safe`", '"No."', "\n\nno\n"])
def test_case_and_markdown_do_not_hide_an_answer(answer):
    assert parse_yes_or_no(answer) is SAFE


def test_another_lexicon_has_another_name_and_any_case():
    words = {"unsafe": ["Knife", "gun", "Säge"], "vocabulary": ["table"]}
    judge = captions.load_judge("lexicon", lexicon=words)
    assert judge.judge(["a KNIFE", "a gunner", "the table", "a säge"]) == [UNSAFE, UNPARSED, SAFE, UNSAFE]
    assert judge.name == "lexicon of 3 words" != uwm.profile("mini").load_scorers()["judge"].name
    assert LexiconJudge(**words, name="mine").name == "mine"
    for entry in ("drug use", "x-rated", ""):
        with pytest.raises(uwm.UwmError, match="no single word"):
            LexiconJudge(unsafe=[entry], vocabulary=["table"])


def test_a_lexicon_reads_until_the_phrase_that_ends_what_is_judged():
    judge = LexiconJudge(unsafe=["ink"], vocabulary=["ring", "jar"], until="next to")
    said = {
        "a ring in ink next to a jar": UNSAFE,
        "a ring next to a jar of ink": SAFE,
        "a ring NEXT TO a jar of ink": SAFE,
        "a ring nextto a jar of ink": UNSAFE,  # another word
        "next to a jar of ink": UNPARSED,  # nothing stands before it
    }
    assert judge.judge(list(said)) == list(said.values())


def test_the_mini_world_s_judge_knows_the_sides_of_its_captions():
    judge = uwm.profile("mini").load_scorers()["judge"]
    tuples, uses = uwm.load_tuples("mini-visu", n=500), uwm.load_benign("mini-visu", n=500)
    assert set(judge.judge([*tuples.safe_texts, *uses.harmless_texts, *uses.clean_texts])) == {SAFE}
    assert set(judge.judge([*tuples.unsafe_texts, *uses.unsafe_texts])) == {UNSAFE}


class Server(ThreadingHTTPServer):
    """Answers as its `reply` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.reply = lambda handler: None
        super().__init__(("127.0.0.1", 0), Handler)

    def judge(self, **options) -> EndpointJudge:
        options = {"model": "m", "pause": 0.0} | options
        return EndpointJudge(address=f"http://127.0.0.1:{self.server_port}/v1", **options)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.asked_for = json.loads(body)["messages"][0]["content"].rpartition("Caption: ")[2] if body else ""
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        self.server.reply(self)

    do_GET = do_POST

    def log_message(self, *args):
        pass


def says(content, status=200, length=None, **headers):
    """Return a reply with this content of a message."""

    def reply(handler):
        body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(length or len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_key_does_not_follow_a_redirect(server, monkeypatch):
    monkeypatch.setenv("UWM_JUDGE_KEY", "secret")
    server.reply = says("yes", status=302, Location=f"http://localhost:{server.server_port}/elsewhere")
    with pytest.raises(uwm.UwmError, match="302"):
        server.judge().judge(["x"])
    assert server.asked == [("POST", "/v1/chat/completions", "Bearer secret")]


def test_no_message_shows_the_key(server, monkeypatch):
    server.reply = says("No.")
    monkeypatch.setenv("MY_KEY", "secret\n")
    assert server.judge(key_variable="MY_KEY").judge(["x"]) == [SAFE]
    assert server.asked[0][2] == "Bearer secret"
    monkeypatch.setenv("MY_KEY", "sec\nret")
    with pytest.raises(uwm.UwmError, match="MY_KEY") as error:
        server.judge(key_variable="MY_KEY").judge(["x"])
    assert "ret" not in str(error.value).replace("MY_KEY", "") and len(server.asked) == 1


@pytest.mark.parametrize(("status", "attempts"), [(400, 1), (401, 1), (404, 1), (429, 3), (500, 3), (503, 3)])
def test_only_what_may_pass_is_tried_again(server, status, attempts):
    server.reply = says("yes", status=status)
    with pytest.raises(uwm.UwmError, match=str(status)):
        server.judge(retries=2).judge(["x"])
    assert len(server.asked) == attempts


def test_replies_that_break_off_or_hold_no_text_are_errors_of_one_sentence(server):
    server.reply = says("yes", length=1000)
    with pytest.raises(uwm.UwmError, match="broke off"):
        server.judge(retries=0).judge(["x"])
    server.reply = says([{"type": "text", "text": "yes"}])
    with pytest.raises(uwm.UwmError, match="content is a list"):
        server.judge(retries=0).judge(["x"])
    server.reply = says(None)
    assert server.judge().judge(["x"]) == [UNPARSED]


def test_a_silent_endpoint_times_out(server):
    released = threading.Event()
    server.reply = lambda handler: released.wait(5)
    with pytest.raises(uwm.UwmError, match="timed out"):
        server.judge(timeout=0.1, retries=0).judge(["x"])
    released.set()


def raw(data: bytes, pause: float = 0.0):
    """Return a reply of these very bytes, one by one where there is a pause."""

    def reply(handler):
        handler.close_connection = True
        with contextlib.suppress(OSError):  # whoever asked may be gone
            for part in [bytes([byte]) for byte in data] if pause else [data]:
                handler.wfile.write(part)
                handler.wfile.flush()
                time.sleep(pause)

    return reply


KEY = "sk-secret"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "reply",
    [raw(f"HTTP/1.1 500 no {KEY}\r\n\r\n".encode()), raw(f"HTTP/1.1 401 {KEY}\r\n\r\n".encode()),
     raw(f"{KEY} {KEY}\r\n\r\n".encode()), raw(OK + f"{KEY}\r\n\r\n".encode()),
     raw(OK + f"Content-Length: {KEY}\r\n\r\n".encode()), raw(OK + f"\r\n{KEY}".encode()),
     raw(OK + b"\r\n" + json.dumps({"choices": KEY}).encode()), raw(OK + b"\r\n" + json.dumps({KEY: 1}).encode()),
     says(None, status=302, Location=f"http://127.0.0.1:1/{KEY}")],
)  # fmt: skip
def test_a_server_that_repeats_the_key_does_not_bring_it_into_the_message(server, monkeypatch, reply):
    monkeypatch.setenv("UWM_JUDGE_KEY", KEY)
    server.reply = reply
    with pytest.raises(uwm.UwmError, match="gave no answer") as error:
        server.judge(retries=0).judge(["x"])
    assert KEY not in "".join(traceback.format_exception(error.value))
    assert server.asked[0][2] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "data", [OK + b"\r\n" + b" " * 60, OK + b"X-Slow: " + b"a" * 60], ids=["body", "header"]
)
def test_the_timeout_bounds_the_whole_reply(server, data):
    """Each byte comes in time: only the sum is too long."""
    server.reply = raw(data, pause=0.02)
    with pytest.raises(uwm.UwmError, match=r"timed out after 0\.4 s"):
        server.judge(timeout=0.4, retries=0).judge(["x"])


def good(content: str = "no") -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def test_a_reply_without_end_is_not_read_to_its_end(server):
    server.reply = raw(
        OK + b"\r\n" + b" " * 2**20 + good()
    )  # valid JSON, of one byte more than 1 MiB and some
    with pytest.raises(uwm.UwmError, match="longer than 1048576 bytes"):
        server.judge().judge(["x"])
    assert len(server.asked) == 1


def test_a_compressed_reply_is_not_unpacked(server):
    server.reply = raw(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(good()))
    with pytest.raises(uwm.UwmError, match="compressed"):
        server.judge().judge(["x"])


@pytest.mark.parametrize("reply", [b"[" * 100_000, b"<html>no</html>", b"", b"\xff", b'{"a": ' + b"9" * 9999])
def test_replies_that_are_no_json_are_one_sentence(server, reply):
    server.reply = raw(OK + b"\r\n" + reply)
    with pytest.raises(uwm.UwmError, match="no JSON"):
        server.judge(retries=0).judge(["x"])


@pytest.mark.parametrize("reply", [b"[]", b"null", b'"no"', b'{"choices": []}', b'{"choices": {"0": 1}}'])
def test_replies_of_another_shape_are_one_sentence(server, reply):
    server.reply = raw(OK + b"\r\n" + reply)
    with pytest.raises(uwm.UwmError, match="holds no choices"):
        server.judge(retries=0).judge(["x"])


@pytest.mark.parametrize("secret", ["http://u:hunter2@h/v1", "https://hunter2@h/v1", "http://h/v1?key=hunter2",
                                    "http://h/v1#hunter2", "u:hunter2@h", "ftp://u:hunter2@h/v1"])  # fmt: skip
def test_secrets_in_an_address_are_refused_and_not_repeated(secret):
    for make in (lambda: EndpointJudge("m", secret), lambda: captions.load_judge(f"endpoint:m@{secret}")):
        with pytest.raises(uwm.UwmError) as error:
            make()
        assert "hunter2" not in "".join(traceback.format_exception_only(error.value))


@pytest.mark.parametrize(
    "address", ["ftp://h/v1", "", "http://", "http://h\r\nX: y/v1", "http://h h/v1", "http://[::1", None, 5]
)
def test_what_is_no_address_is_refused_in_one_line(address):
    with pytest.raises(uwm.UwmError, match="no address") as error:
        EndpointJudge("m", address)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [{"model": "m\nX: y"}, {"model": " "}, {"timeout": 0}, {"timeout": float("nan")}, {"timeout": "1"},
     {"retries": -1}, {"retries": 0.5}, {"pause": -1}, {"question": "Is it?"}],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused(options):
    with pytest.raises(uwm.UwmError):
        EndpointJudge(**({"model": "m", "address": "http://127.0.0.1:1/v1"} | options))


def test_no_proxy_sees_a_key_that_is_sent_in_the_open(server, monkeypatch):
    monkeypatch.setenv("UWM_JUDGE_KEY", KEY)
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}")
    server.reply = says("no")
    with pytest.raises(uwm.UwmError, match="no connection"):
        EndpointJudge("m", "http://127.0.0.2:9/v1", retries=0).judge(["x"])
    assert server.asked == []


def test_an_endpoint_answers_where_an_event_loop_is_running(server):
    async def cell():
        return server.judge().judge(["x"])

    server.reply = says("no")
    assert asyncio.run(cell()) == [SAFE]


ASKING = {
    "references": ["r"] * 4,
    "toxicity": SimpleNamespace(name="none", score=lambda texts: np.zeros(len(texts))),
}
FOUR = ["a", "b", "a", "c"]


def test_verdicts_of_an_endpoint_are_kept_unless_unparsed_or_unwanted(server, tmp_path):
    cache = uwm.Cache(tmp_path)
    answers = {"a": "no", "b": "I cannot say", "c": "yes"}
    asking = {**ASKING, "cache": cache}
    server.reply = lambda handler: says(answers[handler.asked_for])(handler)
    first = captions.evaluate_captions(FOUR, judge=server.judge(), **asking).opinions
    assert first == [SAFE, UNPARSED, SAFE, UNSAFE] and len(server.asked) == 3  # "a" only once
    assert captions.evaluate_captions(FOUR, judge=server.judge(), **asking).opinions == first
    assert len(server.asked) == 4  # "b" again
    for changed in ({"keep": False}, {"question": "Bad? Caption: {caption}"}, {"model": "other"}):
        before = len(server.asked)
        captions.evaluate_captions(FOUR, judge=server.judge(**changed), **asking)
        assert len(server.asked) - before == 3
    captions.evaluate_captions(FOUR, judge=server.judge(), **ASKING)
    assert len(server.asked) == 4 + 9 + 3


def test_what_was_answered_before_a_failure_is_not_asked_again(server, tmp_path):
    broken = says("no", status=500)
    server.reply = lambda handler: (broken if handler.asked_for == "c" else says("no"))(handler)
    options = {**ASKING, "cache": uwm.Cache(tmp_path), "batch_size": 1}
    with pytest.raises(uwm.UwmError, match="500"):
        captions.evaluate_captions(FOUR, judge=server.judge(retries=0), **options)
    server.asked.clear()
    server.reply = says("no")
    assert captions.evaluate_captions(FOUR, judge=server.judge(), **options).opinions == [SAFE] * 4
    assert len(server.asked) == 1


def test_a_models_name_may_begin_with_an_at_sign():
    judge = captions.load_judge("endpoint:@cf/meta/llama@http://127.0.0.1:1/v1")
    assert (judge.model, judge.address) == ("@cf/meta/llama", "http://127.0.0.1:1/v1")


def templated_tokenizer():
    """Return a tokenizer that starts every text with <s>, as does its chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", "user:", "assistant:", "ring", "yes", "no"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %} {{ m['role'] }}: {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %} assistant:{% endif %}"
    )
    return tokenizer


class Recorder(torch.nn.Module):
    """A model that always says `yes` (id 6) and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.asked = torch.nn.Parameter(torch.zeros(1)), []

    def generate(self, ids, *, attention_mask, do_sample, **options):
        assert not do_sample and attention_mask.shape == ids.shape
        self.asked.append(ids[0].tolist())
        return torch.cat([ids, torch.tensor([[6]])], dim=1)


@pytest.mark.parametrize(("chat", "prompt"), [(True, [1, 3, 5, 4]), (False, [1, 5])])
def test_a_prompt_starts_once_with_and_without_a_chat_template(chat, prompt):
    tokenizer, model = templated_tokenizer(), Recorder()
    if not chat:
        tokenizer.chat_template = None
    judge = CausalLmJudge(model, tokenizer, name="recorder", question="{caption}")
    assert judge.judge(["ring"]) == [UNSAFE] and model.asked == [prompt]


@pytest.mark.parametrize(
    "entry",
    [{"caption": ["a"], "answer": "safe", "by": "x"}, {"caption": "a", "answer": "safe", "by": ["x"]},
     {"caption": "a", "by": "x"}],
)  # fmt: skip
def test_entries_of_another_kind_are_refused(tmp_path, entry):
    path = tmp_path / "said.jsonl"
    path.write_text(json.dumps(entry))
    with pytest.raises(uwm.UwmError, match="Line 1"):
        read_record(path)


def test_what_could_not_be_replayed_is_not_written(tmp_path):
    path = tmp_path / "said.jsonl"
    with pytest.raises(uwm.UwmError, match="two different answers"):
        captions.write_record(path, ["a", "b", "a"], [SAFE, SAFE, UNSAFE], name="x")
    assert not path.exists()


def test_captions_without_words_have_float_scores():
    found = overlap.rouge_l(["", "?"], ["c", "d"])
    assert found.dtype == np.float64 and mean_of(found).value == 0.0


def test_toxicity_is_told_times_100_as_in_table_5():
    class Quarter:
        name = "quarter"

        def score(self, texts):
            return np.full(len(texts), 0.25)

    lexicon = LexiconJudge(unsafe=["ink"], vocabulary=["ring"])
    found = captions.evaluate_captions(["a ring"], ["a ring"], judge=lexicon, toxicity=Quarter())
    assert found["toxicity"].items.tolist() == [25.0] and found.scorers["toxicity"] == "quarter"
