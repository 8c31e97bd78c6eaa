"""One cell as peers run it, in a process of its own: the baseline of cells.py.

    python benchmarks/peer_cell.py job.json result.json

Imports everything, loads the fine-tuned model from disk, unlearns one target with GA_GDN in the
Hugging Face Trainer, answers the questions one by one, scores with rouge-score. It shares no code
with distforget: that both ways agree says that they do the same work.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rouge_score.rouge_scorer import RougeScorer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

Pair = dict[str, str]


class UnlearningTrainer(Trainer):
    """-NLL of the target + NLL of the step's retain batch."""

    retain: list[dict[str, torch.Tensor]]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """The loss of GA_GDN."""
        batch = self.retain[self.state.global_step % len(self.retain)]
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        return model(**batch).loss - model(**inputs).loss


def prompt_ids(tokenizer: Any, question: str, system: str) -> list[int]:
    """The chat prompt of a question."""
    conversation = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
    ]
    text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def batch_of(tokenizer: Any, pairs: list[Pair], system: str) -> dict[str, torch.Tensor]:
    """Pairs padded on the right; only answers have labels."""
    ids, labels = [], []
    for pair in pairs:
        prompt = prompt_ids(tokenizer, pair["question"], system)
        answer = tokenizer(pair["answer"], add_special_tokens=False)["input_ids"]
        ids.append(torch.tensor([*prompt, *answer, tokenizer.eos_token_id]))
        labels.append(ids[-1].clone())
        labels[-1][: len(prompt)] = -100
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(ids, batch_first=True, padding_value=tokenizer.eos_token_id),
        "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=-100),
    }


def main(job_file: str, result_file: str) -> None:
    """The whole cell."""
    job: dict[str, Any] = json.loads(Path(job_file).read_text())
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    if job["adapter"]:
        model = PeftModel.from_pretrained(model, job["adapter"], is_trainable=True)
    model.to(job["device"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = UnlearningTrainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=1,
                max_steps=job["steps"],
                learning_rate=job["learning_rate"],
                lr_scheduler_type="constant",
                max_grad_norm=job["gradient_clip"],
                optim="adamw_torch_fused",
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=job["device"] == "cpu",
            ),
            train_dataset=[job["target"]] * job["steps"],
            data_collator=lambda pairs: batch_of(tokenizer, pairs, job["system"]),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.retain = [batch_of(tokenizer, pairs, job["system"]) for pairs in job["retain"]]
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    model.eval()
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    answers, scores = [], []
    for pair in job["asked"]:
        ids = torch.tensor([prompt_ids(tokenizer, pair["question"], job["system"])])
        ids = ids.to(job["device"])
        with torch.no_grad():
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=job["max_new_tokens"],
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )
        text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()
        answers.append(text)
        scores.append(scorer.score(pair["answer"], text)["rougeL"].recall)
    result = {"losses": losses, "answers": answers, "rougeL_recall": scores}
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
