"""Fine-tuning with Ray Train: Ray Data feeds the workers, torch or DeepSpeed takes the steps."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.train
import torch
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import load_file

from distforget import schemas, selection
from distforget.engine import weights
from distforget.engine.cluster import cores, uses_gpu
from distforget.engine.data import shards_of
from distforget.engine.models import model_folder
from distforget.plan import Step
from distforget.store import Store
from distforget.study import Placement, Study
from distforget.tracks import track
from distforget.training import Epoch, Finetuning, Stepper, TorchStepper, micro_batch_count


@dataclass(frozen=True)
class Job:
    """What a training worker is told."""

    step: Step
    study: Study
    placement: Placement
    store: Store
    device: str
    threads: int


def finetune(
    step: Step,
    study: Study,
    placement: Placement,
    store: Store,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Commit a finetune step: `weights.safetensors` and `training.parquet`.

    Continues from the last checkpoint of the step, whoever wrote it. A lost worker is replaced and
    the group continues from there too, up to `placement.retries` times.

    Raises:
        RuntimeError: training failed for good; the message is the worker's.
    """
    on_gpu = uses_gpu(placement)
    threads = max(1, cores(placement) // placement.train_workers)
    job = Job(step, study, placement, store, "cuda" if on_gpu else "cpu", threads)
    scaling = ScalingConfig(
        num_workers=placement.train_workers,
        use_gpu=on_gpu,
        resources_per_worker={"CPU": 1, **({"GPU": 1} if on_gpu else {})},
    )
    work = store.work(step.key)
    trainer = TorchTrainer(
        _train,
        train_loop_config={"job": job},
        datasets={"train": shards_of(step.inputs["dataset"], store)},
        dataset_config=DataConfig(datasets_to_split=[]),
        scaling_config=scaling,
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(
            name=f"{step.key[:12]}-{os.getpid()}-{time.time_ns()}",
            storage_path=str((work / "ray").resolve()),
            failure_config=FailureConfig(max_failures=placement.retries),
        ),
    )
    finished = threading.Event()
    reader = threading.Thread(
        target=_follow, args=(work / "progress.jsonl", finished, on_epoch), daemon=True
    )
    reader.start()
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        cause = getattr(error, "worker_failures", None) or {}
        first = next(iter(cause.values()), error)
        raise RuntimeError(f"{step.title}: {first}") from error
    finally:
        finished.set()
        reader.join()
    store.drop_work(step.key)


def _follow(path: Path, finished: threading.Event, on_epoch: Callable[[Epoch], None]) -> None:
    """Report the epochs that workers append to the progress file."""
    position = 0
    while True:
        last_look = finished.wait(0.5)
        if path.exists():
            with path.open() as file:
                file.seek(position)
                lines = file.readlines()
                position = file.tell()
            for line in lines:
                on_epoch(Epoch(**json.loads(line)))
        if last_look:
            return


def _train(config: dict[str, Any]) -> None:
    """Runs in each training worker."""
    job: Job = config["job"]
    step, study = job.step, job.study
    torch.set_num_threads(job.threads)
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = f"cuda:{torch.cuda.current_device()}" if job.device == "cuda" else "cpu"
    shard = ray.train.get_dataset_shard("train")
    blocks = list(shard.iter_batches(batch_format="pyarrow", batch_size=None))
    samples = schemas.check(pa.concat_tables(blocks), "samples", "training data")
    rows = selection.training_rows(samples.sort_by("sample_id"), step.about["dose"])
    model = next(m for m in study.models if m.name == step.about["model"])
    folder = model_folder(step.inputs["model"], job.store)
    learner = track(study.track).open_learner(folder, study, model, device)
    if job.placement.gradient_checkpointing:
        learner.module.gradient_checkpointing_enable()
        learner.module.train()
    stepper = _stepper(job, learner, rank, world)
    training = Finetuning(
        learner,
        stepper,
        learner.encode(rows),
        study.finetune,
        (study.seed, step.about["seed"]),
    )
    checkpoint = job.store.work(step.key) / "checkpoint.safetensors"
    history = _load_checkpoint(checkpoint, stepper)
    saved = time.monotonic()
    for epoch in training.run(history):
        if rank == 0:
            _append(checkpoint.with_name("progress.jsonl"), epoch)
        due = epoch.stopped is None and time.monotonic() - saved > job.placement.checkpoint_seconds
        if stepper.sum([float(due and rank == 0)])[0]:
            _save_checkpoint(checkpoint, stepper.state(), training.history)
            saved = time.monotonic()
        ray.train.report({"epoch": epoch.epoch})
    state = stepper.state()
    if rank == 0:
        trained = {
            n.removeprefix("weight/"): t for n, t in state.items() if n.startswith("weight/")
        }
        _commit(job, trained, training.history)


def _stepper(job: Job, learner: Any, rank: int, world: int) -> Stepper:
    config = job.study.finetune
    if job.placement.stepper == "deepspeed":
        from distforget.engine.deepspeed import DeepSpeedStepper

        stepper = DeepSpeedStepper(
            learner.module,
            config,
            job.placement,
            micro_batch_count(config, world),
            bf16=job.study.dtype == "bfloat16",
        )
        learner.module = stepper.engine
        return stepper
    return TorchStepper(learner.module, config.weight_decay, config.gradient_clip, rank, world)


def _append(path: Path, epoch: Epoch) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(epoch)) + "\n")


def _save_checkpoint(path: Path, state: dict[str, Any], history: list[Epoch]) -> None:
    """Rank 0 writes weights, optimiser state and history into one file, atomically."""
    if not state:
        return
    from safetensors.torch import save_file

    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(state, temporary, {"history": json.dumps([asdict(epoch) for epoch in history])})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _load_checkpoint(path: Path, stepper: Stepper) -> list[Epoch]:
    if not path.exists():
        return []
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        history = json.loads(file.metadata()["history"])
    stepper.load_state(load_file(path))
    return [Epoch(**epoch) for epoch in history]


def _commit(job: Job, trained: dict[str, Any], history: list[Epoch]) -> None:
    about = {name: job.step.about[name] for name in ("model", "dose", "seed")}
    table = schemas.from_rows("training", [{**about, **asdict(epoch)} for epoch in history])

    def fill(folder: Path) -> None:
        weights.save(trained, folder / "weights.safetensors")
        schemas.write(table, "training", folder / "training.parquet")

    job.store.commit(job.step, fill, device=job.device, seconds=history[-1].seconds)
