"""LoRA adapters of several cells on one frozen model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from distforget.errors import UsageError
from distforget.study import AdapterConfig

PARTS = ("lora_A", "lora_B")
RANK_AXIS = {"lora_A": 0, "lora_B": 1}


class Adapters:
    """K slots of LoRA weights; each row of a batch is computed with the slot it is given.

    Every adapted layer adds alpha/rank * B A x with A (R, I) and B (O, R) of the row's slot. They
    lie in the layer as `lora_A` (K, R, I) and `lora_B` (K, O, R), the only weights of the model
    that take gradients, in float32 or wider. A slot's weights are a mapping with the names that
    peft gives them. Without :meth:`rows` all rows use slot 0.

    Layers must keep the rows of a batch in their order (mixtures of experts do not). Gradient
    checkpointing runs layers again after :meth:`rows` has ended, so it is for slot 0 alone.

    Source: Hu et al. 2021, LoRA.
    """

    def __init__(
        self, model: PreTrainedModel, config: AdapterConfig, generator: torch.Generator
    ) -> None:
        self.model = model
        self.config = config
        self.layers = _adapted_layers(model, config)
        self.ranks: list[int] = []
        self._rows: int | None = None
        self._slot_of_group: Tensor | None = None
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for layer in self.layers.values():
            layer.register_forward_hook(self._add)
        self.load([self.fresh(generator)])

    def fresh(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights that change nothing yet: B is zero, A uniform in +-1/sqrt(I), as in peft."""
        found = {}
        for name, layer in self.layers.items():
            limit = 1 / math.sqrt(layer.in_features)
            A_RI = torch.empty(self.config.rank, layer.in_features)
            found[_key(name, "lora_A")] = A_RI.uniform_(-limit, limit, generator=generator)
            found[_key(name, "lora_B")] = torch.zeros(layer.out_features, self.config.rank)
        return found

    def load(self, slots: Sequence[Mapping[str, Any]]) -> None:
        """Copy these weights into slots 0, 1, ...; there are then as many as given.

        Ranks may differ: narrower slots are filled with zeros, which changes no output and takes
        no gradient. Optimisers made before hold weights that are no longer used.
        """
        first = _key(next(iter(self.layers)), "lora_A")
        self.ranks = [len(weights[first]) for weights in slots]
        for name, layer in self.layers.items():
            dtype = torch.promote_types(layer.weight.dtype, torch.float32)
            for part in PARTS:
                stacked = torch.stack(
                    [
                        _widened(torch.as_tensor(w[_key(name, part)]), part, max(self.ranks))
                        for w in slots
                    ]
                )
                setattr(layer, part, nn.Parameter(stacked.to(layer.weight.device, dtype)))

    def weights(self, slot: int) -> dict[str, Tensor]:
        """A copy of a slot's weights under peft's names: A (R, I), B (O, R), R the slot's own."""
        return {
            _key(name, part): stack.detach()[slot]
            .narrow(RANK_AXIS[part], 0, self.ranks[slot])
            .clone(memory_format=torch.contiguous_format)
            for name, part, stack in self._stacks()
        }

    def parameters(self, slot: int) -> nn.ParameterList:
        """A slot's weights as parameters of their own: what changes them changes the slot."""
        return nn.ParameterList(
            nn.Parameter(stack.detach()[slot]) for _, _, stack in self._stacks()
        )

    def take_gradients(self, slots: Mapping[int, nn.ParameterList]) -> None:
        """Move the gradients of a backward pass to the parameters of these slots."""
        for index, (_, _, stack) in enumerate(self._stacks()):
            for slot, parameters in slots.items():
                parameters[index].grad = None if stack.grad is None else stack.grad[slot]
            stack.grad = None

    @contextmanager
    def rows(self, slot_of_row: Sequence[int]) -> Iterator[None]:
        """Forward passes inside take batches of this many rows, each with its slot.

        Rows of a slot that stand together, equally many for each slot, are the quickest.
        """
        before = self._rows, self._slot_of_group
        # Layers multiply group by group: the longest groups into which all runs of a slot divide.
        size = math.gcd(*(len(list(run)) for _, run in groupby(slot_of_row)))
        groups = list(slot_of_row)[::size]
        device = next(iter(self.layers.values())).weight.device
        self._rows = len(slot_of_row)
        self._slot_of_group = torch.tensor(groups).to(device, non_blocking=True)
        try:
            yield
        finally:
            self._rows, self._slot_of_group = before

    @contextmanager
    def merged(self) -> Iterator[PreTrainedModel]:
        """The model with slot 0 merged into its layers, W + alpha/rank * B A in the dtype of W.

        Afterwards slot 0 and all weights of the model are what they were before.
        """
        slot = self.weights(0)
        module: nn.Module = self.model
        frozen = {n: p for n, p in module.named_parameters() if not n.endswith(PARTS)}
        before = {name: p.detach().to("cpu", copy=True) for name, p in frozen.items()}
        with torch.no_grad():
            for name, layer in self.layers.items():
                A_RI, B_OR = (slot[_key(name, part)] for part in PARTS)
                change_OI = self.config.alpha / self.config.rank * (B_OR @ A_RI)
                layer.weight.copy_((layer.weight + change_OI).to(layer.weight))
        self.load([{key: torch.zeros_like(weight) for key, weight in slot.items()}])
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for name, weight in before.items():
                    frozen[name].copy_(weight)
            self.load([slot])

    def in_one_basis(
        self, start: Mapping[str, Any], reached: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Both weights written so that sums of them are sums of the models' whole weights.

        A of both is [A_start; A_reached], B is [B_start, 0] and [0, B_reached], so that B A is what
        it was and is linear in B. A task vector's negation, tensor by tensor, is then exactly that
        of the whole weights W + alpha/rank * B A (Ilharco et al. 2023), at twice the rank. Zhang
        et al. 2023 (Composing Parameter-Efficient Modules with Arithmetic Operations) negate a
        module's product too, but add modules tensor by tensor in A and B; with a start that is not
        zero, that differs from the whole weights' sum by a product of the changes of A and B.
        """
        wide_start, wide_reached = {}, {}
        for name in self.layers:
            a, b = (_key(name, part) for part in PARTS)
            B_start = torch.as_tensor(start[b]).to(reached[b])
            A_start = torch.as_tensor(start[a]).to(reached[a])
            wide_start[a] = wide_reached[a] = torch.cat([A_start, reached[a]])
            wide_start[b] = torch.cat([B_start, torch.zeros_like(reached[b])], 1)
            wide_reached[b] = torch.cat([torch.zeros_like(B_start), reached[b]], 1)
        return wide_start, wide_reached

    def write(self, weights: Mapping[str, Tensor], folder: Path) -> None:
        """Write a slot's weights as adapter_model.safetensors and adapter_config.json for peft."""
        from peft import LoraConfig  # slow to import, and needed by few

        rank = len(weights[_key(next(iter(self.layers)), "lora_A")])
        targets = self.config.target_modules
        LoraConfig(
            r=rank,
            # peft divides by the rank at hand, which is not the configured one after TV.
            lora_alpha=self.config.alpha * rank / self.config.rank,  # type: ignore[arg-type] # a float is as good
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
            inference_mode=True,
        ).save_pretrained(str(folder))
        save_file(dict(weights), folder / "adapter_model.safetensors")

    def _stacks(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        for name, layer in self.layers.items():
            for part in PARTS:
                yield name, part, cast(nn.Parameter, getattr(layer, part))

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        (x,) = inputs
        # Some layers see (B * T, I): groups of rows stand together there, too.
        if self._rows is not None and x.ndim == 3 and len(x) != self._rows:
            raise ValueError(f"the batch has {len(x)} rows, but slots were given for {self._rows}")
        A_GRI, B_GOR = (self._of_groups(cast(Tensor, getattr(layer, part))) for part in PARTS)
        x_GNI = x.to(A_GRI.dtype).reshape(len(A_GRI), -1, x.shape[-1])
        low_GNR = torch.bmm(x_GNI, A_GRI.mT) * (self.config.alpha / self.config.rank)
        return output + torch.bmm(low_GNR, B_GOR.mT).view_as(output).to(output.dtype)

    def _of_groups(self, stack: Tensor) -> Tensor:
        if self._slot_of_group is None:
            return stack[:1]
        return stack.index_select(0, self._slot_of_group)


def _adapted_layers(model: PreTrainedModel, config: AdapterConfig) -> dict[str, nn.Linear]:
    module: nn.Module = model
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call] # untyped in transformers
    linear = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head
    }
    asked = config.target_modules
    targets = (asked,) if isinstance(asked, str) else asked
    for target in targets:
        if not any(_is_meant(name, target) for name in linear):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
            raise UsageError(
                f"adapter.target_modules: {target!r} fits no linear layer of "
                f"{type(model).__name__}; it has: {known}"
            )
    return {n: layer for n, layer in linear.items() if any(_is_meant(n, t) for t in targets)}


def _is_meant(name: str, target: str) -> bool:
    return target == "all-linear" or f".{name}".endswith(f".{target}")


def _key(layer: str, part: str) -> str:
    return f"base_model.model.{layer}.{part}.weight"


def _widened(weight: Tensor, part: str, rank: int) -> Tensor:
    missing = rank - weight.shape[RANK_AXIS[part]]
    return nn.functional.pad(weight, (0, 0, 0, missing) if part == "lora_A" else (0, missing))
