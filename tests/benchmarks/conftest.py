"""The modules beside the benchmarks (the published algorithm, topologies, bounds) are imported by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
