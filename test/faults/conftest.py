"""Let the tests here, and only them, import the suite beside them."""

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent))
