"""What is asked (Study); knows nothing of how it is carried out.

Every field decides a result and takes part in content keys. Fields hold scalars, tuples and frozen
models only, so that a Study has exactly one canonical form.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from distforget.dataset_config import DatasetConfig, Track, check_track, image_defaults
from distforget.frozen import NAME_PATTERN, Frozen, Name
from distforget.image_config import IMAGE_METRICS, ImageConfig

PLACEBO = "placebo"
"""Variant of the cells that unlearn an unrelated sample instead of the target."""
LOW = "enhanced-low"
"""Begins the names of variants enhanced by noise alone (the paper's low controllability)."""
UNICODE = "_unicode"
"""Ends the names of ROUGE scores that count words of all languages."""
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""What is read of a model's folder, and so is part of its key."""

Scalar = bool | int | float | str
Dose = Annotated[int, Field(ge=0)] | Literal["all"]


class UsageError(Exception):
    """The user's input is wrong: the message names file, field and fix (exit code 2)."""


class PromptConfig(Frozen):
    """How a question becomes a prompt."""

    style: Literal["auto", "chat", "plain"] = Field(
        "auto", description="auto: the tokenizer's chat template if it has one, else plain"
    )
    system: str | None = Field(None, description="system message of a chat; null: the template's")
    plain: str = Field("Question: {question}\nAnswer: ", description="template without a chat")

    @model_validator(mode="after")
    def _plain_names_the_question(self) -> PromptConfig:
        if "{question}" not in self.plain:
            raise ValueError(
                "plain must contain {question}, e.g. 'Question: {question}\\nAnswer: '"
            )
        return self


class ModelConfig(Frozen):
    """A model to fine-tune and unlearn: builtin 'smollm2', a hub id or a local folder."""

    name: Name
    path: str = Field(
        description="'builtin:smollm2', a hub id or a local folder; images: mlp:256,256"
    )
    revision: str = Field("main", description="hub revision; ignored for folders")
    prompt: PromptConfig = PromptConfig()


class FinetuneConfig(Frozen):
    """Fine-tuning until proven memorisation or the epoch limit."""

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(4, ge=0)
    batch_size: int = Field(8, ge=1, description="rows of the global batch")
    micro_batch_size: int = Field(8, ge=1, description="rows a worker takes at once")
    max_epochs: int = Field(20, ge=1)
    stop_token_accuracy: float = Field(0.99, ge=0, le=1, description="teacher-forced, all rows")
    stop_exact_rate: float = Field(0.95, ge=0, le=1, description="rows with every token right")
    max_tokens: int = Field(512, ge=8, description="longer samples are refused")
    gradient_clip: float = Field(1.0, gt=0)


class AdapterConfig(Frozen):
    """LoRA: W + alpha/rank * B A in linear layers of a model that otherwise stays as it is."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha/rank")
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "all-linear", description="all but the output layer, or last parts of names, e.g. q_proj"
    )


class UnlearnConfig(Frozen):
    """What every cell of a model and dose shares: the retain batches D_r."""

    retain_batch_size: int = Field(4, ge=1)
    retain_batches: int = Field(8, ge=1, description="distinct batches, used in turn")


class VerifyConfig(Frozen):
    """What is asked of each model state, and how answers are scored."""

    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(16, ge=1, description="rows of a forward pass when asked")
    similar: int = Field(50, ge=0, description="similar samples asked of each target")
    others: int = Field(20, ge=0, description="other samples asked (damage)")
    unseen: int = Field(0, ge=0, description="images: never-trained samples asked (controls)")
    metric: str = Field("rougeL_recall", description="knowledge memorisation KM (paper Eq. 2)")
    metrics: tuple[str, ...] = Field(
        (
            "rougeL_recall",
            "rougeL_fmeasure",
            "rouge1_recall",
            "answer_probability",
            "answer_perplexity",
        ),
        description="written to scores",
    )
    margin: float = Field(
        0.1, ge=0, description="the smallest KM difference that matters; within it is about 0"
    )
    words: Literal["auto", "rouge-score", "unicode"] = Field(
        "auto",
        description="what ROUGE counts. rouge-score: runs of a-z and 0-9, as published numbers do; "
        "unicode: words of all languages, in scores whose names end in _unicode; auto: rouge-score "
        "unless an answer of the dataset has other letters",
    )
    use_stemmer: bool = Field(True, description="English stems, of rouge-score's words alone")

    @model_validator(mode="after")
    def _metric_is_written(self) -> VerifyConfig:
        known = {f"rouge{n}_{part}" for n in "12L" for part in ("precision", "recall", "fmeasure")}
        known |= {"answer_probability", "answer_perplexity", *IMAGE_METRICS}
        unknown = sorted({self.metric, *self.metrics} - known)
        if unknown:
            raise ValueError(f"unknown metric {unknown[0]!r}; known: {', '.join(sorted(known))}")
        if self.metric not in self.metrics:
            raise ValueError(f"metrics must contain the KM metric {self.metric!r}")
        return self

    def written(self, metric: str) -> str:
        """The name of a metric in `scores`."""
        counts_unicode = self.words == "unicode" and metric.startswith("rouge")
        return f"{metric}{UNICODE}" if counts_unicode else metric


class EnhancedConfig(Frozen):
    """The enhanced scheme around a method (paper section 4.3, Eq. 4-7; a3 is retain_weight).

    Noise gamma * xi, xi ~ N(0, sigma^2), is added to a hidden state in the forward passes of the
    target and its paraphrases. Without paraphrases and regulariser it is the paper's "low
    controllability" form.
    """

    gamma: float = Field(0.618, ge=0, description="factor of the noise")
    sigma: float = Field(1.0, gt=0, description="standard deviation of the noise")
    layer: int = Field(
        -1, ge=-1, description="0: the embeddings; l: the output of layer l; -1: the middle layer"
    )
    paraphrases: int = Field(4, ge=0, description="m, how many paraphrases F(x_i) are unlearned")
    nearest: int = Field(
        0, ge=0, description="k, trained samples most similar to the target unlearned with it (E6)"
    )
    target_weight: float = Field(1.0, ge=0, description="a1")
    paraphrase_weight: float = Field(1.0, ge=0, description="a2")


class MethodChoice(Frozen):
    """A method by name, e.g. 'GA_KLN', with settings that differ from its defaults."""

    name: Name
    settings: tuple[tuple[str, Scalar], ...] = ()
    enhanced: EnhancedConfig | None = None
    variant: str = Field(
        "", pattern=r"^[A-Za-z0-9.-]{0,32}$", description="tells two uses of a method apart"
    )
    targets: int = Field(0, ge=0, description="its first n targets only; 0: unlearn_targets")
    models: tuple[Name, ...] = Field((), description="for these models only; empty: for all")

    @model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and isinstance(value.get("settings"), dict):
            return {**value, "settings": tuple(sorted(value["settings"].items()))}
        return value

    @model_validator(mode="after")
    def _variant_says_what_it_is(self) -> MethodChoice:
        if self.variant == PLACEBO:
            raise ValueError(f"variant {PLACEBO!r} is kept for placebo_targets; choose another")
        if self.variant and self.variant.startswith("enhanced") != bool(self.enhanced):
            raise ValueError(
                "a variant begins with 'enhanced' where the method is enhanced, and only there"
            )
        if self.variant and self.enhanced and self.variant.startswith(LOW) != self._is_low:
            raise ValueError(
                f"a variant begins with {LOW!r} where paraphrases and nearest are 0, and only there"
            )
        return self

    @property
    def variant_name(self) -> str:
        """The variant as tables hold it: as given, else 'plain' or 'enhanced'."""
        return self.variant or (LOW if self._is_low else "enhanced" if self.enhanced else "plain")

    @property
    def _is_low(self) -> bool:
        e = self.enhanced
        return e is not None and not (e.paraphrases or e.nearest)


class Study(Frozen):
    """One question put to data, models and methods. Hashed into content keys, field by field."""

    name: Name
    track: Track = "text"
    seed: int = Field(0, ge=0, description="root of all random draws")
    seeds: int = Field(1, ge=1, description="repetitions of training and unlearning")
    dataset: DatasetConfig = DatasetConfig()
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    doses: tuple[Dose, ...] = Field((0, "all"), min_length=1)
    methods: tuple[MethodChoice, ...] = Field(min_length=1)
    unlearn_targets: int = Field(
        50, ge=1, description="the first n targets are unlearned, each alone"
    )
    placebo_targets: int = Field(
        0,
        ge=0,
        description="for the first n targets each plain method also unlearns an unrelated sample: "
        "the noise floor",
    )
    adapter: AdapterConfig | None = Field(
        None, description="fine-tune and unlearn LoRA adapters; null: all weights"
    )
    finetune: FinetuneConfig = FinetuneConfig()
    unlearn: UnlearnConfig = UnlearnConfig()
    verify: VerifyConfig = VerifyConfig()
    image: ImageConfig | None = Field(None, description="images: training and attack")

    @model_validator(mode="before")
    @classmethod
    def _images_have_defaults_of_their_own(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("track") == "image":
            dataset, verify = value.get("dataset", {}), value.get("verify", {})
            if isinstance(dataset, dict) and isinstance(verify, dict):
                return {
                    "image": {},
                    **value,
                    "dataset": image_defaults(dataset),
                    "verify": {"metric": "ssim_contrast", "metrics": IMAGE_METRICS, **verify},
                }
        return value

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Study:
        check_track(self.dataset, self.track)
        if (self.track == "image") != (self.image is not None):
            raise ValueError("image belongs to track 'image', and to it alone; delete one of them")
        if self.image and self.adapter:
            raise ValueError("adapter is for language models; delete it from a study of images")
        for method in self.methods:
            enhanced = method.enhanced
            if self.image and enhanced and (enhanced.gamma or enhanced.paraphrases):
                raise ValueError(
                    f"methods: {method.name}: enhanced.gamma and enhanced.paraphrases are for "
                    "text; set both to 0 and enhanced.nearest above it"
                )
        if self.unlearn_targets > self.dataset.targets:
            raise ValueError(
                f"unlearn_targets is {self.unlearn_targets}, but dataset.targets is "
                f"{self.dataset.targets}; lower the first or raise the second"
            )
        for field, value, limit, most in (
            *(
                (f"methods: {m.name}: targets", m.targets, "unlearn_targets", self.unlearn_targets)
                for m in self.methods
            ),
            *(
                (
                    f"methods: {m.name}: enhanced.paraphrases",
                    m.enhanced.paraphrases,
                    "dataset.paraphrases_per_target",
                    self.dataset.paraphrases_per_target,
                )
                for m in self.methods
                if m.enhanced
            ),
            ("placebo_targets", self.placebo_targets, "unlearn_targets", self.unlearn_targets),
        ):
            if value > most:
                raise ValueError(
                    f"{field} is {value}, but {limit} is {most}; lower the one or raise the other"
                )
        known = {m.name for m in self.models}
        for method in self.methods:
            if not known >= set(method.models):
                raise ValueError(
                    f"methods: {method.name}: models names {min(set(method.models) - known)!r}, "
                    f"which is not in models: {', '.join(sorted(known))}"
                )
        for kind, names in (
            ("models", [m.name for m in self.models]),
            (
                "methods",
                [
                    f"{m.name} ({m.variant_name}, {name})"
                    for m in self.methods
                    for name in m.models or sorted(known)
                ],
            ),
            ("doses", [str(d) for d in self.dose_numbers()]),
        ):
            doubled = sorted({n for n in names if names.count(n) > 1})
            if doubled:
                raise ValueError(f"{kind} names {doubled[0]!r} twice; each may appear once")
        retained = self.dataset.others or self.dataset.neighbours_per_target
        if self.track == "text" and 0 in self.dose_numbers() and not retained:
            for method in self.methods:
                if "_" in method.name:
                    raise ValueError(
                        f"methods: {method.name}: dose 0 with dataset.others 0 leaves no sample to "
                        "retain; raise dataset.others, leave dose 0 out of doses, or take methods "
                        "without KLN and GDN"
                    )
        too_high = [d for d in self.dose_numbers() if d > self.dataset.similar_per_target]
        if too_high:
            raise ValueError(
                f"doses has {too_high[0]}, but dataset.similar_per_target is "
                f"{self.dataset.similar_per_target}"
            )
        return self

    def dose_numbers(self) -> tuple[int, ...]:
        """The doses as numbers of similar samples per target ('all' resolved)."""
        return tuple(self.dataset.similar_per_target if d == "all" else d for d in self.doses)


def generator_seed(study_seed: int, *about: str | int) -> int:
    """A 63-bit seed from (study seed, what the draw is about), e.g. ('retain', 'smollm2', 50)."""
    text = "\x1f".join([str(study_seed), *map(str, about)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(study_seed: int, *about: str | int) -> np.random.Generator:
    """A generator seeded by :func:`generator_seed`: equal draws wherever the topic is equal."""
    return np.random.Generator(np.random.PCG64(generator_seed(study_seed, *about)))


PRESETS = Path(__file__).parent / "presets"


def load_study(preset_or_file: str) -> Study:
    """Read a Study from a preset name or a YAML file.

    Raises:
        UsageError: the file is missing, not YAML, or a field is wrong; names file, field and fix.
    """
    path = Path(preset_or_file)
    if re.match(NAME_PATTERN, preset_or_file) and not path.suffix:
        path = PRESETS / f"{preset_or_file}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise UsageError(
            f"{preset_or_file}: no such preset or file; presets: {known}; or give a path to a .yaml"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a study is a mapping of fields, e.g. 'name: my-study'")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "study"
        fix = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            fix = f"unknown key; known keys here: {', '.join(_known_keys(first['loc']))}"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(f"{path}: {field}: {fix}{more}") from error


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Study
    for part in location[:-1]:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            inner = [annotation, *getattr(annotation, "__args__", ())]
            model = next(t for t in inner if isinstance(t, type) and issubclass(t, BaseModel))
    return sorted(model.model_fields)
