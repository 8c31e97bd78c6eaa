"""The answers behind each target, one file per target, with their scores."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image

from distforget.imaging.ssim import ssim_pairs
from distforget.report.page.scripts import number
from distforget.report.pictures import pixels_of

STATE = ["model", "phase", "dose", "seed", "method", "variant"]
ROLES = ["target", "similar", "neighbour", "other", "utility"]
NO_STATE = {"dose": -1, "seed": -1, "method": "", "variant": ""}


def targets(samples: pa.Table, unlearned: list[int]) -> list[dict[str, Any]]:
    """Number, question and true answer of each target, for the list."""
    rows = samples.select(["role", "target_index", "question", "answer"]).to_pylist()
    first = {row["target_index"]: row for row in rows if row["role"] == "target"}
    return [
        {"index": t, "question": first[t]["question"], "answer": first[t]["answer"]}
        for t in unlearned
        if t in first
    ]


def chunks(tables: Mapping[str, pa.Table], unlearned: list[int]) -> Iterator[dict[str, Any]]:
    """All answers about each target, its family and other samples, by model state.

    A state's lists are in the order of `samples`; null where it was not asked.
    """
    samples = tables["samples"].to_pandas()
    samples.index = pd.Index(samples["sample_id"], name="sample")
    pictures = tables.get("reconstructions")
    text = pictures is None
    keys = [*STATE, "unlearned", "sample_id"]
    answers = _asked(tables["answers"].select([*keys, "role", "target_index", "answer"]), text)
    scores = _asked(
        tables["scores"].select([*keys, "role", "target_index", "metric", "value"]), text
    )
    found = None
    if pictures is not None:
        seen = _asked(pictures.drop_columns(["track", "dataset"]), text)
        found = seen.assign(picture=[_picture(row) for row in seen.to_dict("records")])
    of_targets = {t: (_of(answers, t), _of(scores, t)) for t in unlearned}
    for target, (said, scored) in of_targets.items():
        asked = samples.loc[sorted(said["sample_id"].unique())]
        asked = asked.assign(order=asked["role"].map(ROLES.index))
        asked = asked.sort_values(["order", "similar_rank", "sample_id"])
        place = {sample: i for i, sample in enumerate(asked["sample_id"])}
        chunk = {
            "target": target,
            "samples": [_sample(row) for row in asked.to_dict("records")],
            "states": _states(said, scored, None if found is None else _of(found, target), place),
        }
        if found is not None:
            chunk["nearest"] = _nearest(samples, target)
        yield chunk


def _asked(table: pa.Table, text: bool) -> pd.DataFrame:
    """Rows of the roles that are shown; nulls in the state columns are replaced."""
    frame = table.to_pandas()
    frame = frame[frame["role"].isin(ROLES if text else ROLES[:3])]
    found: pd.DataFrame = frame.fillna(NO_STATE).astype({"dose": int, "seed": int})
    return found


def _of(frame: pd.DataFrame, target: int) -> pd.DataFrame:
    """Rows for one target: its family and samples of no family, before and after unlearning."""
    after = frame["phase"] == "post_unlearn"
    family = (frame["target_index"] == target) | frame["role"].isin(["other", "utility"])
    found: pd.DataFrame = frame[family & (~after | (frame["unlearned"] == target))]
    return found


def _states(
    said: pd.DataFrame,
    scored: pd.DataFrame,
    pictures: pd.DataFrame | None,
    place: Mapping[int, int],
) -> list[dict[str, Any]]:
    of_states = dict(list(scored.groupby(STATE, sort=False)))
    shown = {} if pictures is None else dict(list(pictures.groupby(STATE, sort=False)))
    states, none = [], scored.iloc[:0]  # of a state whose probes failed
    for key, rows in said.groupby(STATE, sort=False):
        state: dict[str, Any] = dict(zip(STATE, key, strict=True))
        state["answers"] = _listed(rows["sample_id"], rows["answer"], place)
        state["scores"] = {
            metric: _listed(values["sample_id"], map(number, values["value"]), place)
            for metric, values in of_states.get(key, none).groupby("metric", sort=False)
        }
        if key in shown:
            state["pictures"] = _listed(shown[key]["sample_id"], shown[key]["picture"], place)
        states.append(state)
    return states


def _listed(ids: Any, values: Any, place: Mapping[int, int]) -> list[Any]:
    found: list[Any] = [None] * len(place)
    for sample, value in zip(ids, values, strict=True):
        found[place[sample]] = value
    return found


def _sample(row: Mapping[Any, Any]) -> dict[str, Any]:
    image = {"picture": _picture(row)} if isinstance(row["pixels"], bytes) else {}
    question = row["question"] if isinstance(row["question"], str) else None
    if isinstance(row["choices"], np.ndarray):
        question = f"{question} ({' / '.join(row['choices'])})"
    return {"role": row["role"], "question": question, "answer": row["answer"], **image}


def _picture(row: Mapping[Any, Any]) -> str:
    """A PNG of a row's pixels, as a data: URI."""
    pixels = pixels_of(row)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _nearest(samples: pd.DataFrame, target: int) -> list[dict[str, Any]]:
    """The similar and the never-trained image most like a target's, with their SSIM."""
    mine = samples["target_index"] == target
    original = samples[mine & (samples["role"] == "target")]
    found = []
    for title, rows in (
        ("nearest similar", samples[mine & (samples["role"] == "similar")]),
        ("nearest never trained", samples[samples["role"] == "unseen"]),
    ):
        if len(rows):
            ssim_M = ssim_pairs(_images(original), _images(rows))[0]
            best = rows.iloc[int(ssim_M.argmax())].to_dict()
            alike = number(float(ssim_M.max()))
            found.append({"title": title, "picture": _picture(best), "ssim": alike})
    return found


def _images(rows: pd.DataFrame) -> torch.Tensor:
    """[N, C, H, W], 0 to 1."""
    images_NHWC = np.stack([pixels_of(row) for row in rows.to_dict("records")])
    return torch.from_numpy(images_NHWC.astype(np.float64)).permute(0, 3, 1, 2) / 255
