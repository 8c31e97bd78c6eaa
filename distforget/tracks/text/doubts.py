"""Warns of copies of a target and of rows that are too long, before anything is computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz import fuzz, process

from distforget.words import unicode_words

FAMILY = ("target", "similar", "paraphrase")
NEAR = 95.0
"""Least similarity of near copies: 100 times 1 minus the edits by the characters of both texts."""
MOST_PAIRS = 20_000_000
"""Above so many pairs of texts near copies are not looked for: it would take minutes."""


def doubts(samples: pa.Table, tokenizers: dict[str, Path], max_tokens: int) -> list[str]:
    """One line for each thing that is doubtful.

    Args:
        samples: the whole dataset.
        tokenizers: tokenizer.json of the models by their names, as far as they are there.
        max_tokens: of a row, in a fine-tuning.
    """
    asked = samples.filter(pc.not_equal(samples["role"], "utility"))
    return [*copies(asked), *too_long(asked, tokenizers, max_tokens)]


def copies(samples: pa.Table) -> list[str]:
    """Rows outside a target's family that say what the target says: they falsify the study."""
    texts = _texts(samples)
    roles, targets = samples["role"].to_pylist(), samples["target_index"].to_pylist()
    of_target = [row for row, role in enumerate(roles) if role == "target"]
    strange = [row for row, role in enumerate(roles) if role not in FAMILY[1:]]
    pairs = list(_equal(texts, of_target, strange))
    if len(of_target) * len(strange) <= MOST_PAIRS:
        pairs += _near(texts, of_target, strange, set(pairs))
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for target, row in pairs:
        if roles[row] != "target" or target < row:
            found[roles[row]].append((target, row))
    ids = samples["sample_id"].to_pylist()
    places = samples["source_index"].to_pylist()

    def place(row: int) -> str:
        of_source = "" if places[row] is None else f", row {places[row] + 1} of its source"
        return f"sample {ids[row]}{of_source}"

    return [
        f"{len({row for _, row in some})} samples with role {role!r} say the same as a target, "
        f"word for word or nearly, e.g. {place(some[0][1])}, as target {targets[some[0][0]]}: "
        "while they are trained on, the target cannot be forgotten; give them role 'similar' and "
        "its target_id, or take them out"
        for role, some in found.items()
    ]


def _texts(samples: pa.Table) -> list[str]:
    """Question and answer of each row as words, in lower case and without punctuation."""
    pairs = zip(samples["question"].to_pylist(), samples["answer"].to_pylist(), strict=True)
    return [" ".join(unicode_words(f"{question} {answer}")) for question, answer in pairs]


def _equal(
    texts: Sequence[str], targets: Sequence[int], strange: Sequence[int]
) -> Iterator[tuple[int, int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row in strange:
        rows[texts[row]].append(row)
    for target in targets:
        yield from ((target, row) for row in rows[texts[target]] if row != target)


def _near(
    texts: Sequence[str],
    targets: Sequence[int],
    strange: Sequence[int],
    known: set[tuple[int, int]],
) -> list[tuple[int, int]]:
    found = []
    wanted = [texts[target] for target in targets]
    for start in range(0, len(strange), 10_000):
        rows = strange[start : start + 10_000]
        alike: Any = process.cdist(
            wanted, [texts[row] for row in rows], scorer=fuzz.ratio, score_cutoff=NEAR, workers=-1
        )
        for i, j in zip(*np.nonzero(alike), strict=True):
            pair = (targets[i], rows[j])
            if pair[0] != pair[1] and pair not in known:
                found.append(pair)
    return found


def too_long(samples: pa.Table, tokenizers: dict[str, Path], max_tokens: int) -> list[str]:
    """Rows with more tokens than a fine-tuning takes; the prompt's template is not counted."""
    from tokenizers import Tokenizer

    texts = [
        f"{question} {answer}"
        for question, answer in zip(
            samples["question"].to_pylist(), samples["answer"].to_pylist(), strict=True
        )
    ]
    # No token is shorter than a byte.
    long = [row for row, text in enumerate(texts) if len(text.encode()) > max_tokens]
    if not long:
        return []
    said = []
    for model, path in tokenizers.items():
        rows = Tokenizer.from_file(str(path)).encode_batch([texts[row] for row in long])
        sizes = [len(row.ids) for row in rows]
        over = sum(size > max_tokens for size in sizes)
        if over:
            worst = samples["sample_id"][long[int(np.argmax(sizes))]].as_py()
            said.append(
                f"model {model}: {over} samples have more than {max_tokens} tokens, sample {worst} "
                f"the most ({max(sizes)}): raise finetune.max_tokens to {max(sizes) + 64} or so, "
                "or shorten them"
            )
    return said
