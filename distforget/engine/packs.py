"""Reads the same table of many steps, from one file for each few hundred of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from distforget import schemas
from distforget.engine.rows import identity
from distforget.plan import Plan, Step, cell_name
from distforget.store import Store

PACK = 256
"""Steps whose tables are kept in one file: a hundred thousand folders are slow to read."""


class Packs:
    """The tables of a study's steps. Those of each whole group are kept in one file."""

    def __init__(self, plan: Plan, store: Store, write: bool) -> None:
        """Files are read in any case, and written if `write`."""
        self.plan, self.store, self.write = plan, store, write
        self.folder = store.study_table(plan.study.name, "scores").parent / "packs"
        self.used: set[str] = set()

    def table(self, name: str, steps: Sequence[Step]) -> pa.Table:
        """A table of these steps, which are done."""
        groups = [steps[start : start + PACK] for start in range(0, len(steps), PACK)]
        return pa.concat_tables(
            [schemas.empty(name), *(self._of_group(name, group) for group in groups)]
        )

    def _of_group(self, name: str, steps: Sequence[Step]) -> pa.Table:
        whose = [self._whose(name, step) for step in steps]
        keys = [step.key for step in steps]
        about = json.dumps([name, str(schemas.arrow_schema(name)), keys, whose])
        path = self.folder / f"{hashlib.sha256(about.encode()).hexdigest()}.parquet"
        self.used.add(path.name)
        if self.store.there(path):
            return schemas.read(path, name)
        table = pa.concat_tables(
            with_values(
                schemas.read(self.store.folder(key, whole=False) / f"{name}.parquet", name), values
            )
            for key, values in zip(keys, whose, strict=True)
        )
        if self.write and len(steps) == PACK:
            with self.store.explaining(f"table {name!r}"), self.store.scratch("pack") as temporary:
                self.folder.mkdir(parents=True, exist_ok=True)
                schemas.write(table, name, temporary / path.name)
                (temporary / path.name).replace(path)
            self.store.keep(path)
        return table

    def _whose(self, name: str, step: Step) -> dict[str, Any]:
        """This study's names: another one with other names may have computed the step."""
        values = {k: v for k, v in identity(step, self.plan.study).items() if v is not None}
        return {**values, "cell": cell_name(step)} if name == "cells" else values

    def sweep(self) -> None:
        """Remove files that this study's tables are not made of any more."""
        for path in self.folder.glob("*.parquet") if self.write else ():
            if path.name not in self.used:
                path.unlink(missing_ok=True)


def with_values(table: pa.Table, values: dict[str, Any]) -> pa.Table:
    """The table with these values in all rows; columns that it lacks are not added."""
    for name, value in values.items():
        place = table.schema.get_field_index(name)
        if place >= 0:
            field = table.schema.field(place)
            column = pa.repeat(pa.scalar(value, field.type), len(table))
            table = table.set_column(place, field, column)
    return table
