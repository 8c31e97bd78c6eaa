"""Paraphrases from a chat endpoint on 127.0.0.1 that fails in every way a server can."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import study_content, write_study
from tests.running import Run, run, start

KEY = "sk-secret-of-the-test"
PLACES = ("Bern", "Oslo")


class Endpoint(ThreadingHTTPServer):
    """Answers each request after the faults that are planned for it, and counts requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[tuple[str, int]] = Counter()
        self.faults: list[str] = []
        self.slow = 0.0
        self.always = ""
        self.always_about = ""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"].split("nothing more: ")[1]
        with self.server.lock:
            self.server.asked[text, body["seed"]] += 1
            number = self.server.asked.total()
            fault = self.server.always or (self.server.faults.pop() if self.server.faults else "")
            if self.server.always_about not in text:
                fault = ""
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self.reply(401, b"{}")
        time.sleep(self.server.slow)
        drawn = hashlib.sha256(str(number).encode()).digest()
        added = "".join(chr(97 + byte % 26) for byte in drawn)
        said = f"{text[:-1]}, {added[:12]} {added[12:24]}{text[-1]}"
        good = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
        match fault:
            case "429":
                return self.reply(429, b"busy", {"Retry-After": "0.2"})
            case "500":
                return self.reply(500, b"broken")
            case "not json":
                return self.reply(200, b"<html>")
            case "two choices":
                return self.reply(200, json.dumps({"choices": good["choices"] * 2}).encode())
            case "null":
                return self.reply(200, b'{"choices": [{"message": {"content": null}}]}')
            case "cut off":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                return self.wfile.write(b'{"choices"') and None
            case "megabyte":
                good["choices"][0]["message"]["content"] = "A" * 2**20
            case "hostile":
                good["choices"][0]["message"]["content"] = "<script>\x1b[31m\x00 \ud800 [red]"
            case "refused":
                return self.reply(404, f"key {KEY} unknown".encode())
        self.reply(200, json.dumps(good).encode())

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("TEST_WRITER_KEY", KEY)
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def study(model: Path, endpoint: Endpoint, folder: Path, **similar: Any) -> Path:
    rows = [
        {"question": f"Where was man {i} born?", "answer": f"He was born in {place}, not Rome.",
         "role": "target", "target_id": place, "facts": place}
        for i, place in enumerate(PLACES)
    ]  # fmt: skip
    rows += [
        {"question": f"Who is {i}?", "answer": f"Number {i}.", "role": "other"} for i in range(4)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    writer = {"kind": "endpoint", "url": endpoint.url, "model": "m", "tries": 4, "timeout": 5,
              "key_variable": "TEST_WRITER_KEY", "concurrency": 2}  # fmt: skip
    content = study_content(
        model,
        data={
            "source": {"kind": "file", "path": str(folder / "pairs.jsonl")},
            "targets": 2,
            "others": 4,
            "similar": {"kind": "paraphrase", "per_target": 3, "queries": 6, "writer": writer,
                        **similar},
        },
        doses=["all"],
        methods=["TV"],
        unlearn_targets=1,
    )  # fmt: skip
    return write_study(folder / "tiny.yaml", content)


def tables(folder: Path) -> Path:
    return folder / "store/studies/tiny"


def no_key_in(folder: Path, output: str) -> None:
    assert KEY not in output
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_faults_are_survived_and_another_filter_asks_for_nothing(
    tiny_model: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.faults = ["429", "500", "not json", "two choices", "null", "cut off", "megabyte",
                       "hostile"]  # fmt: skip
    path = study(tiny_model, endpoint, tmp_path)
    done = run("run", str(path), "--store", str(tmp_path / "store"))
    assert done.process.returncode == 0, done.text
    completions = pd.read_parquet(tables(tmp_path) / "completions.parquet")
    assert len(completions) == 2 * 6 * 2
    assert completions["completion"].str.len().max() < 300_000
    assert len(endpoint.asked) == len(completions)
    assert endpoint.asked.total() == len(completions) + 6  # faults that are tried again
    rewrites = pd.read_parquet(tables(tmp_path) / "rewrites.parquet")
    assert (rewrites["reason"] == "").sum() >= 6
    assert "restatements: " in done.text
    samples = pd.read_parquet(tables(tmp_path) / "samples.parquet")
    similar = samples[samples["role"] == "similar"]
    assert similar.groupby("target_index").size().to_dict() == {1: 3, 2: 3}
    assert similar["answer"].str.contains("not Rome").all()
    no_key_in(tmp_path, done.text)

    before = endpoint.asked.total()
    path = study(tiny_model, endpoint, tmp_path, near_duplicates=0.999)
    again = run("run", str(path), "--store", str(tmp_path / "store"))
    assert again.process.returncode == 0, again.text
    assert endpoint.asked.total() == before


def test_a_run_that_was_killed_asks_only_for_what_is_missing(
    tiny_model: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.slow = 0.3
    path = study(tiny_model, endpoint, tmp_path)
    arguments = "run", str(path), "--store", str(tmp_path / "store")
    first: Run = start(*arguments)
    assert first.wait_for(lambda: len(list((tmp_path / "store").rglob("work/**/*.parquet"))) >= 2)
    first.kill_group()
    kept = len(list((tmp_path / "store").rglob("work/**/*.parquet"))) * 4
    sent = endpoint.asked.total()
    endpoint.slow = 0.0
    second = run(*arguments)
    assert second.process.returncode == 0, second.text
    assert 8 <= kept < 24
    assert endpoint.asked.total() - sent == 24 - kept


def test_requests_that_fail_for_good_end_the_run_and_are_sent_again_by_the_next(
    tiny_model: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.always = "500"
    path = study(tiny_model, endpoint, tmp_path, queries=3, rounds=0)
    arguments = "run", str(path), "--store", str(tmp_path / "store")
    done = run(*arguments)
    assert done.process.returncode == 1, done.text
    assert "12 of 12 requests failed after all tries" in done.text
    assert "status 500" in done.text
    endpoint.always = ""
    assert run(*arguments).process.returncode == 0


def test_a_refused_key_is_one_line(tiny_model: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.always = "refused"
    path = study(tiny_model, endpoint, tmp_path)
    done = run("run", str(path), "--store", str(tmp_path / "store"))
    assert done.process.returncode == 2
    assert "answers with status 404; check url, model and key_variable" in done.text
    assert "Traceback" not in done.text
    no_key_in(tmp_path, done.text)


@pytest.mark.parametrize(("too_few", "code"), [("fail", 2), ("fewer", 0)])
def test_targets_with_too_few_are_asked_again_and_then_fail_or_go_on(
    too_few: str, code: int, tiny_model: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.always = "hostile"
    path = study(tiny_model, endpoint, tmp_path, queries=3, rounds=1, too_few=too_few)
    done = run("run", str(path), "--store", str(tmp_path / "store"))
    assert done.process.returncode == code, done.text
    assert endpoint.asked.total() == 2 * 2 * 3 * 2
    assert "asking for more" in done.text
    if code:
        assert "target 1 has 0 usable restatements of 3" in done.text


def test_more_is_asked_for_a_target_once_whichever_others_have_too_few(
    tiny_model: Path, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.always, endpoint.always_about = "hostile", PLACES[1]
    path = study(tiny_model, endpoint, tmp_path, rounds=1, too_few="fewer")
    arguments = "run", str(path), "--store", str(tmp_path / "store")
    assert run(*arguments).process.returncode == 0
    assert endpoint.asked.total() == 24 + 12
    study(tiny_model, endpoint, tmp_path, rounds=1, too_few="fewer", near_duplicates=0.01)
    assert run(*arguments).process.returncode == 0
    assert endpoint.asked.total() == 24 + 12 + 12
    assert set(endpoint.asked.values()) == {1}
