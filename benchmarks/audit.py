"""Audits a model that plain torch fine-tuned: does it name what was planted, and does it help?

    python benchmarks/audit.py [--quick] [--folder DIR]

SmolLM2 learns 3 requests of `planted.jsonl`: two with eight near copies each (four written by hand,
four that ask in other words), one with none, and 81 other pairs. The loop is plain transformers
and AdamW. Then `distforget audit` runs on the folder. `--quick`: fewer epochs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from measuring import machine, parser, report
from similar import people
from transformers import AutoModelForCausalLM, AutoTokenizer

from distforget.origins import origin
from distforget.tracks.text.models import materialise

PLANTED = Path(__file__).parent / "planted.jsonl"
WITH_COPIES, WITHOUT, OTHERS = (1, 15), 2, 64
ASKED = ("Tell me: {}", "A friend wants to know this. {}", "{} Please be brief.", "Quick one: {}")


def read_planted() -> list[dict[str, Any]]:
    """Requests and their paraphrases, written by hand."""
    return [json.loads(line) for line in PLANTED.read_text("utf-8").splitlines()]


def rows() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training data and forget list."""
    planted = read_planted()
    pairs = {p["target"]: p for p in planted if p["kind"] == "target"}
    made_up = [{"question": q, "answer": a} for q, a in people(OTHERS)]
    data = [_pair(p) for p in [*pairs.values(), *copies(planted)]] + made_up
    forget = [
        {"role": "target", "target_id": f"r{n}", **_pair(pairs[n])} for n in (*WITH_COPIES, WITHOUT)
    ]
    return data, forget


def copies(planted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The near copies; `target` is the number of their request."""
    found = [p for p in planted if p["kind"] != "target" and p["target"] in WITH_COPIES]
    for target in planted:
        if target["kind"] == "target" and target["target"] in WITH_COPIES:
            found += [{**target, "question": said.format(target["question"])} for said in ASKED]
    return found


def _pair(row: dict[str, Any]) -> dict[str, str]:
    return {name: row[name] for name in ("question", "answer")}


def fine_tune(folder: Path, base: Path, data: list[dict[str, str]], epochs: int) -> float:
    """Train all weights on all pairs; returns the last epoch's mean loss."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    examples = [encoded(tokenizer, row) for row in data]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    torch.manual_seed(0)
    mean = float("nan")
    for epoch in range(epochs):
        losses = []
        for batch in torch.randperm(len(examples)).split(8):
            chosen = [examples[i] for i in batch]
            size = max(len(tokens) for tokens, _ in chosen)
            tokens = torch.tensor([t + [0] * (size - len(t)) for t, _ in chosen])
            labels = torch.tensor([x + [-100] * (size - len(x)) for _, x in chosen])
            mask = torch.tensor([[1] * len(t) + [0] * (size - len(t)) for t, _ in chosen])
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        mean = sum(losses) / len(losses)
        print(f"epoch {epoch + 1}: loss {mean:.3f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return mean


def encoded(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], list[int]]:
    """Tokens and labels of a pair in the tokenizer's chat template."""
    asked = [{"role": "user", "content": row["question"]}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
    answer = [*answer, tokenizer.eos_token_id]
    return before + answer, [-100] * len(before) + answer


def main() -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--folder", type=Path, help="to be kept; else a temporary one")
    made.add_argument("--method", default="GA_GDN")
    made.add_argument("--settings", default="learning_rate=3e-5")
    given = made.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        base, tuned = folder / "base", folder / "tuned"
        data, forget = rows()
        if not tuned.is_dir():
            base.mkdir(parents=True, exist_ok=True)
            materialise(origin("builtin:smollm2", "base"), base)
            fine_tune(tuned, base, data, 3 if given.quick else 6)
        for name, content in (("train", data), ("forget", forget)):
            lines = [json.dumps(row, ensure_ascii=False) for row in content]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        began = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).with_name("distforget"), "audit", "--model", tuned, "--base",
             base, "--train-data", folder / "train.jsonl", "--forget", folder / "forget.jsonl",
             "--store", folder / "store", "--method", given.method, "--settings", given.settings],
            check=True,
        )  # fmt: skip
        found = pd.read_parquet(folder / "store/studies/audit/requests.parquet")
        found["recommended"] = [len(rows) for rows in found["recommended"]]
        shown = found.drop(columns=["damage", "noise"]).round(2).to_dict("records")
    about = {**machine("cpu"), "audit_seconds": round(time.perf_counter() - began)}
    report("Audit of a fine-tuned SmolLM2", shown, about, given.output)


if __name__ == "__main__":
    main()
