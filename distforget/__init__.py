"""distforget: did the model really forget, when similar samples stay in the training data?"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distforget.api import Results, run
    from distforget.loading import load_study
    from distforget.study import Study

# For GNU's OpenMP, before torch is imported: a thread that waits for others spins for microseconds,
# then sleeps. By default it spins on, and takes the cores from those that it waits for wherever two
# processes share a machine (up to ten times slower there; sleeping at once costs 20 % elsewhere).
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
__all__ = ["Results", "Study", "load_study", "run"]


def __getattr__(name: str) -> Any:
    """What the package offers, imported when it is used: a command needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'distforget' has no attribute {name!r}")
    from distforget import api

    return getattr(api, name)
