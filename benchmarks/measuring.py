"""What the benchmarks share: options, the machine's own speed, a table, a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

from distforget.plan import Plan, make_plan
from distforget.study import Study

PAPER_MODELS = (
    "EleutherAI/gpt-neo-1.3B",
    "facebook/opt-2.7b",
    "meta-llama/Llama-3.2-1B-Instruct",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct",
)
PAPER_METHODS = ("GA_KLN", "GA_GDN", "NPO_KLN", "NPO_GDN", "GDR", "GDR_KLN", "GDR_GDN", "TV")


def parser(documentation: str) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--quick", action="store_true", help="smaller, for a first look")
    made.add_argument("--output", type=Path, help="JSON file to write the figures to")
    return made


def matmul_gflops(device: str, size: int = 2048, repeats: int = 5) -> float:
    """Best float32 matrix product of a few, in 1e9 floating-point operations per second."""
    left = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        left @ left
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on, and how busy it was with other work."""
    cores = len(os.sched_getaffinity(0))
    return {
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "matmul_gflops": round(matmul_gflops(device), 1),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def report(
    title: str, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], output: Path | None
) -> None:
    """Print rows as a table and, if asked, write all as JSON."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = ", ".join(f"{name} {value}" for name, value in about.items())
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=140).print(table)
    if output is not None:
        content = {"title": title, **about, "rows": [dict(row) for row in rows]}
        output.write_text(json.dumps(content, indent=1) + "\n")


def peak_while(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds that some work takes, and the most memory (GiB) that it and its children hold."""
    process, done, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.1):
            each = [process, *process.children(recursive=True)]
            held = [_private(one) for one in each]
            peak[0] = max(peak[0], sum(held))

    before = _private(process)
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        work()
    finally:
        seconds = time.perf_counter() - began
        done.set()
        watcher.join()
    return seconds, (peak[0] - before) / 2**30


def _private(process: psutil.Process) -> int:
    """Bytes that are its own: what Ray's workers share is counted once, in the object store."""
    try:
        found = process.memory_info()
        return int(found.rss - found.shared)
    except psutil.Error:
        return 0


def paper_study() -> dict[str, Any]:
    """The paper's text experiments as one study of 3,200 cells, as it stands in YAML."""
    return {
        "name": "made-up-paper-size",
        "data": {"targets": 50, "others": 2450, "similar": {"per_target": 50}},
        "models": [{"name": path.split("/")[1], "base": path} for path in PAPER_MODELS],
        "doses": [0, "all"],
        "methods": list(PAPER_METHODS),
        "unlearn_targets": 50,
    }


def paper_plan() -> Plan:
    """The plan of :func:`paper_study`."""
    return make_plan(Study.model_validate(paper_study()))


def mark_done(store: Path, plan: Plan, cells: int) -> None:
    """Make a store say that the first cells of a plan are done, without their tables."""
    for step in plan.cells[:cells]:
        folder = store / "done" / step.key
        folder.mkdir(parents=True)
        (folder / "payload.json").write_text(step.payload)
        (folder / "manifest.json").write_text(json.dumps({"stage": "cell", "seconds": 30.0}))
