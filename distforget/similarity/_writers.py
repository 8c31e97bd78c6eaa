"""Who rewrites a target: a chat endpoint, a Hugging Face model, or ready completions."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from distforget.contents import file_digest
from distforget.errors import UsageError
from distforget.parts import Part
from distforget.similarity import Writer
from distforget.sources._rows import rows_of

FIELD = "data.similar.writer"
MOST_BYTES = 200_000
"""A longer response is cut off: no restatement is as long, and a hostile server may never end."""


class EndpointConfig(Part):
    """An OpenAI-compatible chat endpoint: vLLM, SGLang, llama.cpp, Ollama, or a hosted one."""

    kind: Literal["endpoint"] = "endpoint"
    url: str = Field(description="base URL, e.g. http://127.0.0.1:8080/v1")
    model: str = Field(min_length=1, description="the model's name at the endpoint")
    key_variable: str = Field(
        "",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$|^$",
        description="name of the environment variable that holds the key; empty: no key",
    )
    temperature: float = Field(1.0, ge=0)
    max_tokens: int = Field(256, ge=1)
    concurrency: int = Field(4, ge=1, description="requests at once")
    requests_per_minute: int = Field(0, ge=0, description="rate limit over all; 0: none")
    timeout: float = Field(120.0, gt=0, description="seconds to wait for a response")
    tries: int = Field(6, ge=1, description="tries of each request")

    @field_validator("url")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write http://HOST:PORT/v1 or https://HOST/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("write it without user, password and query; use key_variable")
        return value.rstrip("/")


class ModelWriterConfig(Part):
    """A causal language model with a chat template, run by Ray Data."""

    kind: Literal["model"] = "model"
    path: str = Field(min_length=1, description="hub id or local folder")
    temperature: float = Field(1.0, ge=0)
    max_tokens: int = Field(256, ge=1)
    concurrency: int = Field(1, ge=1, description="copies of the model")
    gpus: float = Field(0.0, ge=0, description="GPUs of each copy")


class ReadyConfig(Part):
    """Completions of an earlier run, e.g. its table completions as JSON Lines or Parquet."""

    kind: Literal["ready"] = "ready"
    path: str = Field(
        min_length=1, description="file with columns target_index, part, number and completion"
    )


WriterConfig = Annotated[
    EndpointConfig | ModelWriterConfig | ReadyConfig, Field(discriminator="kind")
]
UNKEYED = frozenset(
    {"url", "key_variable", "concurrency", "requests_per_minute", "timeout", "tries", "gpus"}
)
"""Settings that decide no completion."""


def key_of_writer(config: EndpointConfig | ModelWriterConfig | ReadyConfig) -> dict[str, Any]:
    """What of a writer decides its completions."""
    content = file_digest(config.path, f"{FIELD}.path") if config.kind == "ready" else None
    return {**config.model_dump(mode="json", exclude=set(UNKEYED)), "content": content}


def open_writer(config: EndpointConfig | ModelWriterConfig | ReadyConfig, system: str) -> Writer:
    """The writer of a configuration.

    Raises:
        UsageError: it cannot be opened; says what to set.
    """
    match config:
        case EndpointConfig():
            return _Endpoint(config, system)
        case ModelWriterConfig():
            return _Model(config, system)
        case ReadyConfig():
            return _Ready(config)


class _Endpoint:
    """Asks an endpoint; busy or broken ones again, with growing pauses."""

    def __init__(self, config: EndpointConfig, system: str) -> None:
        import requests

        self.config, self.system = config, system
        self.session = requests.Session()
        self.session.auth = lambda request: request  # no password out of a netrc file
        if config.key_variable:
            key = os.environ.get(config.key_variable, "")
            if not key:
                raise UsageError(
                    f"{FIELD}.key_variable: the environment has no {config.key_variable}; set it "
                    "on each node that runs workers"
                )
            self.session.headers["Authorization"] = f"Bearer {key}"
        rate = config.requests_per_minute
        self.pause = 60 * config.concurrency / rate if rate else 0.0
        self.next = 0.0

    def write(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """See `Writer.write`."""
        from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt

        began = time.monotonic()
        retrying = Retrying(
            retry=retry_if_exception_type(_AgainError),
            stop=stop_after_attempt(self.config.tries),
            wait=_pause,
        )
        try:
            text, finish = retrying(self._ask, prompt)
            error = None
        except RetryError as failed:
            text, finish, error = None, None, str(failed.last_attempt.exception())
        seconds = time.monotonic() - began
        return {"completion": text, "finish": finish, "error": error, "seconds": seconds}

    def _ask(self, prompt: Mapping[str, Any]) -> tuple[str, str]:
        import requests
        from urllib3.exceptions import HTTPError

        wait = self.next - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self.next = time.monotonic() + self.pause
        body = {
            "model": self.config.model,
            "messages": [
                {"role": "system", "content": self.system},
                {"role": "user", "content": prompt["prompt"]},
            ],
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
            "seed": prompt["seed"],
            "n": 1,
        }
        try:
            with self.session.post(
                f"{self.config.url}/chat/completions",
                json=body,
                timeout=self.config.timeout,
                stream=True,
                allow_redirects=False,
            ) as response:
                content = response.raw.read(MOST_BYTES + 1, decode_content=True)
        # While a body is read, urllib3 raises errors of its own.
        except (requests.RequestException, HTTPError, OSError) as error:
            raise _AgainError(f"no whole response ({type(error).__name__})") from error
        return _choice(response.status_code, response.headers.get("Retry-After"), content)


class _AgainError(Exception):
    """A request that may succeed another time."""

    def __init__(self, said: str, after: float | None = None) -> None:
        super().__init__(said)
        self.after = after


def _pause(state: Any) -> float:
    """What the server asks for, else 0.5, 1, 2, ... seconds, up to 60, with jitter."""
    from tenacity import wait_random_exponential

    error = state.outcome.exception()
    if isinstance(error, _AgainError) and error.after is not None:
        return min(error.after, 300.0)
    return float(wait_random_exponential(multiplier=0.5, max=60)(state))


def _choice(status: int, after: str | None, content: bytes) -> tuple[str, str]:
    """Text and reason of the end, out of a response.

    Raises:
        _AgainError: the server is busy or broken, or the response is not as the protocol has it.
        UsageError: the request itself is refused.
    """
    import json

    if status == 429 or status >= 500:
        seconds = float(after) if after and after.replace(".", "", 1).isdigit() else None
        raise _AgainError(f"status {status}", seconds)
    if status != 200:
        raise UsageError(
            f"{FIELD}: the endpoint answers with status {status}; check url, model and key_variable"
        )
    if len(content) > MOST_BYTES:
        return "", "length"
    try:
        found = json.loads(content)
        (choice,) = found["choices"]
        text, finish = choice["message"]["content"], choice.get("finish_reason") or "stop"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _AgainError(f"malformed response ({type(error).__name__})") from error
    if not isinstance(text, str):
        raise _AgainError("malformed response (no text)")
    # Halves of surrogate pairs and NUL cannot be kept in tables.
    return text.encode(errors="replace").decode().replace("\0", ""), str(finish)[:32]


class _Model:
    """Samples from a model in this process; the draws depend on the prompt and its number."""

    def __init__(self, config: ModelWriterConfig, system: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.config, self.system, self.torch = config, system, torch
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.path)
            load: Any = AutoModelForCausalLM.from_pretrained
            self.model = load(config.path, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{FIELD}.path: cannot load {config.path} ({type(error).__name__}); give a folder "
                "written by save_pretrained, or set HF_ENDPOINT, HF_TOKEN or HF_HOME for the hub"
            ) from error
        if config.gpus:
            self.model = self.model.to(torch.device("cuda"))

    def write(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """See `Writer.write`."""
        began = time.monotonic()
        messages = [
            {"role": "system", "content": self.system},
            {"role": "user", "content": prompt["prompt"]},
        ]
        inputs = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self.model.device)
        self.torch.manual_seed(prompt["seed"])
        sampling = {"temperature": self.config.temperature} if self.config.temperature else {}
        with self.torch.no_grad():
            tokens = self.model.generate(
                **inputs, do_sample=bool(sampling), **sampling,
                max_new_tokens=self.config.max_tokens,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
            )[0, inputs["input_ids"].shape[1] :]  # fmt: skip
        finish = "length" if len(tokens) >= self.config.max_tokens else "stop"
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        seconds = time.monotonic() - began
        return {"completion": text, "finish": finish, "error": None, "seconds": seconds}


class _Ready:
    """Looks completions up in a file."""

    def __init__(self, config: ReadyConfig) -> None:
        self.texts: dict[tuple[int, str, int], str] = {}
        for place, row in rows_of(Path(config.path).expanduser(), f"{FIELD}.path"):
            try:
                key = int(row["target_index"]), str(row["part"]), int(row["number"])
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(
                    f"{place}: no target_index, part and number (column {error}); write all three"
                ) from error
            self.texts[key] = str(row.get("completion") or "")

    def write(self, prompt: Mapping[str, Any]) -> dict[str, Any]:
        """See `Writer.write`."""
        key = prompt["target_index"], prompt["part"], prompt["number"]
        text = self.texts.get(key)
        error = None if text else "not in the file"
        return {"completion": text, "finish": text and "stop", "error": error, "seconds": 0.0}
