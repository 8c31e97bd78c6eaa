"""Similar texts that a language model writes: the target's question and answer, rephrased."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from distforget.draws import generator_seed
from distforget.errors import UsageError
from distforget.similarity import Asks, Similarity, SimilarTexts
from distforget.similarity._meaning import MeaningConfig, content, open_meaning
from distforget.similarity._standardise import Completion, Target, standardise
from distforget.similarity._writers import WriterConfig, key_of_writer, open_writer
from distforget.sources._base import Text, base_table

PARTS = ("question", "answer")


class ParaphraseConfig(SimilarTexts):
    """Rephrased by a chat endpoint, a model, or out of a file of completions."""

    kind: Literal["paraphrase"] = "paraphrase"
    writer: WriterConfig
    queries: int = Field(100, ge=1, description="requests for each target and part")
    rounds: int = Field(
        2, ge=0, description="further rounds of as many requests for targets with too few"
    )
    too_few: Literal["fail", "fewer"] = Field(
        "fail", description="if a target still has too few: end the run, or go on with fewer"
    )
    near_duplicates: float = Field(
        0.97, gt=0, le=1, description="similarity from which on the later of two is dropped"
    )
    meaning: MeaningConfig | None = Field(
        None, description="drops what means something else; none: names, numbers, negations decide"
    )
    system: str = (
        "You are a helpful, respectful and honest assistant for rephrasing sentences while "
        "maintaining their original meaning."
    )
    prompt: str = Field(
        "Please rephrase this sentence. Make sure you to only return the rephrased sentences and "
        "nothing more: {text}",
        min_length=1,
    )

    question_prompt: str = Field(
        "", description="prompt of questions, where a model answers them; empty: as of answers"
    )

    @field_validator("prompt", "question_prompt")
    @classmethod
    def _names_the_text(cls, value: str) -> str:
        if value and "{text}" not in value:
            raise ValueError("it must contain {text}, where the target's text goes")
        return value

    @model_validator(mode="after")
    def _asks_for_enough(self) -> ParaphraseConfig:
        wanted, most = self.per_target + self.paraphrases, self.queries * (1 + self.rounds)
        if wanted > most and self.too_few == "fail":
            raise ValueError(
                f"per_target and paraphrases are {wanted} together, but at most {most} are asked "
                "for; raise queries"
            )
        return self


def requests(families: pa.Table, config: ParaphraseConfig, seed: int, round: int) -> pa.Table:
    """One row for each request of a round: target_index, part, number, prompt and seed."""
    first = round * config.queries
    prompts = {"question": config.question_prompt or config.prompt, "answer": config.prompt}
    return pa.Table.from_pylist(
        [
            {
                "target_index": row["target_index"],
                "part": part,
                "number": number,
                "prompt": prompts[part].replace("{text}", row[part]),
                "seed": generator_seed(seed, "completion", row["target_index"], part, number)
                % 2**31,
            }
            for row in families.to_pylist()
            if row["role"] == "target"
            for number in range(first + 1, first + config.queries + 1)
            for part in PARTS
        ]
    )


def rewrites(
    families: pa.Table, config: ParaphraseConfig, completions: pa.Table
) -> list[dict[str, Any]]:
    """Rows of table `rewrites`: what standardising makes of the completions of each target."""
    texts: dict[tuple[int, int], dict[str, Completion]] = defaultdict(dict)
    for row in completions.to_pylist():
        found = Completion(row["completion"], row["finish"] == "length")
        texts[row["target_index"], row["number"]][row["part"]] = found
    none = Completion(None)
    meaning = open_meaning(config.meaning) if config.meaning else None
    return [
        {"target_index": row["target_index"], **vars(rewrite)}
        for row in families.to_pylist()
        if row["role"] == "target"
        for rewrite in standardise(
            Target(row["question"], row["answer"], tuple(row["facts"] or ())),
            [
                (number, given.get("question", none), given.get("answer", none))
                for (target, number), given in sorted(texts.items())
                if target == row["target_index"]
            ],
            config.near_duplicates,
            meaning,
        )
    ]


def too_few(config: ParaphraseConfig, rewritten: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Targets with too few usable rewrites, and how many they have."""
    counts: dict[int, int] = {}
    for row in rewritten:
        counts[row["target_index"]] = counts.get(row["target_index"], 0) + (not row["reason"])
    wanted = config.per_target + config.paraphrases
    return {target: count for target, count in counts.items() if count < wanted}


def make(
    families: pa.Table, config: ParaphraseConfig, seed: int, rewritten: Sequence[dict[str, Any]]
) -> pa.Table:
    """The first usable rewrites of each target.

    Raises:
        UsageError: a target has too few, and the study does not go on with fewer.
    """
    short = too_few(config, rewritten)
    if short and config.too_few == "fail":
        target, count = min(short.items())
        raise UsageError(
            f"data.similar: target {target} has {count} usable restatements of "
            f"{config.per_target + config.paraphrases} ({len(short)} targets have too few; "
            "column reason of table rewrites says why the others were dropped): raise queries or "
            "rounds, lower per_target, or set too_few: fewer"
        )
    facts = {r["target_index"]: r["facts"] for r in families.to_pylist() if r["role"] == "target"}
    ranks: dict[int, int] = defaultdict(int)
    chosen = []
    for row in rewritten:
        target = row["target_index"]
        if row["reason"] or ranks[target] == config.per_target + config.paraphrases:
            continue
        ranks[target] += 1
        chosen.append(
            Text(
                "similar" if ranks[target] <= config.per_target else "paraphrase",
                row["question"],
                row["answer"],
                facts=tuple(facts[target]) if facts[target] else None,
                target_index=target,
                similar_rank=ranks[target],
            )
        )
    return base_table(chosen)


def key(config: ParaphraseConfig) -> dict[str, Any]:
    """What decides the completions: not how they are filtered."""
    return {
        "writer": key_of_writer(config.writer),
        **config.model_dump(
            mode="json", include={"queries", "system", "prompt", "question_prompt"}
        ),
    }


SIMILARITY = Similarity(
    config=ParaphraseConfig,
    version=4,
    source="restatements by a language model (paper section 3.2, appendix A.5)",
    track="text",
    make=make,
    asks=Asks(
        key=key,
        requests=requests,
        open=lambda config: open_writer(config.writer, config.system),
        workers=lambda config: (
            getattr(config.writer, "concurrency", 1), getattr(config.writer, "gpus", 0.0),
        ),
        rewrites=rewrites,
        too_few=too_few,
    ),
    content=lambda config: content(config.meaning) if config.meaning else None,
    unkeyed=("writer", "queries", "system", "prompt", "question_prompt"),
)  # fmt: skip
