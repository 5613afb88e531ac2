"""The modules beside the benchmarks (the published algorithm, topologies, bounds) are imported by name."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the bellhop command does, and before numpy is loaded

sys.path.insert(0, str(Path(__file__).parent))
