"""Pictures from a stranger: bombs, truncated files, other formats; always a clear error."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_core._pictures import MOST_PIXELS, read_image

Image = pytest.importorskip("PIL.Image")

GRAY, RGBA = 0, 6


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, color=GRAY, bits=8, extra=b""):
    """A PNG of zeros, which takes a thousandth of the memory of its pixels."""
    row = bytes(1 + width * {GRAY: 1, RGBA: 4}[color] * bits // 8)
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(row) for _ in range(min(height, 2**13))), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = [chunk(b"IHDR", head), extra, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 9 9
%%EndComments
showpage
%%EOF
"""
REFUSED = {
    "empty": b"",
    "text": b"no picture",
    "a few bytes": b"\x89PNG\r\n\x1a\n",
    "no pixels": png(0, 0),
    "many pixels": png(60_000, 60_000),
    "more than the limit": png(2**14, MOST_PIXELS // 2**14 + 1),
    "one side beyond 31 bits": png(1, 1).replace(struct.pack(">II", 1, 1), b"\x80\0\0\0\0\0\0\1"),
    "truncated": png(50, 50)[:-40],
    "a long text": png(8, 8, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))),
    "a program in PostScript": POSTSCRIPT,
    "a pickle": b"\x80\x04cos\nsystem\n(S'false'\ntR.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_pictures_are_refused(name, tmp_path):
    path = tmp_path / "hostile.png"
    path.write_bytes(REFUSED[name])
    with pytest.raises(ValueError, match=r"hostile.png: no picture that can be read: "):
        read_image(path, 28, 28)


def test_no_other_program_is_ever_started(tmp_path, monkeypatch):
    """Pillow reads PostScript by running Ghostscript on it."""

    def refuse(*arguments, **options):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    path = tmp_path / "x.eps"
    path.write_bytes(POSTSCRIPT)
    with pytest.raises(ValueError, match="cannot identify"):
        read_image(path, 28, 28)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: expected a file"):
        read_image(tmp_path / "pipe", 28, 28)


@pytest.mark.parametrize("size", [(1, 1), (1, 60_000), (60_000, 1), (3, 2)])
def test_odd_shapes_are_read(size, tmp_path):
    path = tmp_path / "odd.png"
    Image.new("L", size, 7).save(path)
    assert read_image(path, 5, 9).shape == (5, 9)


CHILD = """
import resource, sys
from cnn_core._pictures import read_image
import PIL.Image, PIL.ImageOps, PIL.PngImagePlugin
with open("/proc/self/statm") as file:
    most = int(file.read().split()[0]) * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (most, most))
print(read_image(sys.argv[1], 28, 28).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space")
@pytest.mark.parametrize(("color", "bits"), [(GRAY, 16), (RGBA, 8)])
def test_the_largest_picture_takes_less_than_a_gigabyte(color, bits, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(2**13, 2**13, color, bits))
    assert path.stat().st_size < 2**20 and MOST_PIXELS == 2**26
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "(28, 28)\n", done.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One small valid file per format."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7)).astype(np.uint8)
    for kind in ("png", "jpeg", "gif", "bmp", "tiff", "ppm"):
        Image.fromarray(pixels).save(folder / kind, kind)
    return folder


@given(st.data())
def test_damaged_pictures_are_read_or_refused(pictures, data):
    kind = data.draw(st.sampled_from(sorted(path.name for path in pictures.iterdir())))
    content = bytearray((pictures / kind).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path = pictures.parent / "damaged"
    path.write_bytes(content)
    try:
        assert read_image(path, 4, 4).shape == (4, 4)
    except ValueError as error:
        assert "damaged: no picture" in str(error)
