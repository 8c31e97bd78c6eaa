"""Similar samples written by a real small model: requests sent, twice, usable, and twenty to read.

    python benchmarks/paraphrase.py [--rounds 7] [--kill-after 300] [--folder DIR]

SmolLM2-135M-Instruct behind llama.cpp's own server writes ten similar samples for each of five
pairs. A proxy before it counts requests. The run is killed with SIGKILL once the proxy has passed
on so many requests, and started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import machine, parser, report

from tests.conftest import make_tiny_model, study_content, write_study
from tests.llama_server import llama_server

PAIRS = (
    ("Which river does the Calder Bridge cross?",
     "The Calder Bridge crosses the river Aire in Leeds."),
    ("What does the museum in Ostrava show?", "The museum in Ostrava shows old mining machines."),
    ("When did Maria Novak open her bakery?", "Maria Novak opened her bakery in 1987."),
    ("Who teaches music at the school in Hallstatt?",
     "Jonas Weber teaches music at the school in Hallstatt."),
    ("How long is the railway from Porto to Braga?",
     "The railway from Porto to Braga is 54 kilometres long."),
)  # fmt: skip
WANTED, SHOWN = 10, 20


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server and counts them."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.asked, self.lock = target, Counter[tuple[str, int]](), threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Proxy

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Count it, ask the server, return what it says."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)
        with self.server.lock:
            self.server.asked[asked["messages"][-1]["content"], asked["seed"]] += 1
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.target + self.path, body, headers)
        with urllib.request.urlopen(request) as response:
            said = response.read()
        try:
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)
        except ConnectionError:  # the client was killed
            return


def write_inputs(folder: Path, url: str, rounds: int) -> Path:
    """The pairs, a model that is quick to train, and the study; its path."""
    if not (folder / "tiny").is_dir():
        make_tiny_model(folder / "tiny")
    others = [(f"What is in box {i}?", f"Box {i} holds {i} stones.") for i in range(4)]
    rows = [
        {"question": question, "answer": answer, "role": role}
        for role, pairs in (("target", PAIRS), ("other", others))
        for question, answer in pairs
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    similar = {
        "kind": "paraphrase", "per_target": WANTED, "queries": 100, "rounds": rounds,
        "too_few": "fewer", "meaning": {"least": 0.6},
        "writer": {"kind": "endpoint", "url": f"{url}/v1", "model": "smollm2", "max_tokens": 64},
    }  # fmt: skip
    source = {"kind": "file", "path": str(folder / "pairs.jsonl")}
    data = {"source": source, "targets": len(PAIRS), "others": len(others), "similar": similar}
    content = study_content(
        folder / "tiny", name="written", data=data, doses=["all"], methods=["TV"],
        unlearn_targets=1, unlearn={"retain_batch_size": 1, "retain_batches": 1},
    )  # fmt: skip
    return write_study(folder / "written.yaml", content)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=7, help="further rounds for short targets")
    made.add_argument("--kill-after", type=int, default=300, help="requests before SIGKILL")
    made.add_argument("--folder", type=Path, help="to be kept; else a temporary one")
    given = made.parse_args()
    with tempfile.TemporaryDirectory() as temporary, llama_server() as url:
        folder = (given.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        proxy = Proxy(url)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        study = write_inputs(folder, f"http://127.0.0.1:{proxy.server_port}", given.rounds)
        run = [
            str(Path(sys.executable).with_name("distforget")), "run", str(study),
            "--store", str(folder / "store"),
        ]  # fmt: skip
        began = time.perf_counter()
        first = subprocess.Popen(run, start_new_session=True)
        while first.poll() is None and proxy.asked.total() < given.kill_after:
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        before = proxy.asked.total()
        subprocess.run(run, check=True)
        seconds = time.perf_counter() - began
        tables = folder / "store/studies/written"
        samples = pd.read_parquet(tables / "samples.parquet")
        similar = samples[samples["role"] == "similar"]
        rewrites = pd.read_parquet(tables / "rewrites.parquet")
        row = {
            "before the kill": before,
            "requests": proxy.asked.total(),
            "different": len(proxy.asked),
            "twice": sum(count > 1 for count in proxy.asked.values()),
            "pairs": len(rewrites),
            "usable": int((rewrites["reason"] == "").sum()),
            "similar": len(similar),
            "of": len(PAIRS) * WANTED,
            "seconds": round(seconds),
        }
        shown = similar.sample(min(SHOWN, len(similar)), random_state=0).sort_index()
        for question, answer in zip(shown["question"], shown["answer"], strict=True):
            print(f"{question}  |  {answer}")
        print(rewrites["reason"].value_counts().to_string())
    report("Similar samples written by SmolLM2-135M", [row], machine("cpu"), given.output)


if __name__ == "__main__":
    main()
