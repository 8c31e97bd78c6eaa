"""Turns a Study into a DAG of steps with content keys. Imports neither Ray nor torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from distforget import methods
from distforget.attacks import attack_of, name_of
from distforget.data import key_of_data
from distforget.errors import UsageError
from distforget.method_choice import PLACEBO, SEQUENCE
from distforget.models import ADAPTER_CONFIG, ModelConfig
from distforget.origins import architecture, origin
from distforget.parts import key_of
from distforget.probes import probe_of
from distforget.similarity import similarity_of
from distforget.study import Study

STAGE_VERSIONS = {
    "embeddings": 1,
    "completions": 1,
    "dataset": 8,
    "model": 2,
    "finetune": 6,
    "reference": 3,
    "ask": 11,
    "cell": 10,
    "attack": 2,
    "probe": 2,
}


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
    def state(self) -> Step:
        """The step that first asked the model state which an attack or a probe is about."""
        return self.inputs["state"].state if "state" in self.inputs else self

    @property
    def title(self) -> str:
        """Readable name, e.g. 'cell smollm2/50/GA_KLN/3/0', 'finetune smollm2/50/0/without 3'."""
        if self.stage == "cell":
            return f"cell {cell_name(self)}"
        if self.stage in ("attack", "probe"):
            return f"{self.about[self.stage]} of {self.inputs['state'].title}"
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
    attacks: tuple[Step, ...]
    probes: tuple[Step, ...]

    def steps(self) -> Iterator[Step]:
        """All steps, inputs first."""
        yield self.dataset
        for group in (
            self.models, self.finetunes, self.references, self.asks, self.cells, self.attacks,
            self.probes,
        ):  # fmt: skip
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

    def before(self, cell: Step) -> Step:
        """The step that asks a cell's model before unlearning: its ceiling."""
        about = {name: cell.about[name] for name in ("model", "dose", "seed")}
        return next(ask for ask in self.asks if about.items() <= ask.about.items())

    def floor(self, cell: Step) -> Step | None:
        """The step that asks a cell's base model; None if the study does not know it."""
        floors = (ask for ask in self.asks if ask.about["phase"] == "pre_finetune")
        return next((ask for ask in floors if ask.about["model"] == cell.about["model"]), None)


def cell_name(step: Step) -> str:
    """The name model/dose/method/target/seed; a variant other than plain follows the method."""
    a = step.about
    variant = "" if a["variant"] == "plain" else f"+{a['variant']}"
    return f"{a['model']}/{a['dose']}/{a['method']}{variant}/{a['unlearned']}/{a['seed']}"


def make_plan(study: Study) -> Plan:
    """All steps of a study.

    Raises:
        UsageError: an unknown method or setting, or a model or file that cannot be read.
    """
    return _Maker(study).plan()


class _Maker:
    """Collects the steps of a study, model after model."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.methods = [(choice, methods.resolve(choice)) for choice in study.methods]
        inputs = {}
        if asks := similarity_of(study.data.similar).asks:
            source = key_of_data(study.data)["source"]
            config = {
                "seed": study.seed, "source": source, "targets": study.data.targets,
                **asks.key(study.data.similar),
            }  # fmt: skip
            about = {"dataset": study.data.name}
            inputs["completions"] = Step("completions", config, about=about)
        self.dataset = Step(
            "dataset",
            {
                "track": study.track,
                "seed": study.seed,
                **key_of_data(study.data),
                "questions": [
                    {**config.model_dump(mode="json"), "content": own.content(config)}
                    for config, own in study.questions
                ],
            },
            inputs,
            {"dataset": study.data.name},
        )
        self.models: list[Step] = []
        self.finetunes: list[Step] = []
        self.references: list[Step] = []
        self.asks: list[Step] = []
        self.cells: list[Step] = []

    def plan(self) -> Plan:
        """The plan of all models."""
        study = self.study
        for model in study.models:
            self._add(model)
        states = (*self.asks, *self.cells)
        attacks = [attack for state in states for attack in _attacks(state, study)]
        contents = {config.kind: probe_of(config).content(config) for config in study.probes}
        probes = [
            probe for state in (*states, *attacks) for probe in _probes(state, study, contents)
        ]
        groups = (
            self.models, self.finetunes, self.references, self.asks, self.cells, attacks, probes,
        )  # fmt: skip
        return Plan(study, self.dataset, *map(tuple, groups))

    def _add(self, model: ModelConfig) -> None:
        base = None
        if model.base:
            base = self._origin(model.base, f"models.{model.name}.base", {"model": model.name})
            inputs = {"dataset": self.dataset, "model": base}
            about: dict[str, Any] = {"model": model.name, "phase": "pre_finetune"}
            self.asks.append(Step("ask", self._asked(model), inputs, about))
        for dose in self.study.dose_numbers():
            for seed in range(self.study.seeds):
                about = {"model": model.name, "dose": dose, "seed": seed}
                if model.tuned:
                    self._add_given(model, base, about)
                else:
                    assert base is not None  # ModelConfig has either of both
                    self._add_tuned(model, self._tuned(model, base, about), about)

    def _add_given(self, model: ModelConfig, base: Step | None, about: Mapping[str, Any]) -> None:
        """Add the states that were trained elsewhere, and the cells that start from them."""
        dose = about["dose"]
        for number, tuned in enumerate(model.tuned):
            if self.study.dose_number(tuned.dose) == dose:
                field = f"models.{model.name}.tuned.{number}.path"
                given = self._origin(tuned.path, field, {**about, "state": "tuned"}, base)
                self._add_tuned(model, {"dataset": self.dataset, "model": given}, about)
        for number, unlearned in enumerate(model.unlearned):
            if self.study.dose_number(unlearned.dose) == dose:
                field = f"models.{model.name}.unlearned.{number}.path"
                whose = {**about, "state": unlearned.method}
                given = self._origin(unlearned.path, field, whose, base)
                inputs = {"dataset": self.dataset, "model": given}
                every = range(1, self.study.unlearn_targets + 1)
                for target in unlearned.targets or every:
                    method = methods.given(unlearned.method)
                    self._add_cell(model, method, "plain", target, inputs, about)

    def _add_tuned(
        self, model: ModelConfig, start: Mapping[str, Step], about: Mapping[str, Any]
    ) -> None:
        """Add the ceiling, the reference and the cells of a fine-tuned model."""
        study = self.study
        self.asks.append(Step("ask", self._asked(model), start, {**about, "phase": "pre_unlearn"}))
        config = {**self._common(model), **self._draws(about), **study.unlearn.model_dump()}
        reference = Step("reference", config, start, about)
        mine = [(choice, method) for choice, method in self.methods if choice.is_of(model.name)]
        if any(method.retains for _, method in mine):
            self.references.append(reference)
        for choice, method in mine:
            method.refuse(study.track, adapters=study.adapter is not None)
            for target in range(1, (choice.targets or study.unlearn_targets) + 1):
                inputs = {**start, "reference": reference} if method.retains else start
                if method.method.starts_from == "scratch":
                    if model.tuned:
                        raise UsageError(
                            f"methods: {method.name} trains again, but models.{model.name} is "
                            f"given as tuned; give unlearned: [{{method: {method.name}, path: "
                            "...}], or name other models in the method's models"
                        )
                    inputs = self._retrained(start["finetune"], method, target)
                for variant in _variants(method, target, about["seed"], study):
                    self._add_cell(model, method, variant, target, inputs, about)

    def _add_cell(
        self,
        model: ModelConfig,
        method: methods.ResolvedMethod,
        variant: str,
        target: int,
        inputs: Mapping[str, Step],
        about: Mapping[str, Any],
    ) -> None:
        config = {
            **self._questions(model),
            **self._draws(about),
            **method.payload(target),
            "unlearned": target,
            # A placebo is drawn from what is not retained.
            "placebo": variant == PLACEBO and self.study.unlearn.model_dump(),
        }
        if variant == SEQUENCE:
            config["earlier"] = earlier(self.study, target, about["seed"])
        whose = {"method": method.name, "variant": variant, "unlearned": target}
        # In the order of a cell's name.
        named = {"model": about["model"], "dose": about["dose"], **whose, "seed": about["seed"]}
        self.cells.append(Step("cell", config, inputs, named))

    def _origin(
        self, path: str, field: str, about: Mapping[str, Any], base: Step | None = None
    ) -> Step:
        """The step that fetches a model; an adapter needs the base that it is merged into."""
        read = architecture if self.study.track == "image" else origin
        found = read(path, field)
        may_be_adapter = "hub" in found or ADAPTER_CONFIG in found.get("files", ())
        step = Step("model", found, {"base": base} if base and may_be_adapter else {}, about)
        self.models.append(step)
        return step

    def _tuned(self, model: ModelConfig, base: Step, about: Mapping[str, Any]) -> dict[str, Step]:
        training = self.study.fit or self.study.finetune
        inputs = {"dataset": self.dataset, "model": base}
        config = {**self._common(model), **self._draws(about), **training.model_dump(mode="json")}
        step = Step("finetune", config, inputs, about)
        self.finetunes.append(step)
        return {**inputs, "finetune": step}

    def _retrained(
        self, tuned: Step, method: methods.ResolvedMethod, target: int
    ) -> dict[str, Step]:
        """The inputs of a cell whose model is trained without the target."""
        if method.enhanced and any(method.enhanced.similar):
            raise UsageError(
                f"methods: {method.name}: enhanced.similar is for methods with steps; take "
                "enhanced.nearest"
            )
        nearest = method.enhanced.nearest if method.enhanced else 0
        without = {"without": target, "nearest": nearest}
        config = {**tuned.config, **without}
        step = Step("finetune", config, tuned.inputs, {**tuned.about, **without})
        self.finetunes.append(step)
        return {**tuned.inputs, "finetune": step}

    def _common(self, model: ModelConfig) -> dict[str, Any]:
        study = self.study
        return {
            "track": study.track,
            "dtype": study.dtype,
            "prompt": model.prompt.model_dump(mode="json"),
            "adapter": study.adapter and study.adapter.model_dump(mode="json"),
        }

    def _questions(self, model: ModelConfig) -> dict[str, Any]:
        unasked = set() if self.study.verify.drawn else {"drawn", "temperature"}
        verify = self.study.verify.model_dump(exclude={"metric", "margin", "batch_size", *unasked})
        return {**self._common(model), **verify}

    def _asked(self, model: ModelConfig) -> dict[str, Any]:
        return {**self._questions(model), "unlearn_targets": self.study.unlearn_targets}

    def _draws(self, about: Mapping[str, Any]) -> dict[str, Any]:
        return {"seed": self.study.seed, "repetition": about["seed"], "dose": about["dose"]}


def _attacks(state: Step, study: Study) -> Iterator[Step]:
    """One step for each attack on a state: the same questions to other weights."""
    for config in study.attacks:
        if attack_of(config).of_target and state.stage != "cell":
            continue
        yield Step(
            "attack",
            {"track": study.track, "seed": study.seed, **key_of(config, attack_of(config).version)},
            {"state": state},
            {**state.about, "attack": name_of(config)},
        )


def _probes(state: Step, study: Study, contents: Mapping[str, object]) -> Iterator[Step]:
    """One step for each probe of a state: a probe that is added later costs only itself.

    Args:
        contents: what identifies the files of each probe.
    """
    of_images = {
        "seed": study.seed,
        "repetition": state.about.get("seed", 0),
        # Membership scores are in units of it.
        "weight_decay": study.fit.weight_decay,
    } if study.fit else {}  # fmt: skip
    for config in study.probes:
        yield Step(
            "probe",
            {
                "track": study.track,
                **of_images,
                "content": contents[config.kind],
                **key_of(config, probe_of(config).version),
            },
            {"state": state},
            {**state.about, "probe": config.kind},
        )


def earlier(study: Study, target: int, repetition: int) -> list[int]:
    """The targets that are unlearned before this one, in their order."""
    turns = study.turns(repetition)
    return list(turns[: turns.index(target)])


def _variants(
    method: methods.ResolvedMethod, target: int, repetition: int, study: Study
) -> list[str]:
    """Variants of a method for a target: its own and, of a plain one, placebo and in turn."""
    if method.variant != "plain" or method.method.starts_from != "finetuned":
        return [method.variant]
    last = [study.turns(repetition)[count - 1] for count in study.in_turn]
    return [
        method.variant,
        *[PLACEBO] * (target <= study.placebo_targets),
        *[SEQUENCE] * (target in last),
    ]
