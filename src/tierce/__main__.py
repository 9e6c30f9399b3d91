"""``python -m tierce`` is the command ``tierce``."""

import sys

from tierce.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
