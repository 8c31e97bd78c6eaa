"""Runs a study as a job: `ray job submit --working-dir . -- python jobs/run_study.py demo`.

Takes what `distforget run` takes; in a job, Ray says which cluster it is (RAY_ADDRESS).
"""

import sys

from distforget.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "run")
    main()
