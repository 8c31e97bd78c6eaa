"""Search for similar samples: n-grams, cuts, exact search and groups, each against a naive way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distforget.errors import UsageError
from distforget.finding.chance import chance
from distforget.finding.embedders import EmbedderConfig, origin
from distforget.finding.ngrams import SIZE, hashes, overlap, plain
from distforget.finding.search import LEVELS, NEAREST, Query, clusters, merged, search
from distforget.finding.texts import TEXTS, Texts
from distforget.sources._pairs import Columns

words = st.text("abcd .,", min_size=8, max_size=40)


def grams(text: str) -> set[str]:
    padded = f" {plain(text)} "
    return {padded[i : i + SIZE] for i in range(len(padded) - SIZE + 1)}


@given(words, words)
def test_overlap_is_the_share_of_the_targets_ngrams(target: str, row: str) -> None:
    wanted = len(grams(target) & grams(row)) / max(1, len(grams(target)))
    (found,) = overlap(hashes([target]), hashes([row]))[0]
    one = 1.01 / max(1, len(grams(target)))  # two n-grams may have one hash
    assert found == pytest.approx(wanted, abs=one)


def test_a_copy_with_other_formatting_has_all_the_wording() -> None:
    target = "Where was Ada born? In London, 1815."
    copies = ["WHERE was ADA born --\n\n* in _London_ (1815)!", f"Page 3. {target} And so on."]
    assert overlap(hashes([target]), hashes(copies))[:, 0].tolist() == [1.0, 1.0]
    assert plain(target) == plain(copies[0]) != plain(copies[1])


def test_ngrams_of_a_slice_are_its_own() -> None:
    texts = ["one two three", "four five six", "seven eight nine"]
    whole = overlap(hashes(texts), hashes(texts))
    assert np.array_equal(overlap(hashes(texts), hashes(texts).slice(1, 1)), whole[1:2])


@pytest.mark.parametrize("rows", [600, 5_000, 100_000])
def test_the_cut_lets_few_random_rows_pass_and_no_more(rows: int) -> None:
    passed = []
    for seed in range(8):
        cosines = np.tanh(np.random.default_rng(seed).normal(0.05, 0.1, rows))
        cut = chance(cosines[:4000], rows).cut(0.5 / rows)
        passed.append(int((cosines >= cut).sum()))
    assert sum(passed) <= 8 * 0.5 + 4
    assert cut < 0.85  # and not so few that nothing could ever pass


@pytest.mark.parametrize("rows", [600, 5_000])
def test_similar_rows_do_not_move_their_own_cut(rows: int) -> None:
    random = np.random.default_rng(0)
    cosines = np.tanh(random.normal(0.05, 0.1, rows))
    alone = chance(cosines, rows).cut(0.5 / rows)
    cosines[:50] = random.uniform(0.7, 1.0, 50)
    among = chance(cosines, rows).cut(0.5 / rows)
    assert abs(among - alone) < 0.2
    assert among < 0.7


def test_the_share_at_a_cut_is_the_share_it_was_cut_for() -> None:
    found = chance(np.random.default_rng(1).normal(0, 0.1, 4000), 10_000)
    for share in (1e-3, 1e-5):
        assert found.share(found.cut(share)) == pytest.approx(share)


def shards_of(
    random: np.random.Generator, rows: int, each: int
) -> tuple[np.ndarray, list[pa.Table]]:
    vectors = random.normal(size=(rows, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"row {random.integers(50)} of {random.integers(50)}" for _ in range(rows)]
    table = pa.table(
        {"sample_id": range(rows), "embedding": list(vectors), "ngrams": hashes(texts)}
    )
    return vectors, [table.slice(at, each) for at in range(0, rows, each)]


@given(st.integers(0, 10_000), st.integers(3, 40), st.integers(1, 12))
def test_search_over_shards_is_exact(seed: int, each: int, most: int) -> None:
    vectors, shards = shards_of(np.random.default_rng(seed), 60, each)
    cuts = np.asarray([[0.6, 2.0]] * 3, np.float32)
    query = Query(shards[0].slice(0, 3), TEXTS.measure, cuts, most)
    hits, counts = merged([search(shard, query) for shard in shards], query)
    for target in range(3):
        cosines = vectors @ vectors[target]
        order = np.argsort(-cosines)
        wanted = {int(i) for i in order[:most] if cosines[i] >= 0.6} | set(order[:NEAREST].tolist())
        mine = [hit for hit in hits.to_pylist() if hit["target"] == target]
        assert {hit["sample_id"] for hit in mine} == wanted
        for hit in mine:
            assert hit["cosine"] == pytest.approx(cosines[hit["sample_id"]], abs=1e-5)
    # Sums in another order differ in their last bits, which may lie on either side of a level.
    fewest, most_ = (
        [[(vectors @ vectors[t] >= level + near).sum() for t in range(3)] for level in LEVELS[:-1]]
        for near in (1e-5, -1e-5)
    )
    assert (fewest <= counts[:-1]).all()
    assert (counts[:-1] <= most_).all()


def test_a_row_that_shares_only_wording_is_found() -> None:
    table = pa.table(
        {
            "sample_id": [7, 8, 9, 10],
            "embedding": [[0.0, 1.0], [0.1, 0.9], [0.2, 0.9], [0.3, 0.9]],
            "ngrams": hashes(["the secret of Ada", "nothing", "at all", "to see"]),
        }
    )
    asked = pa.table({"embedding": [[0.0, -1.0]], "ngrams": hashes(["The SECRET of Ada!"])})
    query = Query(asked, TEXTS.measure, np.array([[0.5, 0.8]], np.float32), 5)
    hits, _ = merged([search(table, query)], query)
    best = max(hits.to_pylist(), key=lambda hit: hit["second"])
    assert (best["sample_id"], best["second"], best["cosine"]) == (7, 1.0, -1.0)


def test_groups_are_those_that_are_near_each_other() -> None:
    angles = np.radians([0, 3, 60, 5, 63, 120])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert clusters(vectors, 0.5) == [1, 1, 2, 1, 2, 3]
    assert clusters(vectors[:1], 0.5) == [1]
    assert clusters(vectors[:0], 0.5) == []


def lines(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_training_data_is_read_whatever_its_roles_say(tmp_path: Path) -> None:
    path = lines(tmp_path / "d.jsonl", [{"question": "q", "answer": "a", "role": "assistant"}])
    (table,) = Texts(path, "--train-data", Columns()).tables(5, 10)
    assert table.to_pylist() == [{"sample_id": 5, "question": "q", "answer": "a"}]


def test_all_rows_of_a_list_without_roles_are_targets(tmp_path: Path) -> None:
    pairs: list[dict[str, object]] = [{"question": f"q{i}", "answer": "a"} for i in range(3)]
    plain_list = Texts(lines(tmp_path / "a.jsonl", pairs), "--forget", Columns())
    assert [name for name, _ in plain_list.targets()] == ["row 1", "row 2", "row 3"]
    pairs[1] |= {"role": "target", "target_id": "x"}
    pairs[0] |= {"role": "other"}
    pairs[2] |= {"role": "other"}
    with_roles = Texts(lines(tmp_path / "b.jsonl", pairs), "--forget", Columns())
    assert [name for name, _ in with_roles.targets()] == ["x"]


def test_a_folder_of_shards_is_read_side_by_side(tmp_path: Path) -> None:
    for name in ("b", "a"):
        lines(tmp_path / f"{name}.jsonl", [{"question": name, "answer": "x"}])
    parts = Texts(str(tmp_path), "--train-data", Columns()).parts()
    assert [next(part.tables(0, 9))["question"][0].as_py() for part in parts] == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "q"}], "column 'answer': it is missing"),
        ([{"question": "q", "answer": " "}], "it is empty"),
        ([{"question": "q", "answer": "a", "role": "other"}], "no row has the role 'target'"),
        (
            [{"question": "q", "answer": "a", "role": "target", "target_id": "x"}] * 2,
            "two targets have the id 'x'",
        ),
    ],
)
def test_a_bad_forget_list_is_refused(
    tmp_path: Path, rows: list[dict[str, object]], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Texts(lines(tmp_path / "f.jsonl", rows), "--forget", Columns()).targets()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("builtin:other", "known: builtin:minilm"),
        ("./nowhere", "no folder"),
        ("a/b/c", "no folder"),
    ],
)
def test_an_embedder_that_is_not_there_is_refused(path: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        origin(EmbedderConfig(path=path), "--embedder")


def test_a_folder_without_weights_is_no_embedder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="safetensors"):
        origin(EmbedderConfig(path=str(tmp_path)), "--embedder")
