"""The modules beside the tests (drawn messages, the other codecs) are imported by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
