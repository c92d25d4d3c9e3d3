"""What the launcher starts in a test: leaves its rank and its words in a folder."""

import os
import sys
from pathlib import Path

folder, *words = sys.argv[1:]
rank, number = os.environ["RANK"], os.environ["WORLD_SIZE"]
Path(folder, rank).write_text(" ".join([number, *words]))
