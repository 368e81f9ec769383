"""What all tests share.

One thread for each process: several tests run at once, and threads that wait spin. A property is
tested on the same examples each time; `pytest --hypothesis-profile=explore` looks for new ones.
"""

import os

from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("explore", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
