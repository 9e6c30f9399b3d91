"""Real input: files as they lie on a disk, by thousands, stored, listed, and fetched back the same."""

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierce.client import Client
from tierce.core.digest import Digest
from tierce.testing.processes import NodeProcess

pytestmark = pytest.mark.procs

AT_ONCE = 16


def real_files(top: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def real_folders(wanted: int) -> dict[Path, list[Path]]:
    """Folders of this machine that hold at least ``wanted`` readable files together."""
    paths = sysconfig.get_paths()
    chosen: dict[Path, list[Path]] = {}
    total = 0
    library = Path(paths["stdlib"])
    tops = (library, library / "site-packages", Path(paths["purelib"]), Path("/usr/share"))
    for top in tops:
        for folder in sorted(top.iterdir()) if top.is_dir() else []:
            if folder.is_dir() and not folder.is_symlink() and folder not in tops:
                found = list(real_files(folder))
                chosen[folder] = found
                total += len(found)
                if total >= wanted:
                    return chosen
    pytest.fail(f"this machine has only {total} files to try with")


def tierce(*words: str, url: str) -> str:
    command = [sys.executable, "-m", "tierce", *words]
    environment = {**os.environ, "TIERCE_URL": url}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def differing(url: str, stored: dict[Path, Digest]) -> list[Path]:
    """The files whose blob is not, byte for byte, what the file holds."""
    wrong: list[Path] = []
    left = iter(stored.items())
    async with Client(url) as client:

        async def compare() -> None:
            for path, digest in left:
                if await client.get_bytes(digest) != path.read_bytes():
                    wrong.append(path)

        await asyncio.gather(*(compare() for _ in range(AT_ONCE)))
    return wrong


@pytest.mark.timeout(180)
@pytest.mark.parametrize("wanted", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_of_real_files_come_back_as_they_were(tmp_path: Path, wanted: int) -> None:
    folders = real_folders(wanted)
    files = {path for found in folders.values() for path in found}
    with NodeProcess(tmp_path / "data", workers=2) as node:
        node.start()
        url = f"http://{node.address}"
        lines = tierce("put", "-r", "--json", *map(str, folders), url=url).splitlines()
        answers = [json.loads(line) for line in lines]
        stored = {Path(answer["name"]): Digest.parse(answer["digest"]) for answer in answers}
        assert set(stored) == files
        listed = [line.split()[0] for line in tierce("ls", url=url).splitlines()]
        assert listed == sorted({str(digest) for digest in stored.values()})
        assert asyncio.run(differing(url, stored)) == []
        node.stop()
