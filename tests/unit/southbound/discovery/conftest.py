"""The modules beside the tests (the wired pipelines, the hosts' frames) are imported by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
