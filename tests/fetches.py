"""Counts how often code would wait for a GPU, on a machine without one.

A tensor that depends on a model's weights counts as lying on the device, all others on the host.
Code that reads a number off such a tensor, or needs its contents to know a shape, would wait until
the GPU has done all it was given before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITING = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "bincount", "_unique2"}


class _Fetches(TorchDispatchMode):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.storages: dict[int, Any] = {}
        """Kept alive, so that no address is used twice."""
        for parameter in module.parameters():
            self.mark(parameter)

    def mark(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.storages[storage._cdata] = storage

    def depends(self, tensor: object) -> bool:
        return isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata in self.storages

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        depending = [leaf for leaf in tree_leaves((args, kwargs or {})) if self.depends(leaf)]
        name = func._schema.name.removeprefix("aten::")
        by_mask = name.startswith("index") and any(t.dtype is torch.bool for t in depending)
        if depending and (name in WAITING or by_mask):
            self.found[name] += 1
        result = func(*args, **(kwargs or {}))
        if depending:
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.mark(leaf)
        return result


@contextmanager
def fetches(module: nn.Module) -> Iterator[Counter[str]]:
    """By name of the operation, fetches inside of what depends on the module's weights."""
    mode, tolist = _Fetches(module), Tensor.tolist

    def counting(tensor: Tensor) -> Any:
        mode.found["tolist"] += mode.depends(tensor)
        return tolist(tensor)

    with patch.object(Tensor, "tolist", counting), mode:
        yield mode.found
