"""Prints how far a study is and its verdicts so far, seen from the cluster: runs nothing.

Takes what `distforget status` takes; in a job, Ray says which cluster it is (RAY_ADDRESS).
"""

import sys

from distforget.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "status")
    main()
