"""Loads a dataset from the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from distforget.errors import UsageError


def load(
    path: str,
    config: str,
    split: str,
    revision: str,
    instead: str,
    field: str = "data.source",
) -> Any:
    """The `datasets.Dataset` at `path`, its `split` as of `revision`.

    Args:
        config: configuration of the dataset; '' for its default.
        instead: what to use where there is no hub, for the message.
        field: of the study, which says all this.

    Raises:
        UsageError: it cannot be loaded; says what to set.
    """
    import datasets

    try:
        return datasets.load_dataset(path, config or None, split=split, revision=revision or None)
    except Exception as error:
        # The library raises whatever its transport raises; each means that there is no data.
        text = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{name(path, split, revision)}: cannot be loaded from the hub "
            f"({type(error).__name__}: {text}); check path, split and revision of {field}, set "
            "HF_ENDPOINT to a reachable mirror, set HF_HOME to a filled cache with "
            f"HF_HUB_OFFLINE=1, or use {instead}"
        ) from error


def name(path: str, split: str, revision: str) -> str:
    """What messages call a dataset of the hub."""
    at = f", revision {revision}" if revision else ""
    return f"{path} (split {split}{at})"
