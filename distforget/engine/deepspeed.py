"""The DeepSpeed version of the Stepper: ZeRO 1, 2 and 3, optional CPU offload."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distforget.placement import Placement
from distforget.study import FinetuneConfig

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


class DeepSpeedStepper:
    """AdamW through a DeepSpeed engine; checkpoints are the same files as torch's."""

    def __init__(
        self,
        module: nn.Module,
        config: FinetuneConfig,
        placement: Placement,
        micro_batches_per_step: int,
        bf16: bool,
    ) -> None:
        self.rank = torch.distributed.get_rank()
        self.world = torch.distributed.get_world_size()
        self.micro_batches_per_step = micro_batches_per_step
        zero: dict[str, Any] = {"stage": placement.zero_stage}
        if placement.offload:
            zero["offload_optimizer"] = {"device": "cpu"}
        self.engine, *_ = deepspeed.initialize(
            model=module,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": micro_batches_per_step,
                "gradient_clipping": config.gradient_clip,
                "bf16": {"enabled": bf16},
                "zero_optimization": zero,
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "wall_clock_breakdown": False,
                "steps_per_print": 10**9,
            },
            optimizer=torch.optim.AdamW(
                module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
            ),
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
        """See `Stepper`; DeepSpeed averages over workers and accumulation, shares add up."""
        self.engine.backward(share * self.world * self.micro_batches_per_step)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()

    def step(self, learning_rate: float) -> bool:
        """See `Stepper`; DeepSpeed itself skips a step whose gradient is not finite."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self.engine.step()
        return not self.engine.optimizer.overflow

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
            weight = state[f"weight/{name}"]
            # Forward passes use a copy of their own (a shard of it in stage 3), made by each step.
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
                parameter.copy_(weight)
            safe_set_full_fp32_param(parameter, weight)
            for moment in MOMENTS:
                if f"{moment}/{name}" in state:
                    safe_set_full_optimizer_state(parameter, state[f"{moment}/{name}"], moment)
        self._set_step(float(state["step"]))
