"""Defines a Study: what is to be measured. How it is run is defined elsewhere.

Every field decides a result and takes part in content keys. Fields hold scalars, tuples and frozen
models only, so that a Study has exactly one canonical form.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from distforget.attacks import attack_of, name_of
from distforget.attacks import attacks as every_attack
from distforget.data import Data, TextData, track_of
from distforget.draws import rng
from distforget.frozen import Frozen, Name
from distforget.image_config import FitConfig
from distforget.method_choice import MethodChoice
from distforget.models import Dose, ModelConfig
from distforget.parts import OneOf, Part
from distforget.probes import Questions, names_written, probe_of
from distforget.probes import probes as every_probe
from distforget.sources import Track

EVERY_PROBE = OneOf(tuple(probe.config for probe in every_probe().values()))
EVERY_ATTACK = OneOf(tuple(attack.config for attack in every_attack().values()))


class FinetuneConfig(Frozen):
    """Fine-tuning until the data is memorised, or until the epoch limit."""

    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(4, ge=0)
    batch_size: int = Field(8, ge=1, description="rows per optimiser step, over all workers")
    max_epochs: int = Field(20, ge=1)
    stop_token_accuracy: float = Field(0.99, ge=0, le=1, description="stops at this token accuracy")
    stop_exact_rate: float = Field(0.95, ge=0, le=1, description="and this share of exact rows")
    max_tokens: int = Field(512, ge=8, description="longer samples are an error")
    gradient_clip: float = Field(1.0, gt=0)


class AdapterConfig(Frozen):
    """LoRA: trains W + alpha/rank * B A in linear layers and leaves all other weights frozen."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha/rank")
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "all-linear", description="all linear layers but the output layer, or names such as q_proj"
    )


class UnlearnConfig(Frozen):
    """The retain batches D_r, which all cells of a model and dose share."""

    retain_batch_size: int = Field(4, ge=1)
    retain_batches: int = Field(8, ge=1, description="number of different batches")


class VerifyConfig(Frozen):
    """Which samples each model state is evaluated on, and which differences matter."""

    max_new_tokens: int = Field(64, ge=1)
    batch_size: int = Field(16, ge=1, description="rows per forward pass")
    similar: int = Field(50, ge=0, description="similar samples evaluated per target")
    others: int = Field(20, ge=0, description="other samples evaluated, for damage")
    unseen: int = Field(0, ge=0, description="images: never-trained samples evaluated")
    drawn: int = Field(
        0, ge=0, description="text: answers that are drawn beside the greedy one, for leak@k"
    )
    temperature: float = Field(1.0, gt=0, description="at which they are drawn")
    metric: str = Field(
        "", description="the score that measures knowledge (paper Eq. 2); empty: the first probe's"
    )
    margin: float = Field(
        0.1,
        ge=0,
        description="the smallest score difference that matters; smaller ones count as about 0",
    )


class Study(Frozen):
    """What is to be measured: data, models, methods and probes. Its fields go into content keys."""

    name: Name
    seed: int = Field(0, ge=0, description="seed of all random draws")
    seeds: int = Field(1, ge=1, description="repetitions of training and unlearning")
    data: Data = Field(default_factory=lambda: TextData.model_validate({}))
    models: tuple[ModelConfig, ...] = Field(min_length=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    doses: tuple[Dose, ...] = Field((0, "all"), min_length=1)
    methods: tuple[MethodChoice, ...] = Field(
        (), description="unlearning methods; none if all models were unlearned elsewhere"
    )
    unlearn_targets: int = Field(
        50, ge=1, description="number of targets that are unlearned, one at a time"
    )
    placebo_targets: int = Field(
        0,
        ge=0,
        description="for the first n targets, each plain method also unlearns an unrelated sample: "
        "the noise floor",
    )
    in_turn: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (),
        description="each plain method also unlearns targets one after another on the same "
        "weights, in an order drawn by seed; it is asked after so many, e.g. [2, 5, 10]",
    )
    adapter: AdapterConfig | None = Field(
        None, description="fine-tune and unlearn LoRA adapters; null: all weights"
    )
    finetune: FinetuneConfig = FinetuneConfig()
    unlearn: UnlearnConfig = UnlearnConfig()
    verify: VerifyConfig = VerifyConfig()
    probes: tuple[SerializeAsAny[Annotated[Part, EVERY_PROBE]], ...] = Field(
        min_length=1, description="how each model state is scored; default: all probes of the track"
    )
    attacks: tuple[SerializeAsAny[Annotated[Part, EVERY_ATTACK]], ...] = Field(
        (), description="each model state is also asked and scored after each of these attacks"
    )
    fit: FitConfig | None = Field(None, description="images: training of the classifiers")

    @model_validator(mode="before")
    @classmethod
    def _each_track_has_defaults_of_its_own(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        track = track_of(value.get("data", {}))
        fit: dict[str, object] = {"fit": {}} if track == "image" else {}
        of_track = [
            kind
            for kind, probe in every_probe().items()
            if probe.track == track and probe.by_default
        ]
        return {"probes": of_track, **fit, **value}

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Study:
        self._check_track()
        self._check_given_models()
        for method in self.methods:
            enhanced = method.enhanced
            if self.fit and enhanced and (enhanced.gamma or enhanced.paraphrases):
                raise ValueError(
                    f"methods: {method.name}: enhanced.gamma and enhanced.paraphrases are for "
                    "text; set both to 0 and enhanced.nearest above it"
                )
        if self.unlearn_targets > self.data.targets:
            raise ValueError(
                f"unlearn_targets is {self.unlearn_targets}, but data.targets is "
                f"{self.data.targets}; lower the first or raise the second"
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
                    "data.similar.paraphrases",
                    self.data.similar.paraphrases,
                )
                for m in self.methods
                if m.enhanced and isinstance(self.data, TextData)
            ),
            *(
                (
                    f"methods: {m.name}: enhanced.similar",
                    max((rank for ranks in m.enhanced.similar for rank in ranks), default=0),
                    "data.similar.per_target",
                    self.data.similar.per_target,
                )
                for m in self.methods
                if m.enhanced
            ),
            ("placebo_targets", self.placebo_targets, "unlearn_targets", self.unlearn_targets),
            ("in_turn", max(self.in_turn, default=0), "unlearn_targets", self.unlearn_targets),
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
                    for name in sorted(known)
                    if m.is_of(name)
                ],
            ),
            (
                "unlearned",
                [
                    f"{given.method} ({model.name}, dose {given.dose})"
                    for model in self.models
                    for given in model.unlearned
                ],
            ),
            ("doses", [str(d) for d in self.dose_numbers()]),
            ("in_turn", [str(count) for count in self.in_turn]),
            ("probes", [config.kind for config in self.probes]),
            ("attacks", [name_of(config) for config in self.attacks]),
        ):
            doubled = sorted({n for n in names if names.count(n) > 1})
            if doubled:
                raise ValueError(f"{kind} names {doubled[0]!r} twice; each may appear once")
        data = self.data
        if (
            isinstance(data, TextData)
            and 0 in self.dose_numbers()
            and not (data.others or data.neighbours)
        ):
            for method in self.methods:
                if "_" in method.name:
                    raise ValueError(
                        f"methods: {method.name}: dose 0 with data.others 0 leaves no sample to "
                        "retain; raise data.others, leave dose 0 out of doses, or take methods "
                        "without KLN and GDN"
                    )
        too_high = [d for d in self.dose_numbers() if d > self.data.similar.per_target]
        if too_high:
            raise ValueError(
                f"doses has {too_high[0]}, but data.similar.per_target is "
                f"{self.data.similar.per_target}"
            )
        return self

    def _check_given_models(self) -> None:
        """Check models that were trained elsewhere."""
        if not (self.methods or any(model.unlearned for model in self.models)):
            raise ValueError("methods: name at least one, or give a model as unlearned")
        doses = sorted(self.dose_numbers())
        for model in self.models:
            if not model.tuned:
                continue
            field = f"models: {model.name}: tuned"
            if self.fit:
                raise ValueError(f"{field}: only language models may be given; delete it")
            if self.seeds > 1:
                raise ValueError(f"{field}: a given model cannot be trained again; set seeds to 1")
            given = sorted(self.dose_number(tuned.dose) for tuned in model.tuned)
            if given != doses:
                raise ValueError(f"{field} has the doses {given}, but doses are {doses}")
            plain = [m.name for m in self.methods if m.is_of(model.name) and m.is_plain]
            for unlearned in model.unlearned:
                field = f"models: {model.name}: unlearned: {unlearned.method}"
                if unlearned.method in plain:
                    raise ValueError(f"{field} is also one of methods; give it another name")
                if self.dose_number(unlearned.dose) not in doses:
                    raise ValueError(f"{field}: dose is {unlearned.dose}, but doses are {doses}")
                if max(unlearned.targets, default=1) > self.unlearn_targets:
                    raise ValueError(
                        f"{field}: targets has {max(unlearned.targets)}, but unlearn_targets is "
                        f"{self.unlearn_targets}"
                    )

    def _check_track(self) -> None:
        if (self.track == "image") != (self.fit is not None):
            raise ValueError(
                f"fit is for studies of images, but data.source {self.data.source.kind!r} gives "
                "text; delete one of them"
            )
        if self.fit and self.adapter:
            raise ValueError("adapter is for language models; delete it from a study of images")
        for config in self.probes:
            probe = probe_of(config)
            if probe.track != self.track:
                raise ValueError(
                    f"probes: {config.kind!r} is for {probe.track}, but data.source "
                    f"{self.data.source.kind!r} gives {self.track}; take it out"
                )
        for config in self.attacks:
            attack = attack_of(config)
            if attack.track not in (None, self.track):
                raise ValueError(
                    f"attacks: {config.kind!r} is for {attack.track}, but data.source "
                    f"{self.data.source.kind!r} gives {self.track}; take it out"
                )
        if self.verify.metric and self.verify.metric not in self.metrics:
            raise ValueError(
                f"verify.metric is {self.verify.metric!r}, but the probes write: "
                f"{', '.join(self.metrics)}"
            )
        if not self.metric:
            raise ValueError(
                "verify.metric: none of the probes says which score is that of knowledge; name "
                f"one of: {', '.join(self.metrics)}"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The scores that the probes may write."""
        return tuple(name for config in self.probes for name in names_written(config))

    @property
    def metric(self) -> str:
        """The score that says what a model knows; '' if no probe has one and none is named."""
        named = (probe_of(config).knowledge for config in self.probes)
        return self.verify.metric or next(filter(None, named), "")

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that the probes leave beside `scores`."""
        return tuple(name for c in self.probes for name in probe_of(c).tables)

    @property
    def questions(self) -> tuple[tuple[Part, Questions[Any]], ...]:
        """The probes that add samples of their own to the dataset."""
        found = ((config, probe_of(config).questions) for config in self.probes)
        return tuple((config, own) for config, own in found if own and own.count(config))

    @property
    def track(self) -> Track:
        """The track of the data's source."""
        return self.data.track

    def turns(self, repetition: int) -> tuple[int, ...]:
        """The targets in the order in which they are unlearned one after another."""
        drawn = rng(self.seed, "turns", repetition).permutation(self.unlearn_targets)
        return tuple(int(place) + 1 for place in drawn)

    def dose_number(self, dose: Dose) -> int:
        """A dose as a number of similar samples of each target."""
        return self.data.similar.per_target if dose == "all" else dose

    def dose_numbers(self) -> tuple[int, ...]:
        """All doses as numbers."""
        return tuple(map(self.dose_number, self.doses))
