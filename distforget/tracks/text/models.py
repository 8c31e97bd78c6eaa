"""Language models from a package, a hub or a folder; always safetensors, never code of theirs."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from distforget.study import MODEL_FILES, UsageError

logging.set_verbosity_error()  # type: ignore[no-untyped-call] # untyped in transformers
logging.disable_progress_bar()  # type: ignore[no-untyped-call] # untyped in transformers


def materialise(origin: Mapping[str, Any], folder: Path) -> Path:
    """Bring a model's files into reach and return the folder that holds them.

    A packaged model is converted into `folder`; a hub model stays in the hub's own cache; a local
    folder stays where it is.

    Raises:
        UsageError: the hub cannot be reached, or there are no safetensors.
    """
    if "package" in origin:
        spec = importlib.util.find_spec(origin["package"].replace("-", "_"))
        assert spec is not None  # the plan asked for the package's version
        _convert_gguf(Path(str(spec.origin)).parent, origin["file"], folder)
        return folder
    if "hub" in origin:
        return _download(origin["hub"], origin["revision"])
    return Path(origin["folder"])


def _convert_gguf(source: Path, file: str, folder: Path) -> None:
    with redirect_stderr(io.StringIO()):  # a progress bar for each of two hundred tensors
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=file,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _download(hub_id: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(hub_id, revision=revision, allow_patterns=list(MODEL_FILES))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UsageError(
            f"models: cannot get {hub_id!r} from the hub ({type(error).__name__}); set HF_ENDPOINT "
            "to a mirror, HF_TOKEN for gated models, HF_HOME to a filled cache, or give a local "
            "folder as path"
        ) from error
    folder = Path(found)
    if not list(folder.glob("*.safetensors")):
        raise UsageError(f"models: {hub_id} has no safetensors weights; other formats are not read")
    return folder


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, padding on the left.

    Raises:
        UsageError: the folder holds none, or it has no end-of-answer token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: cannot read the tokenizer: {_line(error)}") from error
    if tokenizer.eos_token_id is None:
        raise UsageError(
            f"{folder}: the tokenizer has no eos_token; set it in tokenizer_config.json"
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    found: PreTrainedTokenizerBase = tokenizer
    return found


def load_model(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """A causal language model from safetensors, without dropout even in training mode.

    Gradient checkpointing needs training mode, and where a study runs must not change its results.
    In this process attention no longer uses cuDNN: its backward pass returns NaN where a mask is
    given and the padded length is 64 modulo 128 (pytorch issue 196678).

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            config=_without_dropout(AutoConfig.from_pretrained(folder, local_files_only=True)),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"{folder}: cannot read the model: {_line(error)}; give a folder written by "
            "save_pretrained with safetensors"
        ) from error
    torch.backends.cuda.enable_cudnn_sdp(False)
    module: nn.Module = model
    module.to(device)
    module.train(False)
    return cast(PreTrainedModel, module)


def _without_dropout(config: PretrainedConfig) -> PretrainedConfig:
    for name, value in config.to_dict().items():
        if isinstance(value, float) and "drop" in name:
            setattr(config, name, 0.0)
    return config


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
