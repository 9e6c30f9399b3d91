"""``tierce get``: fetch a blob to a file or to stdout, and never call wrong bytes a success."""

import errno
import os
import stat
import sys
from contextlib import aclosing
from pathlib import Path

import click

from tierce.cli.progress import Meter, plain_name, reason_of
from tierce.cli.remote import Remote, remote_options, run
from tierce.client import Client
from tierce.core.digest import Digest, new_hasher
from tierce.core.errors import BadRequest, Full, TierceError
from tierce.core.limits import PIECE_BYTES

STDOUT = "-"


@click.command(
    epilog="""\b
Examples:
  tierce get blake3:af13...49f2 -o photo.jpg
  tierce get sha256:e3b0...b855 | tar x
  tierce get blake3:af13...49f2 -o photo.jpg --force"""
)
@click.argument("digest", type=Digest.parse)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    default=STDOUT,
    show_default=True,
    metavar="FILE",
    help="Where to write it; `-` is stdout.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there with other content.")
@remote_options
def command(digest: Digest, output: str, force: bool, remote: Remote) -> None:
    """Fetch the blob DIGEST and verify it.

    A file appears whole or not at all: the bytes gather in FILE.part, and the same command
    continues an interrupted download there. If FILE has the digest already, nothing is fetched.

    To stdout the bytes flow while they are verified. If the exit code is not 0, don't use them.
    """
    if output == STDOUT:
        run(_to_stdout(remote.client(), digest))
        return
    try:
        if not _is_there(output, digest, force):
            with Meter() as meter:
                run(_to_file(remote.client(), digest, output, meter))
    except OSError as error:
        raise _local(error, output) from error


async def _to_stdout(client: Client, digest: Digest) -> None:
    stdout = sys.stdout.buffer
    async with client, aclosing(client.stream(digest)) as pieces:
        async for piece in pieces:
            stdout.write(piece)
    stdout.flush()


async def _to_file(client: Client, digest: Digest, path: str, meter: Meter) -> None:
    async with client:
        with meter.transfer(path) as report:
            await client.get_file(digest, path, progress=report)


def _is_there(path: str, digest: Digest, force: bool) -> bool:
    """Whether the file has the digest already. Raises BadRequest if it must not be replaced."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(mode):
        raise BadRequest(
            f"{plain_name(path)} is not a regular file", hint="Name a file, or `-` for stdout."
        )
    if _digest_of(Path(path), digest.algorithm) == digest:
        return True
    if not force:
        raise BadRequest(
            f"{plain_name(path)} is there with other content", hint="--force replaces it."
        )
    return False


def _digest_of(path: Path, algorithm: str) -> Digest:
    hasher = new_hasher(algorithm)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
    return Digest(algorithm, hasher.digest())


def _local(error: OSError, path: str) -> TierceError:
    """What the file system refused, in the user's words: it is their disk, not the node's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(
            f"no space left here for {plain_name(path)}",
            hint="Free some space and run the command again: it continues where it stopped.",
        )
    return TierceError(f"can't write {plain_name(path)}: {reason_of(error)}")
