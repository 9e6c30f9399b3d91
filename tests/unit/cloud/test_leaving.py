"""A process that used OpenDAL does not end while its threads may still hand results over."""

import subprocess
import sys

CODE = """
import time
from tierce.cloud.bucket import open_bucket
time.sleep = lambda seconds: print("waited")
open_bucket("memory:///")
open_bucket("memory:///")
print("ends")
"""


def test_at_the_end_of_a_process_its_threads_are_given_time_once() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ends", "waited"]
