"""Measures fine-tuning in tokens a second against the Hugging Face Trainer on the same rows.

    python benchmarks/finetune.py [--model FOLDER] [--threads 2] [--quick] [--output finetune.json]

Both start from the same weights and take the same rows, batch size, learning rate, clipping, dtype,
threads and number of epochs; AdamW is fused in both. Rows come in another order: ours puts those of
like length together. They take turns in one process, and the best of each counts. Tokens are those
of the rows without padding. Proofs of memorisation (a pass before training and one after it), which
the Trainer has none of, are timed apart. The share of the machine's peak takes 6 floating-point
operations a parameter and token.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from measuring import machine, parser, report
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from distforget.engine.models import fetch_model, model_folder
from distforget.plan import make_plan
from distforget.steppers import TorchStepper, restore
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import text
from distforget.tracks.text.encoding import TextExamples
from distforget.tracks.text.learner import TextLearner
from distforget.training import Finetuning


def study(model: str, rows: int, epochs: int) -> Study:
    """Biographies as in the presets, trained for a fixed number of epochs."""
    return Study.model_validate(
        {
            "name": "bench-finetune",
            "data": {"targets": rows // 4, "others": rows // 4, "similar": {"per_target": 2}},
            "models": [
                {"name": "m", "base": model, "prompt": {"system": "Answer in one sentence."}}
            ],
            "methods": ["GA_GDN"],
            "unlearn_targets": 1,
            "finetune": {"max_epochs": epochs, "learning_rate": 1e-4, "stop_token_accuracy": 1.0},
        }
    )


def smaller(folder: Path, to: Path, layers: int = 4) -> Path:
    """The same architecture, vocabulary and tokenizer with fewer layers and random weights."""
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(to)
    AutoTokenizer.from_pretrained(folder).save_pretrained(to)
    return to


class Watch:
    """Wall and CPU seconds spent inside it, summed over the times it was entered."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> Watch:
        self.began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.began[0]
        self.cpu += time.process_time() - self.began[1]


def ours(learner: TextLearner, examples: TextExamples, asked: Study) -> dict[str, float]:
    """Seconds of the epochs and of the proofs, and the last epoch's loss."""
    stepper = TorchStepper(learner.module, 0.0, asked.finetune.gradient_clip)
    training = Finetuning(learner, stepper, examples, asked.finetune, (asked.seed, 0))
    proofs = Watch()
    memorised = training.memorised

    def timed() -> tuple[float, float]:
        with proofs:
            return memorised()

    training.memorised = timed  # type: ignore[method-assign] # to time it apart
    with Watch() as watch:
        history = list(training.run())
    assert history[-1].epoch == asked.finetune.max_epochs, history[-1]
    return {
        "seconds": watch.seconds - proofs.seconds,
        "cpu": watch.cpu - proofs.cpu,
        "proofs": proofs.seconds,
        "loss": float(history[-1].loss or 0),
    }


def trainers(
    learner: TextLearner, examples: TextExamples, asked: Study, device: str
) -> dict[str, float]:
    """The same of the Trainer as peers use it: rows padded to the longest of their batch."""

    def collate(rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        batch = learner.encoder.batch(examples, [row["row"] for row in rows])
        return {
            "input_ids": batch.input_ids_BT,
            "attention_mask": batch.attention_mask_BT,
            "labels": batch.labels_BT,
        }

    config = asked.finetune
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=learner.module,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=config.batch_size,
                num_train_epochs=config.max_epochs,
                learning_rate=config.learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=config.warmup_steps,
                max_grad_norm=config.gradient_clip,
                optim="adamw_torch_fused",
                save_strategy="no",
                logging_strategy="epoch",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=device == "cpu",
            ),
            train_dataset=[{"row": row} for row in range(len(examples.sizes))],
            data_collator=collate,
        )
        trainer.remove_callback(PrinterCallback)
        with Watch() as watch:
            trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": watch.seconds, "cpu": watch.cpu, "proofs": 0.0, "loss": losses[-1]}


def main() -> None:
    """Both, in turns."""
    options = parser(__doc__)
    options.add_argument("--model", default="builtin:smollm2", help="as in a study")
    options.add_argument("--store", type=Path, default=Path("results"), help="holds the model")
    options.add_argument("--threads", type=int, default=0, help="0: all cores")
    options.add_argument("--rows", type=int, default=48)
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--repeats", type=int, default=2)
    given = options.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    about = machine(given.device)
    asked = study(given.model, given.rows, given.epochs)
    plan, store = make_plan(asked), Store(given.store)
    if not store.is_done(plan.models[0].key):
        fetch_model(plan.models[0], asked, store)
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(plan.models[0], store)
        if given.quick:
            folder = smaller(folder, Path(scratch))
        learner = text.open_learner(folder, asked, asked.models[0], given.device)
        examples = learner.encode(text.make_rows(range(given.rows), asked.dataset, asked.seed))
    start = {name: p.detach().clone() for name, p in learner.module.named_parameters()}
    found: dict[str, list[dict[str, float]]] = {"Trainer (baseline)": [], "distforget": []}
    for _ in range(given.repeats):
        for name, figures in found.items():
            restore(learner.module, start)
            figures.append(
                ours(learner, examples, asked)
                if name == "distforget"
                else trainers(learner, examples, asked, given.device)
            )
    tokens = given.epochs * int(examples.sizes.sum())
    best = {name: min(figures, key=lambda f: f["seconds"]) for name, figures in found.items()}
    gflop = 6e-9 * sum(p.numel() for p in start.values())
    base = best["Trainer (baseline)"]
    table = [
        {
            "what": name,
            "tokens/s": tokens / figures["seconds"],
            "ratio": base["seconds"] / figures["seconds"],
            "ratio of CPU time": base["cpu"] / figures["cpu"],
            "share of peak": tokens * gflop / figures["seconds"] / about["matmul_gflops"],
            "proofs s": figures["proofs"],
            "last loss": figures["loss"],
        }
        for name, figures in best.items()
    ]
    report("fine-tuning, tokens a second", table, about, given.output)


if __name__ == "__main__":
    main()
