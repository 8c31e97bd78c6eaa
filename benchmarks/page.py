"""Measures the page of a paper-size study: 163,200 answers after unlearning, made up.

    python benchmarks/page.py [--quick] [--store FOLDER] [--output page.json]

Opened from disk in headless Chromium with an empty cache: time until the verdicts stand, until the
first chart is drawn once it is in view, and until a target's answers are there. The baseline is the
same page with the answers of all targets loaded before it is shown.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from made_up import fill
from measuring import machine, paper_study, parser, report
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from distforget.plan import Plan, make_plan
from distforget.report.page import write_report
from distforget.store import Store
from distforget.study import Study

AT_ONCE = ("index.html", "page.css", "page.js", "charts.js", "explorer.js", "data/study.js")
LATER = ("vega.js",)
REPEATS = 3
SCROLL = "document.querySelector('.claim[open] .forest')?.scrollIntoView()"


def open_seconds(index: Path, wanted: str) -> float:
    """From the request until something is there, in a fresh browser; the median of a few."""
    times = []
    for _ in range(REPEATS):
        options = Options()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
            options.add_argument(argument)
        browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            browser.get("about:blank")
            began = time.perf_counter()
            browser.get(index.as_uri())
            while not browser.execute_script(f"{SCROLL}; return Boolean({wanted})"):
                if time.perf_counter() - began > 60:
                    raise TimeoutError(f"{wanted}: not there after a minute")
                time.sleep(0.01)
            times.append(time.perf_counter() - began)
        finally:
            browser.quit()
    return median(times)


def all_in_one(report_folder: Path) -> Path:
    """The baseline: the same page, with the files of all targets loaded before it is shown."""
    names = sorted(p.name for p in (report_folder / "data").glob("target-*.js"))
    scripts = "".join(f'<script defer src="data/{name}"></script>' for name in names)
    page = (report_folder / "index.html").read_text()
    first = '<script defer src="data/study.js">'
    page = page.replace(first, scripts + first)
    path = report_folder / "all.html"
    path.write_text(page)
    return path


def measure(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Sizes and times of the page."""
    began = time.perf_counter()
    index = write_report(plan, store)
    written = time.perf_counter() - began
    folder = index.parent
    size = {p: (folder / p).stat().st_size / 1e6 for p in (*AT_ONCE, *LATER)}
    chunks = [p.stat().st_size / 1e6 for p in (folder / "data").glob("target-*.js")]
    verdicts = "document.querySelector('.claim h3')"
    chart = "document.querySelector('.claim[open] .forest svg')"
    answer = "document.querySelector('.answer')"
    return [
        {"what": "loaded at once", "MB": sum(size[p] for p in AT_ONCE), "seconds": ""},
        {"what": "Vega, with the first chart", "MB": size["vega.js"], "seconds": ""},
        {"what": "a target's answers, median", "MB": median(chunks), "seconds": ""},
        {"what": "all answers", "MB": sum(chunks), "seconds": ""},
        {"what": "until the verdicts", "MB": "", "seconds": open_seconds(index, verdicts)},
        {"what": "until a chart", "MB": "", "seconds": open_seconds(index, chart)},
        {"what": "until the answers", "MB": "", "seconds": open_seconds(index, answer)},
        {"what": "baseline: all in one, until the verdicts", "MB": "",
         "seconds": open_seconds(all_in_one(folder), verdicts)},
        {"what": "written, with figures and CSV", "MB": "", "seconds": written},
    ]  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    options = parser(__doc__ or "")
    options.add_argument("--store", type=Path, help="where to keep the made-up store and the page")
    given = options.parse_args()
    study = paper_study()
    if given.quick:
        study |= {"methods": study["methods"][:2], "models": study["models"][:1]}
    plan = make_plan(Study.model_validate(study))
    about = machine(given.device)
    with tempfile.TemporaryDirectory() as name:
        store = Store(given.store or Path(name))
        fill(plan, store)
        rows = measure(plan, store)
    report(f"page of {len(plan.cells) * 51:,} answers after unlearning", rows, about, given.output)


if __name__ == "__main__":
    main()
