"""Fine-tuning with Ray Train: Ray Data feeds the workers, torch or DeepSpeed takes the steps."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.train
import torch
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from safetensors.torch import load_file

from distforget import schemas, selection
from distforget.engine.cluster import uses_gpu
from distforget.engine.data import shards_of
from distforget.engine.memory import tokens_at_once
from distforget.engine.models import model_folder
from distforget.engine.rows import trained
from distforget.engine.states import Outcome
from distforget.engine.worker import left_out
from distforget.errors import UsageError
from distforget.placement import Placement
from distforget.plan import Step
from distforget.steppers import Stepper, TorchStepper
from distforget.store import Store
from distforget.study import Study
from distforget.tracks import track
from distforget.tracks.base import Examples, Learner
from distforget.training import Epoch, Finetuning


@dataclass(frozen=True)
class Job:
    """The configuration of a training worker."""

    steps: Sequence[Step]
    study: Study
    placement: Placement
    store: Store
    device: str
    threads: int


def finetune(
    dealt: Sequence[Sequence[Step]],
    study: Study,
    placement: Placement,
    store: Store,
    threads: int,
    on_event: Callable[[Step, Epoch | Outcome], None],
) -> None:
    """Commit finetune steps: `weights.safetensors` and `training.parquet` each.

    Each group of workers trains its steps one after the other (a group takes long to start). A step
    continues from its last checkpoint, whoever wrote it. When a worker is lost, a new group goes on
    from there too, up to `placement.retries` times a step. A training run that fails is an attempt.

    Args:
        dealt: the steps of each group; groups run side by side.
        threads: of a worker; 0: as many as it finds cores.
        on_event: told of each epoch, and of each step's outcome.
    """
    if study.adapter and placement.stepper == "deepspeed" and placement.zero_stage == 3:
        raise UsageError(
            "--zero-stage: stage 3 shards layers that adapters need whole; take 1 or 2, or torch"
        )
    device = "cuda" if uses_gpu(placement) else "cpu"
    jobs = [Job(steps, study, placement, store, device, threads) for steps in dealt]
    every = [step for steps in dealt for step in steps]
    pool = ThreadPoolExecutor(len(jobs))
    with _following(every, store, on_event):
        try:
            for running in [pool.submit(_fit_all, job) for job in jobs]:
                running.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    for step in every:
        if store.is_done(step.key):
            seconds = store.manifest(step.key)["seconds"]
            on_event(step, Outcome(step.key, True, seconds))
            store.drop_work(step.key)
        else:
            message = store.attempts(step.key)[-1].error_message
            on_event(step, Outcome(step.key, False, 0.0, message))


def _fit_all(job: Job) -> None:
    """Run groups of workers until each step is done or has failed; a lost worker costs one step."""
    store, left = job.store, list(job.steps)
    known = {step.key: len(store.attempts(step.key)) for step in left}
    losses = dict.fromkeys(known, 0)

    def is_open(step: Step) -> bool:
        return not store.is_done(step.key) and len(store.attempts(step.key)) == known[step.key]

    while left:
        lost = _fit(replace(job, steps=left))
        left = [step for step in left if is_open(step)]
        if not left:
            return
        step = left[0]  # the one at work when the group was lost
        losses[step.key] += 1
        if losses[step.key] > job.placement.retries:
            message = f"its workers were lost {losses[step.key]} times: {lost}"
            store.record_attempt(step, "failed", error_class="WorkerLost", error_message=message)
            left.remove(step)


def _fit(job: Job) -> str:
    """Run a group of workers and return why it was lost, or '' if it was not.

    Raises:
        DiskError: the disk is full or read-only; not tried again, which may take hours.
    """
    try:
        with job.store.scratch("train") as scratch, job.store.explaining("fine-tuned weights"):
            _trainer(job, scratch).fit()
    except ray.train.WorkerGroupError as error:
        # Its own text cuts the workers' errors short.
        failures = list(error.worker_failures.values())
        for failure in failures:
            job.store.explain(failure, "fine-tuned weights")
        return "; ".join(f"{type(failure).__name__}: {failure}" for failure in failures)
    except ray.train.TrainingFailedError as error:
        return str(error)
    return ""


def _trainer(job: Job, scratch: Path) -> TorchTrainer:
    placement, on_gpu = job.placement, job.device == "cuda"
    return TorchTrainer(
        _train_all,
        train_loop_config={"job": job},
        datasets={"train": shards_of(job.steps[0].inputs["dataset"], job.store)},
        dataset_config=DataConfig(datasets_to_split=[]),
        scaling_config=ScalingConfig(
            num_workers=placement.train_workers,
            use_gpu=on_gpu,
            resources_per_worker={"CPU": 1, **({"GPU": 1} if on_gpu else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(
            name=f"finetune-{time.time_ns()}",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=0),
        ),
    )


@contextmanager
def _following(
    steps: Sequence[Step], store: Store, on_event: Callable[[Step, Epoch | Outcome], None]
) -> Iterator[None]:
    """Report the epochs that workers append to the steps' progress files."""
    positions = dict.fromkeys((step.key for step in steps), 0)
    finished = threading.Event()

    def look() -> None:
        for step in steps:
            known = store.kept(step.key, "progress.jsonl")
            lines = known[positions[step.key] :].splitlines()
            positions[step.key] = len(known)
            for line in lines:
                with suppress(ValueError):  # half a line, of a killed worker or on a full disk
                    on_event(step, Epoch(**json.loads(line)))

    def follow() -> None:
        while not finished.wait(0.5):
            look()
        look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _train_all(config: dict[str, Any]) -> None:
    """The loop of each training worker: trains the open steps one after the other."""
    job: Job = config["job"]
    torch.set_num_threads(job.threads or len(os.sched_getaffinity(0)))
    shard = ray.train.get_dataset_shard("train")
    blocks = list(shard.iter_batches(batch_format="pyarrow", batch_size=None))
    samples = schemas.check(pa.concat_tables(blocks), "samples", "training data")
    samples = samples.sort_by("sample_id")
    for step in job.steps:
        if job.store.is_done(step.key):
            continue
        try:
            _train(job, step, samples)
        except (FloatingPointError, UsageError) as error:
            # The same on each worker: none waits for another. Any other error ends the group.
            if ray.train.get_context().get_world_rank() == 0:
                job.store.record_attempt(
                    step,
                    "failed",
                    error_class=type(error).__name__,
                    error_message=str(error),
                    error_traceback=traceback.format_exc(),
                )


def _train(job: Job, step: Step, samples: pa.Table) -> None:
    study = job.study
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = f"cuda:{torch.cuda.current_device()}" if job.device == "cuda" else "cpu"
    rows = selection.training_rows(samples, step.about["dose"])
    model = next(m for m in study.models if m.name == step.about["model"])
    folder = model_folder(step.inputs["model"], job.store)
    learner = track(study.track).open_learner(
        folder, study, model, device, samples, step.about["seed"]
    )
    if job.placement.gradient_checkpointing:
        learner.module.gradient_checkpointing_enable()
        learner.module.train()
    examples = learner.encode(rows)
    check_lengths(examples, rows, study.finetune.max_tokens)
    stepper = _stepper(job, learner, rank, world)
    training = Finetuning(
        learner,
        stepper,
        examples,
        study.finetune,
        (study.seed, step.about["seed"]),
        _left_out(learner, rows, step),
        _tokens_at_once(job.placement, learner.module, stepper),
    )
    checkpoint = job.store.work(step.key) / "checkpoint.safetensors"
    history = _load_checkpoint(checkpoint, stepper)
    saved = time.monotonic()
    for epoch in training.run(history):
        if rank == 0:
            _append(checkpoint.with_name("progress.jsonl"), epoch, job.store)
        due = epoch.stopped is None and time.monotonic() - saved > job.placement.checkpoint_seconds
        if stepper.sum([float(due and rank == 0)])[0]:
            _save_checkpoint(checkpoint, stepper.state(), training.history, job.store)
            saved = time.monotonic()
    state = stepper.state()
    if rank == 0:
        dtype = getattr(torch, study.dtype)
        found = {
            n.removeprefix("weight/"): t.to(dtype)
            for n, t in state.items()
            if n.startswith("weight/")
        }
        if learner.slots is not None:
            found = learner.slots.weights(0)
        fill = trained(step, found, training.history)
        seconds, threads = training.history[-1].seconds, torch.get_num_threads()
        job.store.commit(step, fill, device=job.device, threads=threads, seconds=seconds)


def _tokens_at_once(placement: Placement, module: torch.nn.Module, stepper: Stepper) -> int:
    """Those of rank 0 for all: each worker must take as many forward passes."""
    own = tokens_at_once(placement, module, stepper.world) if stepper.rank == 0 else 0
    return int(stepper.sum([own])[0])


def check_lengths(examples: Examples, rows: pa.Table, most: int) -> None:
    """Check that all samples are short enough for training.

    Raises:
        UsageError: one is not.
    """
    longest = int(np.argmax(examples.sizes))
    if examples.sizes[longest] > most:
        raise UsageError(
            f"finetune.max_tokens is {most}, but sample {rows['sample_id'][longest]} has "
            f"{examples.sizes[longest]} tokens with its prompt; raise it or shorten the sample"
        )


def _left_out(learner: Learner, rows: pa.Table, step: Step) -> list[int]:
    """Numbers of the rows that the training leaves out."""
    gone = left_out(learner, rows, step)["sample_id"]
    found: list[int] = np.flatnonzero(pc.is_in(rows["sample_id"], gone.combine_chunks())).tolist()
    return found


def _stepper(job: Job, learner: Any, rank: int, world: int) -> Stepper:
    config = job.study.finetune
    if job.placement.stepper == "deepspeed":
        from distforget.engine.deepspeed import DeepSpeedStepper

        stepper = DeepSpeedStepper(
            learner.module,
            config.weight_decay,
            config.gradient_clip,
            job.placement,
            bf16=job.study.dtype == "bfloat16",
        )
        learner.module = stepper.engine
        return stepper
    return TorchStepper(learner.module, config.weight_decay, config.gradient_clip, rank, world)


def _append(path: Path, epoch: Epoch, store: Store) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(epoch)) + "\n")
    store.keep(path)


def _save_checkpoint(path: Path, state: dict[str, Any], history: list[Epoch], store: Store) -> None:
    """Rank 0 writes weights, optimiser state and history into one file, atomically."""
    if not state:
        return
    from safetensors.torch import save_file

    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(state, temporary, {"history": json.dumps([asdict(epoch) for epoch in history])})
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    store.keep(path)


def _load_checkpoint(path: Path, stepper: Stepper) -> list[Epoch]:
    if not path.exists():
        return []
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        history = json.loads(file.metadata()["history"])
    stepper.load_state(load_file(path))
    return [Epoch(**epoch) for epoch in history]
