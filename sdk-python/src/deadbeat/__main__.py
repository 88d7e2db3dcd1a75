"""`python -m deadbeat`: the same commands as `celery deadbeat`, for scripts and where Celery is missing."""

import sys

from deadbeat.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
