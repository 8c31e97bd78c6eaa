"""Loads a dataset of the Hugging Face hub; leaves what is in it to the tracks."""

from __future__ import annotations

from typing import Any

from distforget.dataset_config import DatasetConfig, UtilityConfig
from distforget.study import UsageError


def load(config: DatasetConfig | UtilityConfig, instead: str) -> Any:
    """The `datasets.Dataset` at `path`, its `split` as of `revision`.

    Args:
        instead: the source to use where there is no hub, for the message.

    Raises:
        UsageError: it cannot be loaded; says what to set.
    """
    import datasets

    try:
        return datasets.load_dataset(
            config.path, split=config.split, revision=config.revision or None
        )
    except Exception as error:
        # The library raises whatever its transport raises; each means that there is no data.
        text = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{name(config)}: cannot be loaded from the hub ({type(error).__name__}: {text}); "
            f"check {config.field}.path, split and revision, set HF_ENDPOINT to a reachable "
            f"mirror, set HF_HOME to a filled cache with HF_HUB_OFFLINE=1, or use {instead}"
        ) from error


def name(config: DatasetConfig | UtilityConfig) -> str:
    """What messages call a dataset of the hub."""
    at = f", revision {config.revision}" if config.revision else ""
    return f"{config.path} (split {config.split}{at})"
