"""The blob store's contract, kept by Dropbox: by a stand-in for its servers.

OpenDAL reads the address of a proxy once in a process, so the tests of a store of yours, in
test_cloud_stores.py, are run in a process of their own.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from tierce.testing.dropbox import serve_dropbox

TESTS = Path(__file__).with_name("test_cloud_stores.py")


def test_dropbox_keeps_the_contract(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "Yours"]
    with serve_dropbox(tmp_path) as account:
        ended = subprocess.run(
            [*command, "--basetemp", str(tmp_path / "tests"), str(TESTS)],
            env={**os.environ, **account.environment, "TIERCE_TEST_STORE": "dropbox:///node"},
            cwd=TESTS.parents[2],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    passed = re.search(r"^(\d+) passed", ended.stdout, re.MULTILINE)
    assert ended.returncode == 0, ended.stdout
    assert passed, ended.stdout
    assert int(passed[1]) > 30
    assert "/2/files/upload" in account.requests
