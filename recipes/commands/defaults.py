"""The defaults of the commands, the same on the command line and in Python. Nothing heavy is imported here."""

from __future__ import annotations

DATA = "digits"
SEED = 0
DEVICE = "local"

SCORES = ("gradsign", "naswot", "synflow", "zico")
"""Scores of `score`, and predictors of `rank`."""
BATCH_SIZE = 64
"""Images that scores look at."""
REPEATS = 1
SPACE = "nasbench201"
SAMPLES = 200
"""Architectures that `rank` draws from a table."""

PRUNING_METHOD = "magnitude"
MAX_DROP = 0.01
"""Accuracy that a quantised form may lose, as a share."""

BATCH = 1
"""Images in one timed run."""
PROFILE_SESSIONS, PROFILE_SECONDS = 10, 2.0
DEPTH = 2
"""Levels of module names that times are grouped by."""

IMAGE_SIZE, CHANNELS, CLASSES = 32, 3, 10
"""Of the images of a space that is given by name."""
BLOCK_SESSIONS, BLOCK_SECONDS, BLOCK_MIN_RUNS = 4, 0.2, 5
"""Measurement of one block of a latency table."""
CHECK_SECONDS = 0.6
"""Time budget of one whole network when a table is checked."""
CHECK_NETWORKS, CALIBRATION_NETWORKS = 30, 20
