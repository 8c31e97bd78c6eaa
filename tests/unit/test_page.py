"""The page says what the tables say, holds answers as data alone, and loads what it shows."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from benchmarks import made_up
from distforget.attempts import DiskError, MissingTableError
from distforget.cli import app
from distforget.engine.assemble import gather
from distforget.errors import UsageError
from distforget.plan import Plan, make_plan
from distforget.report.page import sentences, write_report
from distforget.report.page.scripts import number, script
from distforget.report.page.watch import serve
from distforget.report.study_tables import read
from distforget.store import Store
from distforget.study import Study
from tests.hostile import HOSTILE


def study(**changes: Any) -> dict[str, Any]:
    return {
        "name": "made-up",
        "data": {"targets": 5, "others": 4, "similar": {"per_target": 2}},
        "models": [{"name": "m", "base": "hub/model"}],
        "doses": [0, 1, "all"],
        "methods": ["GA_KLN", "NPO_GDN"],
        "unlearn_targets": 5,
        "verify": {"others": 3},
        **changes,
    }


def say(kind: str, number: int) -> str:
    return HOSTILE[number % len(HOSTILE)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, Path]:
    plan = make_plan(Study.model_validate(study()))
    store = Store(tmp_path_factory.mktemp("store"))
    made_up.fill(plan, store, say)
    return plan, store, write_report(plan, store).parent


def content(folder: Path, name: str) -> Any:
    """What a data file hands to the page."""
    text = (folder / "data" / f"{name}.js").read_text("ascii")
    found = re.fullmatch(r'page\.receive\("([^"]+)",(.*)\);\n', text)
    assert found is not None
    assert found[1] == name
    return json.loads(found[2])


@pytest.mark.parametrize("text", HOSTILE)
def test_data_cannot_break_out_of_a_script(text: str) -> None:
    made = script("name", [text])
    assert not set(made) & set(b"<>&\x00")
    assert all(byte < 128 for byte in made)
    assert made.count(b"\n") == 1
    assert json.loads(made.removeprefix(b'page.receive("name",')[:-3]) == [text]


def test_numbers_that_json_lacks_are_said() -> None:
    assert [number(v) for v in (None, float("nan"), float("inf"), 0.123456)] == [
        None, None, "inf", 0.1235,
    ]  # fmt: skip


def test_answers_stand_in_the_data_files_as_they_are(written: tuple[Plan, Store, Path]) -> None:
    _, store, folder = written
    chunk = content(folder, "target-2")
    answers = store.read_study_table("made-up", "answers").to_pandas()
    mine = answers[(answers["target_index"] == 2) | (answers["role"] == "other")]
    before = mine[mine["phase"] == "pre_finetune"]
    samples = store.read_study_table("made-up", "samples").to_pandas().set_index("sample_id")
    (state,) = [s for s in chunk["states"] if s["phase"] == "pre_finetune"]
    found = {
        (sample["role"], sample["question"], answer)
        for sample, answer in zip(chunk["samples"], state["answers"], strict=True)
    }
    assert found == {
        (row.role, samples.loc[row.sample_id, "question"], row.answer)
        for row in before.itertuples()
    }


def test_a_state_has_its_own_scores(written: tuple[Plan, Store, Path]) -> None:
    _, store, folder = written
    chunk = content(folder, "target-3")
    scores = store.read_study_table("made-up", "scores").to_pandas()
    wanted = {"method": "NPO_GDN", "dose": 1, "phase": "post_unlearn"}
    (state,) = [s for s in chunk["states"] if wanted.items() <= s.items()]
    rows = scores.query(
        "method == 'NPO_GDN' and dose == 1 and unlearned == 3 and metric == 'rougeL_recall'"
    )
    target = rows.loc[rows["role"] == "target", "value"].item()
    assert chunk["samples"][0]["role"] == "target"
    assert state["scores"]["rougeL_recall"][0] == pytest.approx(target)
    assert len(state["answers"]) == len(rows)


def test_differences_behind_a_verdict_average_to_it(written: tuple[Plan, Store, Path]) -> None:
    _, store, folder = written
    claims = content(folder, "study")["claims"]
    lines = [line for claim in claims for line in claim["lines"]]
    assert len(lines) == len(read(written[0], store).verdicts)
    for line in lines:
        mean = sum(line["differences"]) / len(line["targets"])
        assert mean == pytest.approx(line["estimate"], abs=2e-4)


def test_a_verdict_is_compared_with_dose_0_or_with_a_phase(
    written: tuple[Plan, Store, Path],
) -> None:
    claims = {claim["id"]: claim["lines"] for claim in content(written[2], "study")["claims"]}
    assert claims["none-rougeL_recall-E4-target-dose-dose-plain-all"][0]["against"] == {
        "dose": 0, "method": "GA_KLN", "variant": "plain",
    }  # fmt: skip
    assert claims["none-rougeL_recall-E4-target-post-pre_unlearn-plain-all"][0]["against"] is None


class Found(HTMLParser):
    """Tags of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_policy_allows_the_folder_alone(written: tuple[Plan, Store, Path]) -> None:
    found = Found()
    found.feed((written[2] / "index.html").read_text("utf-8"))
    (policy,) = [
        a["content"] for tag, a in found.tags
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    assert policy is not None
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert "unsafe" not in policy
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if tag in ("script", "link"):
            address = attributes.get("src") or attributes["href"]
            assert address == "data:," or (written[2] / str(address)).is_file()


def test_code_never_writes_markup(written: tuple[Plan, Store, Path]) -> None:
    for name in ("page.js", "leaderboard.js", "charts.js", "explorer.js"):
        code = (written[2] / name).read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(",
                     "Function(", "http://", "https://"):  # fmt: skip
            assert word not in code, name


def test_all_that_is_linked_is_there(written: tuple[Plan, Store, Path]) -> None:
    folder = written[2]
    data = content(folder, "study")
    linked = [table[kind] for table in data["downloads"] for kind in ("parquet", "csv")]
    linked += [figure[kind] for figure in data["figures"] for kind in ("svg", "png")]
    assert len(linked) > 20
    assert [path for path in linked if not (folder / path).is_file()] == []
    rows = pd.read_csv(folder / "tables" / "cells.csv")
    assert len(rows) == len(written[0].cells)


def test_the_reference_is_said_to_be_missing(written: tuple[Plan, Store, Path]) -> None:
    said = content(written[2], "study")["reference"]
    assert said.startswith("The retrained reference is missing")
    planned = make_plan(Study.model_validate(study(methods=["GA_KLN", "retrain"])))
    tables = read(written[0], written[1])
    again = sentences.reference(type(tables)(**{**vars_of(tables), "planned": cells_of(planned)}))
    assert again == "The retrained reference is missing: none of its cells is done."


def vars_of(tables: Any) -> dict[str, Any]:
    names = ("name", "metric", "margin", "paths", "planned", "every_score", "cells", "date", "note")
    return {name: getattr(tables, name) for name in names}


def cells_of(plan: Plan) -> pd.DataFrame:
    return pd.DataFrame([dict(step.about) for step in plan.cells])


def test_sentences_hold_the_numbers(written: tuple[Plan, Store, Path]) -> None:
    for verdict in read(written[0], written[1]).verdicts:
        said = sentences.line(verdict)
        assert f"{verdict.left:.2f}" in said
        assert f"{verdict.right:.2f}" in said
        assert sentences.signed(verdict.estimate) in said
        assert f"{verdict.agree} of {verdict.targets} targets as claimed" in said
        assert sentences.word(verdict).startswith(verdict.word)


@pytest.mark.parametrize(("value", "said"), [(-0.2, "−0.20"), (-0.001, "+0.00"), (0.5, "+0.50")])
def test_differences_have_a_sign(value: float, said: str) -> None:
    assert sentences.signed(value) == said


def test_a_second_report_takes_the_place_of_the_first(written: tuple[Plan, Store, Path]) -> None:
    plan, store, folder = written
    (folder / "left-over").write_text("of an older report")
    write_report(plan, store)
    assert not (folder / "left-over").exists()
    assert list((store.root / "tmp").iterdir()) == []


def test_a_study_that_was_not_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingTableError, match="run `distforget run made-up` first"):
        write_report(make_plan(Study.model_validate(study())), Store(tmp_path))


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    plan, store = make_plan(Study.model_validate(study(doses=[0]))), Store(tmp_path)
    made_up.fill(plan, store)
    (tmp_path / "studies" / "made-up" / "report").write_text("mine")
    with pytest.raises((UsageError, DiskError), match="it is a file"):
        write_report(plan, store)


def test_the_command_prints_the_path(tmp_path: Path, written: tuple[Plan, Store, Path]) -> None:
    path = tmp_path / "made-up.yaml"
    path.write_text(yaml.safe_dump(study()))
    result = CliRunner().invoke(app, ["report", str(path), "--store", str(written[1].root)])
    assert result.exit_code == 0, result.output
    assert result.output.split() == ["page:", str(written[2] / "index.html")]


def test_a_watched_page_is_renewed_and_the_last_one_is_whole(tmp_path: Path) -> None:
    plan, store = make_plan(Study.model_validate(study(doses=[0, "all"]))), Store(tmp_path)
    made_up.fill(plan, store)
    folder = write_report(plan, store, brief=True).parent
    first = content(folder, "version")
    assert first
    assert content(folder, "study")["watched"] == first
    assert not (folder / "figures").exists()
    write_report(plan, store)
    assert content(folder, "version") == content(folder, "study")["watched"] == ""
    assert (folder / "figures").is_dir()


def test_a_watched_page_is_for_this_machine_alone(written: tuple[Plan, Store, Path]) -> None:
    server = serve(written[2].parent, 0)
    try:
        host, port = server.server_address[:2]
        assert host == "127.0.0.1"
        address = f"http://127.0.0.1:{port}/report/index.html"
        assert b"made-up" in urllib.request.urlopen(address, timeout=10).read()
        asked = urllib.request.Request(address, headers={"Host": "example.org"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(asked, timeout=10)
        with pytest.raises(UsageError, match="--port"):
            serve(written[2].parent, int(port))
    finally:
        server.shutdown()
        server.server_close()
    assert threading.active_count() >= 1


@pytest.mark.parametrize("track", ["text", "image"])
def test_a_study_of_which_nothing_is_done_has_a_page(tmp_path: Path, track: str) -> None:
    given = study() if track == "text" else {
        "name": "made-up", "data": {"source": "digits", "targets": 2, "similar": {"per_target": 2}},
        "models": [{"name": "m", "base": "mlp:8"}], "methods": ["retrain"], "unlearn_targets": 2,
        "verify": {"unseen": 5},
    }  # fmt: skip
    plan, store = make_plan(Study.model_validate(given)), Store(tmp_path)
    for name, table in gather(plan, store).items():
        store.write_study_table("made-up", name, table)
    data = content(write_report(plan, store).parent, "study")
    assert data["lead"] == ["Nothing can be compared yet: no cell is done."]
    assert data["ran"]["done"] == 0
    if track == "text":
        store.write_study_table("made-up", "samples", made_up.samples(plan))
        data = content(write_report(plan, store).parent, "study")
        assert len(data["explorer"]["targets"]) == 5
