"""`python -m deadbeat`: the same as the command `deadbeat`."""

import sys

from deadbeat.command import main

if __name__ == "__main__":
    sys.exit(main())
