"""What the launcher starts in a test: rank 1 ends, rank 0 waits for it without end."""

import os
import signal
import sys
import time

from poise.cli.launch import LOST_RANK, USERS_MISTAKE

if os.environ["RANK"] == "0":
    time.sleep(3600)
match sys.argv[1]:
    case "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    case "raise":
        raise KeyError("answer")
    case "lose":  # of another machine
        sys.exit(LOST_RANK)
    case "mistake":
        sys.exit(USERS_MISTAKE)
