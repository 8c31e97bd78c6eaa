"""Prints what a study still has to do, seen from the cluster: runs nothing.

Takes what `distforget plan` takes; in a job, Ray says which cluster it is (RAY_ADDRESS).
"""

import sys

from distforget.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "plan")
    main()
