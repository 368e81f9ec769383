"""One thread for each process: several tests run at once, and threads that wait spin."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
