"""The program of a process that a supervisor starts: ``python -m tierce.role ROLE``."""

import importlib
import sys

from tierce.cloud.leaving import end
from tierce.core.collecting import collect_seldom


def _main() -> int:
    collect_seldom()  # before the many modules of a node are loaded
    code = importlib.import_module("tierce.app").run_role(sys.argv[1])
    assert isinstance(code, int)
    return code


if __name__ == "__main__":
    end(_main())
