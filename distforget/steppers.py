"""Steppers take gradients and change weights; teams are the workers that do so together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import pyarrow as pa
import torch
from torch import Tensor, nn

from distforget.tracks.base import Learner


class Stepper(Protocol):
    """Takes gradients and changes weights; one implementation for torch, one for DeepSpeed.

    `rank` of `world` workers hold the same (or a shard of the same) model.
    """

    rank: int
    world: int

    def backward(self, share: Tensor) -> None:
        """Add the gradient of a worker's share of the global loss; shares add up over workers."""
        ...

    def step(self, learning_rate: float, share: Tensor) -> Tensor:
        """Change the weights and clear gradients, or only clear them where one is not finite.

        Args:
            share: this worker's share of the global loss, a scalar.

        Returns:
            (2,) the global loss, and 1 if the weights changed, else 0; still on the device. To read
            it is the only time that a step waits for the device.
        """
        ...

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum over workers, the same on each."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Whole weights and optimiser state on the CPU, on rank 0 (empty elsewhere).

        Names: weight/NAME, exp_avg/NAME, exp_avg_sq/NAME, and `step`. All ranks must call it.
        """
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a :meth:`state`, whichever stepper and number of workers wrote it."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Whole weights by name, float32 or wider, on each worker; not always copies."""
        ...

    def train_only(self, share: float) -> None:
        """From here on only this share of the weights is trained: the largest gradients now.

        Clears the gradients.

        Raises:
            UsageError: no worker has whole gradients.
        """
        ...


class TorchStepper:
    """AdamW on a plain module, or on one per worker with gradients summed over workers.

    Weights of 16 bits are rounded from float32 ones, on which steps are taken: at the learning
    rates of fine-tuning most steps are smaller than half the distance of two numbers of 16 bits.
    """

    def __init__(
        self, module: nn.Module, weight_decay: float, clip: float, rank: int = 0, world: int = 1
    ) -> None:
        self.module = module
        self.rank, self.world = rank, world
        self.clip = clip
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.masters = [
            nn.Parameter(p.detach().float()) if p.element_size() < 4 else p for p in self.parameters
        ]
        self.optimiser = torch.optim.AdamW(
            self.masters, lr=0.0, weight_decay=weight_decay, fused=True
        )
        self.trained: list[Tensor] | None = None
        """Of each weight whether it is trained; None: all are."""
        # What failed in a backward pass before left a part of its gradient in the module.
        module.zero_grad(set_to_none=True)

    def backward(self, share: Tensor) -> None:
        """See `Stepper`."""
        share.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped

    def train_only(self, share: float) -> None:
        """See `Stepper`."""
        sizes = [torch.zeros_like(p) if p.grad is None else p.grad.abs() for p in self.parameters]
        every = torch.cat([size.flatten().float() for size in sizes])
        least = every.kthvalue(len(every) - max(1, int(share * len(every))) + 1).values
        self.trained = [size.float() >= least for size in sizes]
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, learning_rate: float, share: Tensor) -> Tensor:
        """See `Stepper`."""
        for parameter, master in self._rounded():
            if parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None
        for master, mine in zip(self.masters, self.trained or (), strict=bool(self.trained)):
            if master.grad is not None:
                master.grad.mul_(mine)
        gradients = [p.grad for p in self.masters if p.grad is not None]
        if self.world > 1:
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)
        norm = nn.utils.clip_grad_norm_(self.masters, self.clip)
        changes = torch.isfinite(norm).to(share.device)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        # What `GradScaler` tells AdamW too: on the device, which steps to leave out.
        self.optimiser.found_inf = (~changes).float()  # type: ignore[attr-defined] # torch's gap
        self.optimiser.step()
        self._round()
        self.optimiser.zero_grad(set_to_none=True)
        loss = share.detach().double()
        if self.world > 1:
            torch.distributed.all_reduce(loss)
        return torch.stack((loss, changes))

    def sum(self, values: Sequence[float]) -> list[float]:
        """See `Stepper`."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.parameters[0].device)
        torch.distributed.all_reduce(total)
        return [float(v) for v in total]

    def _rounded(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        pairs = zip(self.parameters, self.masters, strict=True)
        return [(parameter, master) for parameter, master in pairs if parameter is not master]

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, master in self._rounded():
            parameter.copy_(master)

    def weights(self) -> dict[str, Tensor]:
        """See `Stepper`; where they are, not copied."""
        return {name: master.detach() for name, master in self._named()}

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        names = (n for n, p in self.module.named_parameters() if p.requires_grad)
        return zip(names, self.masters, strict=True)

    def state(self) -> dict[str, Tensor]:
        """See `Stepper`."""
        if self.rank:
            return {}
        found: dict[str, Tensor] = {"step": torch.zeros(1)}
        for name, parameter in self._named():
            found[f"weight/{name}"] = parameter.detach().cpu().clone()
            inner = self.optimiser.state.get(parameter)
            if inner:
                found["step"] = inner["step"].reshape(1).float().cpu().clone()
                found[f"exp_avg/{name}"] = inner["exp_avg"].cpu().clone()
                found[f"exp_avg_sq/{name}"] = inner["exp_avg_sq"].cpu().clone()
        return found

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Stepper`."""
        for name, parameter in self._named():
            parameter.copy_(state[f"weight/{name}"])
            if f"exp_avg/{name}" in state:
                self.optimiser.state[parameter] = {
                    # A copy each: fused AdamW counts in place.
                    "step": state["step"].reshape(()).to(parameter.device, copy=True),
                    "exp_avg": state[f"exp_avg/{name}"].to(parameter),
                    "exp_avg_sq": state[f"exp_avg_sq/{name}"].to(parameter),
                }
        self._round()


class TeamLostError(RuntimeError):
    """A worker of a team was lost or cannot go on; the others must start anew with it."""


class Team(Protocol):
    """The workers that compute a cell together. Each has the same learner and does the same steps;
    each asks its own part of the questions."""

    rank: int
    world: int

    def stepping(self, learner: Learner, clip: float) -> AbstractContextManager[Stepper]:
        """A stepper for the learner's weights as they are now.

        Forward passes inside are of the module that it trains; afterwards the learner's own module
        has the weights that were reached. All workers must enter it.
        """
        ...


class TorchTeam:
    """Workers that all hold and train whole weights; of one, a cell without any team."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world

    @contextmanager
    def stepping(self, learner: Learner, clip: float) -> Iterator[Stepper]:
        """See `Team`."""
        yield TorchStepper(learner.module, 0.0, clip, self.rank, self.world)


ALONE = TorchTeam()


def own_part(rows: pa.Table, team: Team) -> pa.Table:
    """The rows that this worker is to ask: every `world`-th."""
    return rows.take(list(range(team.rank, len(rows), team.world)))


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """The rows of all workers' parts, by rank, in the order before they were dealt."""
    places = [(i, rank) for rank, part in enumerate(parts) for i in range(len(part))]
    order = sorted(range(len(places)), key=places.__getitem__)
    return pa.concat_tables(parts).take(order)


def restore(module: nn.Module, weights: Mapping[str, Any]) -> None:
    """Copy weights (tensors or read-only numpy arrays) into a module's parameters, in place."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.as_tensor(weights[name]), non_blocking=True)
