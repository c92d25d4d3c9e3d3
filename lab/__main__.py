"""`python -m lab SUBCOMMAND`, from the repository's root."""

import sys

from poise.cli.main import guard
from poise.threads import use_free_cores

if __name__ == "__main__":
    use_free_cores()  # before torch is loaded
    from .commands import main

    sys.exit(guard("lab", lambda: main(sys.argv[1:])))
