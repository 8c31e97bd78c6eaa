"""distforget: did the model really forget, when similar samples stay in the training data?"""

import os

# For GNU's OpenMP, before torch is imported: a thread that waits for others spins for microseconds,
# then sleeps. By default it spins on, and takes the cores from those that it waits for wherever two
# processes share a machine (up to ten times slower there; sleeping at once costs 20 % elsewhere).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
