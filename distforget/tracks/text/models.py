"""Loads language models from a package, the hub or a folder; never runs their code."""

from __future__ import annotations

import importlib.util
import io
import pickle
import shutil
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
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

from distforget.errors import UsageError
from distforget.models import ADAPTER_CONFIG, MODEL_FILES, PICKLED_WEIGHTS

logging.set_verbosity_error()  # type: ignore[no-untyped-call] # untyped in transformers
logging.disable_progress_bar()  # type: ignore[no-untyped-call] # untyped in transformers


def materialise(origin: Mapping[str, Any], folder: Path, base: Path | None = None) -> Path:
    """Bring a model's files into reach and return the folder that holds them.

    A packaged model, one whose weights are pickled, and a LoRA adapter (merged into its base) are
    converted into `folder`; other hub models stay in the hub's own cache, other local folders
    where they are.

    Args:
        base: folder of the model that an adapter belongs to.

    Raises:
        UsageError: the hub cannot be reached, or there are no weights that can be read safely.
    """
    if "package" in origin:
        spec = importlib.util.find_spec(origin["package"].replace("-", "_"))
        assert spec is not None  # the plan asked for the package's version
        _convert_gguf(Path(str(spec.origin)).parent, origin["file"], folder)
        return folder
    if "hub" in origin:
        source = _download(origin["hub"], origin["revision"])
    else:
        source = Path(origin["folder"])
    if (source / ADAPTER_CONFIG).is_file():
        _merge(source, base, folder)
        return folder
    if list(source.glob("*.safetensors")):
        return source
    _convert_pickle(source, folder)
    return folder


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


def _convert_pickle(source: Path, folder: Path) -> None:
    """Write pickled weights as safetensors, with the other files of the model.

    Only tensors are unpickled (`weights_only`): a file that needs more is refused.

    Raises:
        UsageError: it needs more, or is damaged.
    """
    try:
        model = _complete(source, dtype="auto", use_safetensors=False, weights_only=True)
    except (pickle.UnpicklingError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(
            f"{source}: its {PICKLED_WEIGHTS} cannot be read as tensors alone ({_line(error)}); if "
            "you trust the file, convert it yourself with save_pretrained"
        ) from error
    for pattern in MODEL_FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    model.save_pretrained(folder)


def _merge(adapter: Path, base: Path | None, folder: Path) -> None:
    """Write the base model with a LoRA adapter merged into its weights.

    Raises:
        UsageError: there is no base, or the adapter does not fit it.
    """
    from peft import PeftModel, get_peft_model_state_dict  # slow to import, and needed by few

    if base is None:
        raise UsageError(
            f"models: {adapter} is a LoRA adapter; give the model that it belongs to as base"
        )
    file = adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise UsageError(f"models: {adapter} has no weights ({file.name})")
    model: Any = _complete(base, dtype="auto", use_safetensors=True)
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
        with safe_open(file, "pt") as weights:
            strange = set(weights.keys()) ^ set(get_peft_model_state_dict(adapted))
        if strange:  # peft only warns, and leaves such layers as they are in the base
            raise ValueError(f"{len(strange)} weights have no place, e.g. {min(strange)}")
        model = adapted.merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise UsageError(
            f"models: the adapter {adapter} does not fit its base: {_line(error)}"
        ) from error
    for place in (base, adapter):
        for pattern in MODEL_FILES[1:]:
            for path in place.glob(pattern):
                if path.name not in (ADAPTER_CONFIG, "model.safetensors.index.json"):
                    shutil.copyfile(path, folder / path.name)
    model.save_pretrained(folder)


def _complete(folder: Path, **options: Any) -> PreTrainedModel:
    """A model all of whose weights are in its folder.

    Raises:
        ValueError: some are missing; transformers would draw them at random.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, **options
    )
    model, found = loaded
    missing = sorted(found["missing_keys"])
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, e.g. {missing[0]}")
    return cast(PreTrainedModel, model)


def _download(hub_id: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetched(*patterns: str) -> Path:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))

    try:
        folder = fetched(*MODEL_FILES)
        if not list(folder.glob("*.safetensors")):
            folder = fetched(*MODEL_FILES, PICKLED_WEIGHTS)
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UsageError(
            f"models: cannot get {hub_id!r} from the hub ({type(error).__name__}); set HF_ENDPOINT "
            "to a mirror, HF_TOKEN for gated models, HF_HOME to a filled cache, or give a local "
            "folder as path"
        ) from error
    if not [*folder.glob("*.safetensors"), *folder.glob(PICKLED_WEIGHTS)]:
        raise UsageError(f"models: {hub_id} has no weights (*.safetensors or {PICKLED_WEIGHTS})")
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
        config = _without_dropout(AutoConfig.from_pretrained(folder, local_files_only=True))
        model = _complete(folder, config=config, dtype=getattr(torch, dtype), use_safetensors=True)
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
