"""A model behind an OpenAI-compatible address as a judge: what it may cost, reach and reveal is bounded."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from anyio.from_thread import start_blocking_portal

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
from uwmlib.options import finite_number, whole_number

BUSY = (408, 409, 425, 429)  # with 5xx: statuses that may pass; any other refusal is final
LARGEST_REPLY = 2**20  # bytes; an answer of one word needs some hundreds


class _Failure(Exception):
    """Why one attempt gave no answer, in our words only: what a server says may repeat the key it was sent."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind an OpenAI-compatible address (`.../v1`).

    Parameters
    ----------
    model : str
    address : str
        Without user name, password, query or fragment, because it is shown beside every number.
    question : str
        With `{caption}` in it.
    key_variable : str
        Name of the environment variable that holds the key; the key itself is never stored or shown.
    timeout : float
        Seconds for a whole attempt, from the connection to the last byte.
    retries : int
        Further attempts after a failure that may pass.
    pause : float
        Seconds before the first further attempt, doubled each time.
    keep : bool
        Whether verdicts may be kept in a cache. Answers at temperature 0 seldom change, but the model behind a
        name may. An answer that was unparsed is never kept, but asked for again.

    Raises
    ------
    UwmError
        For a model, address, question or number that cannot be used.

    Notes
    -----
    Redirects are not followed: they would carry the key to another address. Proxies of the environment serve
    https only, where they see neither key nor captions. Replies beyond 1 MiB, and compressed ones, are refused.
    """

    model: str
    address: str
    question: str = QUESTION
    key_variable: str = "UWM_JUDGE_KEY"
    timeout: float = 60.0
    retries: int = 2
    pause: float = 1.0
    keep: bool = True
    name: str = field(init=False)

    def __post_init__(self) -> None:
        _require_address(self.address)
        if not (isinstance(self.model, str) and self.model.strip() and self.model.isprintable()):
            raise UwmError(f"The endpoint's model is {self.model!r}: give its name on one line.")
        require_question(self.question)
        finite_number(self.timeout, "timeout", least=0.001)
        finite_number(self.pause, "pause", least=0)
        whole_number(self.retries, "retries", least=0)
        object.__setattr__(self, "name", f"{self.model} at {self.address}")

    def facts(self) -> dict[str, Any] | None:
        """Return everything but the caption that a verdict depends on, as far as it can be known; None not to keep."""
        if not self.keep:
            return None
        code = code_hash("captions/endpoint.py", "captions/opinions.py")
        return {"judge": self.name, "question": self.question, "code": code}

    def keeps(self, verdict: Opinion) -> bool:
        """Return whether a verdict may be kept: a filter or a lack of tokens also leads to an unparsed one."""
        return verdict is not Opinion.UNPARSED

    def judge(self, captions: Sequence[str]) -> list[Opinion]:
        """Return one verdict a caption; raises UwmError if the endpoint does not answer."""
        # A notebook's thread has a running event loop; the portal has its own, and ends it on an interrupt.
        with start_blocking_portal() as portal:
            return [parse_yes_or_no(answer) for answer in portal.call(self._answers, captions)]

    async def _answers(self, captions: Sequence[str]) -> list[str]:
        proxies = self.address.lower().startswith("https:")
        async with httpx.AsyncClient(headers=self._headers(), timeout=None, trust_env=proxies) as client:
            return [await self._answer(client, caption) for caption in captions]

    async def _answer(self, client: httpx.AsyncClient, caption: str) -> str:
        reason = ""
        for attempt in range(self.retries + 1):
            try:
                with anyio.fail_after(self.timeout):
                    return _content(await self._reply(client, caption))
            except TimeoutError:
                failure = _Failure(f"timed out after {self.timeout:g} s")
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
                failure = _Failure(_words(error))
            except _Failure as error:
                failure = error
            reason = str(failure)
            if failure.final or attempt == self.retries:
                break
            await anyio.sleep(self.pause * 2**attempt)
        raise UwmError(f"The judge {self.name} gave no answer ({reason}): check address, model and key.")

    async def _reply(self, client: httpx.AsyncClient, caption: str) -> bytes:
        body = {
            "model": self.model, "temperature": 0, "max_tokens": ANSWER_LENGTH,
            "messages": [{"role": "user", "content": asked(self.question, caption)}],
        }  # fmt: skip
        address, reply = f"{self.address.rstrip('/')}/chat/completions", bytearray()
        async with client.stream("POST", address, content=json.dumps(body)) as response:
            _require_success(response)
            async for chunk in response.aiter_raw():
                reply += chunk
                if len(reply) > LARGEST_REPLY:
                    raise _Failure(f"its reply is longer than {LARGEST_REPLY} bytes", final=True)
        return bytes(reply)

    def _headers(self) -> dict[str, str]:
        # Compressed, a small reply may grow without bound.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        # A key read from a file ends in a newline, which no header may hold.
        if key := os.environ.get(self.key_variable, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise UwmError(f"The key in {self.key_variable} is no plain text: set the variable again.")
            headers["Authorization"] = f"Bearer {key}"
        return headers


def _words(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"no connection: {error}"  # what this machine says, as nobody has answered yet
    if isinstance(error, httpx.RemoteProtocolError):
        return "the reply broke off or is no HTTP"
    return type(error).__name__


def _require_address(address: Any) -> None:
    """Raise UwmError, without repeating what may be secret, for what is no plain address."""
    try:
        url = httpx.URL(address)
        usable = url.scheme in ("http", "https") and url.host and address.isprintable() and " " not in address
    except (httpx.InvalidURL, TypeError, AttributeError):
        usable = False
    if not usable:
        shown = "" if "@" in str(address) or "?" in str(address) else f" {address!r}"
        raise UwmError(f"This is no address of an endpoint{shown}: write http(s)://.../v1.")
    if url.userinfo or "?" in address or "#" in address:
        raise UwmError(
            f"The address of the endpoint at {url.host} holds a user name, query or fragment, which would be shown: "
            f"leave it out and put the key into the environment variable UWM_JUDGE_KEY."
        )


def _require_success(response: httpx.Response) -> None:
    status = response.status_code
    if not response.is_success:
        words = f"HTTP status {status} {httpx.codes.get_reason_phrase(status)}".strip()
        raise _Failure(words, final=status < 500 and status not in BUSY)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _Failure("its reply is compressed, which was not asked for", final=True)


def _content(reply: bytes) -> str:
    """Return what the model said; an empty answer is one, a content of another kind is not."""
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, RecursionError):
        raise _Failure("its reply is no JSON") from None
    except (LookupError, TypeError):
        raise _Failure("its reply holds no choices[0].message.content") from None
    if not isinstance(content, str | None):
        raise _Failure(f"its content is a {type(content).__name__}")
    return content or ""
