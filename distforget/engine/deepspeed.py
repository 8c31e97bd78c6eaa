"""The DeepSpeed version of the Stepper: ZeRO 1, 2 and 3, optional CPU offload."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distforget.errors import UsageError
from distforget.placement import Placement
from distforget.steppers import TeamLostError
from distforget.tracks.base import Learner

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed  # after its settings
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)

MOMENTS = ("exp_avg", "exp_avg_sq")
BUCKET = 50_000_000
"""Numbers that are sent at once."""


class DeepSpeedStepper:
    """AdamW through a DeepSpeed engine; checkpoints are the same files as torch's."""

    def __init__(
        self,
        module: nn.Module,
        weight_decay: float,
        clip: float,
        placement: Placement,
        bf16: bool,
    ) -> None:
        self.rank = torch.distributed.get_rank()
        self.world = torch.distributed.get_world_size()
        # Buckets of gradients on their way: of the default size they take 4 GiB beside the weights.
        sizes = ("reduce_bucket_size", "allgather_bucket_size")
        zero: dict[str, Any] = {"stage": placement.zero_stage, **dict.fromkeys(sizes, BUCKET)}
        if placement.offload:
            zero["offload_optimizer"] = {"device": "cpu"}
        self.engine, *_ = deepspeed.initialize(
            model=module,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "managed_gradient_accumulation": False,  # a step takes as many shares as it has
                "gradient_clipping": clip,
                "bf16": {"enabled": bf16},
                "zero_optimization": zero,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "wall_clock_breakdown": False,
                "steps_per_print": 10**9,
            },
            optimizer=torch.optim.AdamW(module.parameters(), lr=0.0, weight_decay=weight_decay),
        )

        self._prepare_moments()

    @property
    def _moments(self) -> Any:
        """State of the wrapped AdamW, by flat partition."""
        return self.engine.optimizer.optimizer.state

    def _prepare_moments(self) -> None:
        """Have moments of zero now: DeepSpeed makes them with the first step, too late to load."""
        zero = self.engine.optimizer
        if hasattr(zero, "fp32_partitioned_groups_flat"):
            partitions = zero.fp32_partitioned_groups_flat
        else:
            partitions = zero.single_partition_of_fp32_groups
        for partition in partitions:
            self._moments[partition] = {m: torch.zeros_like(partition) for m in MOMENTS}
        self._set_step(0.0)
        if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
            zero._lazy_init_hp_params_optimizer_state()

    def _set_step(self, step: float) -> None:
        for moments in self._moments.values():
            moments["step"] = torch.tensor(step)

    def backward(self, share: Tensor) -> None:
        """See `Stepper`; DeepSpeed averages over workers, shares add up."""
        self.engine.backward(share * self.world)

    def step(self, learning_rate: float, share: Tensor) -> Tensor:
        """See `Stepper`; DeepSpeed itself skips a step whose gradient is not finite."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        (loss,) = self.sum([float(share)])
        return torch.tensor([loss, not self.engine.optimizer.overflow], dtype=torch.float64)

    def sum(self, values: Sequence[float]) -> list[float]:
        """See `Stepper`."""
        total = torch.tensor(values, dtype=torch.float64, device=self.engine.device)
        torch.distributed.all_reduce(total)
        return [float(v) for v in total]

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.engine.module.named_parameters() if p.requires_grad)

    def state(self) -> dict[str, Tensor]:
        """See `Stepper`."""
        step = next(iter(self._moments.values()))["step"]
        found: dict[str, Tensor] = {"step": step.reshape(1).float().cpu().clone()}
        for name, parameter in self._named():
            whole = {"weight": safe_get_full_fp32_param(parameter)}
            for moment in MOMENTS:
                whole[moment] = safe_get_full_optimizer_state(parameter, moment)
            if self.rank == 0:
                for kind, tensor in whole.items():
                    if tensor is not None:
                        found[f"{kind}/{name}"] = tensor.detach().cpu().clone()
        return found if self.rank == 0 else {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Stepper`."""
        for name, parameter in self._named():
            self._set(parameter, state[f"weight/{name}"])
            for moment in MOMENTS:
                if f"{moment}/{name}" in state:
                    safe_set_full_optimizer_state(parameter, state[f"{moment}/{name}"], moment)
        self._set_step(float(state["step"]))

    def _set(self, parameter: nn.Parameter, weight: Tensor) -> None:
        # Forward passes use a copy of their own (a shard of it in stage 3), made by each step.
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
            parameter.copy_(weight)
        safe_set_full_fp32_param(parameter, weight.float())

    def begin(self, weights: Mapping[str, Tensor], clip: float) -> None:
        """Start anew from these weights, as a stepper that has just been made."""
        for name, parameter in self._named():
            self._set(parameter, weights[name])
        for moments in self._moments.values():
            for moment in MOMENTS:
                moments[moment].zero_()
        self._set_step(0.0)
        self.engine.optimizer.clip_grad = clip

    def whole(self) -> Iterator[tuple[str, Tensor]]:
        """Each whole weight in float32, one at a time; all workers must take each."""
        for name, parameter in self._named():
            yield name, safe_get_full_fp32_param(parameter)

    def weights(self) -> dict[str, Tensor]:
        """See `Stepper`; copies on the CPU."""
        return {name: weight.to("cpu", copy=True) for name, weight in self.whole()}

    def train_only(self, share: float) -> None:
        """See `Stepper`."""
        raise UsageError(
            "stepper: with deepspeed no worker has the whole gradients by which this method "
            "chooses its weights; use torch"
        )


class DeepSpeedTeam:
    """Workers that share gradients and AdamW's state (in stage 3 weights too) while they train.

    The engine is made once and begins each cell anew. For asking, each worker has the learner's
    own whole weights: of stages 1 and 2 the engine trains those, of stage 3 a sharded copy.
    """

    def __init__(self, rank: int, world: int, placement: Placement, bf16: bool) -> None:
        self.rank, self.world = rank, world
        self.placement, self.bf16 = placement, bf16
        self.stepper: DeepSpeedStepper | None = None
        self.trained: nn.Module | None = None

    @contextmanager
    def stepping(self, learner: Learner, clip: float) -> Iterator[DeepSpeedStepper]:
        """See `Team`."""
        module = learner.module
        if self.trained is not module or self.stepper is None:
            copied = copy.deepcopy(module) if self.placement.zero_stage == 3 else module
            self.stepper = DeepSpeedStepper(copied, 0.0, clip, self.placement, self.bf16)
            self.trained = module
        own = {name: p.detach() for name, p in module.named_parameters()}
        self.stepper.begin(own, clip)
        learner.module = self.stepper.engine
        try:
            yield self.stepper
        except Exception as error:
            # The engine is left with half a step, and its module takes no second one.
            raise TeamLostError(f"{type(error).__name__}: {error}") from error
        finally:
            learner.module = module
        with torch.no_grad():
            for name, weight in self.stepper.whole():
                own[name].copy_(weight)
