"""What the launcher starts in a test: rank 1 is killed, rank 0 waits for it without end."""

import os
import signal
import time

if os.environ["RANK"] == "0":
    time.sleep(3600)
os.kill(os.getpid(), signal.SIGKILL)
