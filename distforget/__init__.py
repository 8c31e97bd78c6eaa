"""distforget: did the model really forget, when similar samples stay in the training data?"""

import os

# For OpenMP, before torch is imported: threads that wait for others sleep. By default they spin,
# and take the cores from those that they wait for wherever two processes share a machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
