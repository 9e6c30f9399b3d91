"""A process that used OpenDAL does not end while its threads may still hand results over."""

import subprocess
import sys

import pytest

USE = """
import asyncio, atexit, sys, time
from tierce.cloud.bucket import open_bucket
from tierce.cloud.leaving import end
time.sleep = lambda seconds: print("waited")
open_bucket("memory:///")
open_bucket("memory:///")
print("ends")
"""
ENDS = """
import atexit, sys
from tierce.cloud.leaving import end
atexit.register(lambda: print("taken down"))
print("ends")
"""


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_at_the_end_of_a_process_its_threads_are_given_time_once() -> None:
    done = run(USE)
    assert (done.returncode, done.stdout.split()) == (0, ["ends", "waited"])


@pytest.mark.parametrize("code", [0, 5])
def test_a_program_of_ours_ends_at_once(code: int) -> None:
    done = run(f"{USE}\nprint('error', file=sys.stderr)\nend({code})")
    assert (done.returncode, done.stdout.split(), done.stderr) == (code, ["ends"], "error\n")


def test_a_process_that_has_not_used_it_ends_as_any_other() -> None:
    done = run(f"{ENDS}\nend(3)")
    assert (done.returncode, done.stdout) == (3, "ends\ntaken down\n")
