"""`python -m orchestrator …` is `sdpo …`, for working directories that were uploaded and not installed."""

import sys

from orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
