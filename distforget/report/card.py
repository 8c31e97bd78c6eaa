"""The data card of an exported study: what each table holds, its units and its origin.

Source: Hugging Face Hub documentation, "Dataset cards" and "Data files configuration".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from distforget import schemas
from distforget.sources import source_of
from distforget.study import Study

FIRST = "scores"
"""The table that is loaded by default."""


@dataclass(frozen=True)
class Size:
    """Size of an exported table."""

    rows: int
    bytes: int


def card(
    study: Study,
    sizes: Mapping[str, Size],
    cells: Mapping[str, int],
    facts: Mapping[str, tuple[str, ...]],
    date: str,
    results: tuple[str, ...],
) -> str:
    """README.md of a `datasets` folder: YAML front matter with a config a table, then the text.

    Args:
        sizes: of each table; table NAME lies in data/NAME.parquet.
        cells: number of cells in each state (done, failed, ...), and planned ones.
        facts: where the cells were computed, as `study_tables.facts_of` gives it.
        date: of the tables.
        results: paths of the files in lm-evaluation-harness's form.
    """
    own = source_of(study.data.source).licence and not study.questions
    front = {
        "pretty_name": f"distforget study {study.name}",
        "license": "apache-2.0" if own else "other",
        "tags": ["machine-unlearning", "distforget", study.track],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": f"data/{name}.parquet"}],
                **({"default": True} if name == FIRST else {}),
            }
            for name in sizes
        ],
        "dataset_info": [
            {
                "config_name": name,
                "splits": [
                    {"name": "train", "num_bytes": size.bytes, "num_examples": size.rows}
                ],
                "download_size": size.bytes,
                "dataset_size": size.bytes,
            }
            for name, size in sizes.items()
        ],
    }  # fmt: skip
    planned = cells["planned"]
    states = ", ".join(f"{n} {state}" for state, n in cells.items() if state != "planned")
    settings = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False).strip()
    return "\n".join(
        [
            "---",
            yaml.safe_dump(front, sort_keys=False).strip(),
            "---",
            "",
            f"# distforget study {study.name}",
            "",
            "Did the model really forget, when the training data holds samples similar to the "
            f"forgotten one? Tables of {date}, of a study of {study.track}: {planned} cells "
            f"planned, {states}.",
            "",
            "```python",
            f'datasets.load_dataset("path/of/this/folder", "{FIRST}", split="train")',
            "```",
            "",
            "## Tables",
            "",
            "| table | rows | bytes | what it holds |",
            "|---|---:|---:|---|",
            *(
                f"| {name} | {size.rows} | {size.bytes} | {_text(schemas.describe(name).meaning)} |"
                for name, size in sizes.items()
            ),
            *(line for name in sizes for line in _columns(name)),
            "",
            "## Results in lm-evaluation-harness's form",
            "",
            *(f"- `{path}`" for path in results),
            "",
            "## The study, with all settings",
            "",
            "```yaml",
            settings,
            "```",
            "",
            "## Computed with",
            "",
            *(
                f"- {name.removeprefix('versions.')}: {', '.join(values)}"
                for name, values in facts.items()
                if name != "host"
            ),
            "",
            "## Licence",
            "",
            _licence(study),
            "",
        ]
    )


def _columns(table: str) -> list[str]:
    described = schemas.describe(table)
    return [
        "",
        f"### {table} (version {described.version})",
        "",
        "| column | type | unit | meaning |",
        "|---|---|---|---|",
        *(
            f"| {name} | `{column.type}`{', may be null' if column.nullable else ''} | "
            f"{_text(column.unit or '')} | {_text(column.meaning)} |"
            for name, column in described.columns.items()
        ),
    ]


def _text(text: str) -> str:
    """Escapes text for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _licence(study: Study) -> str:
    models = ", ".join(dict.fromkeys(model.title for model in study.models))
    made = source_of(study.data.source).licence
    kind = study.data.source.kind
    strange = [] if made else [f"rows of `samples` come from the source {kind!r}"]
    strange += [
        f"questions of {config.kind} come from {own.origin(config)[0]!r}"
        for config, own in study.questions
    ]
    said = [f"The {part}" for part in (made, *strange) if part]
    rights = (
        "; what comes from elsewhere keeps its licence, all else is under Apache-2.0"
        if strange
        else "; all tables are under Apache-2.0"
    )
    return (
        f"{'. '.join(said)}{rights}, as far as the licences of the models ({models}) do not say "
        "otherwise."
    )
