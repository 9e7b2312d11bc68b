import sys
from pathlib import Path

# pytest's importlib mode does not put this folder on the path; `tts_fakes` is imported from it.
sys.path.insert(0, str(Path(__file__).parent))
