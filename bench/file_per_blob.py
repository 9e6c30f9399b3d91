"""The reference for durable small writes: the plainest server that keeps its word.

Same HTTP library and event loop as Tierce, same hash, and for each body one file: written under a
temporary name, synced, renamed, its directory synced. Arguments: directory, port.
"""

import asyncio
import itertools
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop
from aiohttp import web
from blake3 import blake3

serial = itertools.count()


def store(directory: str, data: bytes) -> str:
    name = blake3(data).hexdigest()
    folder = f"{directory}/{name[:2]}"
    temporary = f"{directory}/{os.getpid()}-{next(serial)}"
    with Path(temporary).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, f"{folder}/{name}")
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    return name


async def main(directory: str, port: int) -> None:
    pool = ThreadPoolExecutor(32)
    loop = asyncio.get_running_loop()

    async def post(request: web.BaseRequest) -> web.Response:
        name = await loop.run_in_executor(pool, store, directory, await request.read())
        return web.Response(status=201, text=name)

    for number in range(256):
        Path(f"{directory}/{number:02x}").mkdir(exist_ok=True, parents=True)
    runner = web.ServerRunner(web.Server(post, access_log=None))
    await runner.setup()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    await web.SockSite(runner, sock, backlog=1024).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
