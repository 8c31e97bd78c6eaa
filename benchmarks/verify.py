"""Verifies a model that plain torch unlearned, and works its scores out by hand.

    python benchmarks/verify.py [--folder DIR]

SmolLM2 is fine-tuned by the plain loop of `audit.py` (its folder may be given, where that is done),
then unlearned by an NPO loop of this file: two requests with eight near copies each, which stay.
`distforget verify` asks base, fine-tuned and unlearned model; the package rouge-score scores the
stored answers again.
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
from audit import WITHOUT, copies, encoded, fine_tune, read_planted, rows
from measuring import machine, parser, report
from rouge_score.rouge_scorer import RougeScorer
from torch.nn.functional import log_softmax, logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from distforget.origins import origin
from distforget.tracks.text.models import materialise

BETA, RATE = 0.1, 3e-5


def unlearn(tuned: Path, folder: Path, forget: list[dict[str, str]], steps: int) -> None:
    """Negative preference optimisation (Zhang et al. 2024), one step over all requests."""
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    model = AutoModelForCausalLM.from_pretrained(tuned, dtype=torch.float32)
    examples = [encoded(tokenizer, row) for row in forget]

    def logprob(tokens: list[int], labels: list[int]) -> torch.Tensor:
        said = log_softmax(model(input_ids=torch.tensor([tokens])).logits[0, :-1], dim=-1)
        return sum(said[i, label] for i, label in enumerate(labels[1:]) if label != -100)

    with torch.no_grad():
        before = [logprob(*example) for example in examples]
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        ratios = [logprob(*e) - b for e, b in zip(examples, before, strict=True)]
        loss = -2 / BETA * torch.stack([logsigmoid(-BETA * r) for r in ratios]).mean()
        loss.backward()
        optimiser.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def roles(data: list[dict[str, str]], forget: list[dict[str, str]]) -> list[dict[str, str]]:
    """The training data with a role for each row."""
    targets = {row["question"]: ("target", row["target_id"]) for row in forget}
    similar = {p["question"]: ("similar", f"r{p['target']}") for p in copies(read_planted())}
    known = {**similar, **targets}
    found = []
    for row in data:
        role, target = known.get(row["question"], ("other", ""))
        found.append({"role": role, "target_id": target, **row})
    return found


def by_hand(tables: Path) -> tuple[int, int]:
    """Scores of samples whose true answer is ASCII, and how many of them rouge-score gives, too."""
    answers = pd.read_parquet(tables / "answers.parquet")
    samples = pd.read_parquet(tables / "samples.parquet").set_index("sample_id")["answer"]
    scores = pd.read_parquet(tables / "scores.parquet")
    scores = scores[scores["metric"].str.startswith("rougeL_recall")]
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    both = scores.merge(answers, on=["phase", "sample_id", "unlearned"], how="inner")
    far: list[float] = []
    for row in both.to_dict("records"):
        true = samples[row["sample_id"]]
        if true.isascii():
            score: Any = scorer.score(true, row["answer"])["rougeL"].recall
            far.append(abs(score - row["value"]))
    return len(far), sum(difference < 1e-9 for difference in far)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--folder", type=Path, help="to be kept; else a temporary one")
    made.add_argument("--steps", type=int, default=8)
    given = made.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        base, tuned, after = folder / "base", folder / "tuned", folder / "after"
        data, forget = rows()
        forget = [row for row in forget if row["target_id"] != f"r{WITHOUT}"]
        if not tuned.is_dir():
            base.mkdir(parents=True, exist_ok=True)
            materialise(origin("builtin:smollm2", "base"), base)
            fine_tune(tuned, base, data, 6)
        unlearn(tuned, after, forget, given.steps)
        lines = [json.dumps(row, ensure_ascii=False) for row in roles(data, forget)]
        (folder / "roles.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        began = time.perf_counter()
        subprocess.run(
            [Path(sys.executable).with_name("distforget"), "verify", "--before", tuned, "--after",
             after, "--base", base, "--data", folder / "roles.jsonl", "--store", folder / "store"],
            check=True,
        )  # fmt: skip
        compared, equal = by_hand(folder / "store/studies/verify")
    about = {**machine("cpu"), "seconds": round(time.perf_counter() - began)}
    row = {"scores by hand": compared, "equal": equal}
    report("Verified: SmolLM2, unlearned by plain torch", [row], about, given.output)


if __name__ == "__main__":
    main()
