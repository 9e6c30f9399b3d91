"""Looking into media files: what is found, and what a hostile one can't do."""

import asyncio
import functools
import io
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import av
import pytest

from tierce.blobs.packed import SmallBlob
from tierce.core.digest import Digest
from tierce.core.errors import Corrupt
from tierce.node.media_child import BLOCK_BYTES
from tierce.node.media_probe import MediaProbe, NoProber, NotMedia


@functools.cache
def film() -> bytes:
    """A second of black with a second of silence, as Matroska."""
    made = io.BytesIO()
    with av.open(made, "w", format="matroska") as container:
        container.metadata["title"] = "Nothing to see"
        video = container.add_stream("mpeg4", rate=24)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for at in range(24):
            picture = av.VideoFrame(64, 48, "yuv420p")
            picture.pts = at
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        sound = av.AudioFrame(format="s16", layout="mono", samples=8000)
        sound.sample_rate = 8000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return made.getvalue()


def blob_of(content: bytes) -> SmallBlob:
    return SmallBlob(Digest.of(content, "sha512"), content)


def script(tmp_path: Path, text: str) -> MediaProbe:
    """A probe whose process is a program of the test's own."""
    path = tmp_path / "child.py"
    path.write_text(text)
    return MediaProbe(command=(sys.executable, "-I", str(path)), seconds=10.0)


async def test_a_film_is_described() -> None:
    content = film()
    found = await MediaProbe().describe(blob_of(content))
    assert found["format"]["name"] == "matroska,webm"
    assert found["format"]["duration_seconds"] == pytest.approx(1.0, abs=0.1)
    assert found["format"]["size"] == len(content)
    assert found["format"]["tags"]["title"] == "Nothing to see"
    video, audio = found["streams"]
    assert (video["type"], video["codec"], video["width"], video["height"]) == (
        "video", "mpeg4", 64, 48,
    )  # fmt: skip
    assert video["frame_rate"] == 24.0
    assert (audio["type"], audio["codec"], audio["sample_rate"], audio["channels"]) == (
        "audio", "pcm_s16le", 8000, 1,
    )  # fmt: skip


async def test_what_was_found_is_remembered() -> None:
    probe = MediaProbe()
    first = await probe.describe(blob_of(film()))
    assert await probe.describe(blob_of(film())) is first


@pytest.mark.parametrize(
    "content",
    [b"", b"only text\n" * 100, bytes(300_000), film()[:100]],
    ids=["none", "text", "zeros", "cut"],
)
async def test_what_is_no_media_says_so(content: bytes) -> None:
    with pytest.raises(NotMedia, match="no media file"):
        await MediaProbe().describe(blob_of(content))


async def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mkv"
    secret.write_bytes(film())
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    listing = f"ffconcat version 1.0\nfile '{secret}'\n"
    for text in (playlist, listing):
        try:
            found = await MediaProbe().describe(blob_of(text.encode()))
        except NotMedia:
            continue
        assert found["streams"] == []
        assert "Nothing to see" not in str(found)


async def test_a_process_that_hangs_is_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    probe = MediaProbe(
        command=(
            sys.executable,
            "-Ic",
            f"open({str(started)!r}, 'w'); import time; time.sleep(60)",
        ),
        seconds=1.0,
    )
    began = asyncio.get_running_loop().time()
    with pytest.raises(NotMedia, match="more time or memory"):
        await probe.describe(blob_of(b"x"))
    assert asyncio.get_running_loop().time() - began < 10
    assert started.exists()


@pytest.mark.parametrize(
    ("start", "length"), [(0, BLOCK_BYTES + 1), (900, 101), (1 << 63, 8), (1001, 0)]
)
async def test_a_process_gets_nothing_beyond_the_file(
    tmp_path: Path, start: int, length: int
) -> None:
    probe = script(
        tmp_path,
        "import socket, struct, json\n"
        "channel = socket.socket(fileno=0)\n"
        f"channel.sendall(struct.pack('<QI', {start}, {length}))\n"
        "print(json.dumps({'got': len(channel.recv(1 << 20))}))\n",
    )
    assert await probe.describe(blob_of(bytes(1000))) == {"got": 0}


async def test_a_process_reads_no_more_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "child.py"
    path.write_text(
        "import socket, struct, json\n"
        "channel = socket.socket(fileno=0)\n"
        "got = 0\n"
        "while True:\n"
        "    channel.sendall(struct.pack('<QI', 0, 1000))\n"
        "    more = len(channel.recv(1000, socket.MSG_WAITALL))\n"
        "    got += more\n"
        "    if not more: break\n"
        "print(json.dumps({'got': got}))\n"
    )
    probe = MediaProbe(command=(sys.executable, "-I", str(path)), read_bytes=5000)
    assert await probe.describe(blob_of(bytes(1000))) == {"got": 5000}


async def test_endless_output_is_not_kept(tmp_path: Path) -> None:
    probe = script(tmp_path, "while True: print('x' * 65536)\n")
    with pytest.raises(NotMedia, match="more time or memory"):
        await probe.describe(blob_of(b"x"))


async def test_a_process_that_dies_is_told_of_as_no_media(tmp_path: Path) -> None:
    probe = script(tmp_path, "import os; os.abort()\n")
    with pytest.raises(NotMedia, match="breaks the reader"):
        await probe.describe(blob_of(b"x"))


async def test_without_the_library_the_operator_is_told_what_to_install(tmp_path: Path) -> None:
    probe = script(tmp_path, 'print(\'{"missing": "No module named av"}\')\n')
    with pytest.raises(NoProber) as caught:
        await probe.describe(blob_of(b"x"))
    assert "tierce[media]" in caught.value.hint


async def test_a_bad_copy_is_no_statement_on_the_content() -> None:
    class Bad(SmallBlob):
        content = film()

        async def stream(
            self, start: int = 0, stop: int | None = None
        ) -> AsyncGenerator[bytes, None]:
            yield self.content[start : stop // 2 if stop else None]
            raise Corrupt("bad")

    with pytest.raises(Corrupt):
        await MediaProbe().describe(Bad(Digest.of(b"x"), film()))
