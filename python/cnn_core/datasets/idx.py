"""IDX files, the format of MNIST, Fashion-MNIST, KMNIST and EMNIST, plain or compressed with gzip.

An IDX file is a header and the elements of one array in C order, every number big endian::

    0 0 | type code (1 byte) | number of dimensions D (1 byte) | D sizes (4 bytes each) | elements

A file may come from anywhere, so nothing that its header claims is believed before it is checked,
and the memory that a file can ask for is bounded by its own length and by a stated limit.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cnn_core._checks import whole

Array: TypeAlias = npt.NDArray[Any]
Dataset: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 32  # the most that every release of NumPy can hold
_DEFAULT_MAX_BYTES = 4 * 2**30

_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE_MAX_RATIO = 1032  # 258 bytes from 2 bits is the best that deflate can do
_INPUT_BYTES = 64 * 1024
_OUTPUT_BYTES = 256 * 1024  # small enough for the piece to be copied out of the cache


class DatasetError(ValueError):
    """A data file that is damaged or not what it should be; the message names file and field."""


def _error(path: str, field: str, expected: object, got: object) -> DatasetError:
    return DatasetError(f"{path}: {field}: expected {expected}, got {got}")


class _PlainSource:
    """The bytes of an uncompressed file."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self.max_size = size

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end of the file."""
        return self._file.read(size)

    def fill(self, buffer: Array) -> int:
        """Read into a uint8 buffer and return the number of bytes, fewer at the end."""
        view = memoryview(buffer.data)
        filled = 0
        while filled < buffer.size:
            count = self._file.readinto(view[filled:])
            if count == 0:
                break
            filled += count
        return filled


class _GzipSource:
    """The bytes inside a gzip file of one or more members, never more than were asked for."""

    def __init__(self, file: BufferedReader, size: int, path: str) -> None:
        self._file = file
        self._path = path
        self._input = b""
        self._inflater = zlib.decompressobj(wbits=31)
        self.max_size = size * _DEFLATE_MAX_RATIO

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end of the last member."""
        buffer = np.empty(size, np.uint8)
        return buffer[: self.fill(buffer)].tobytes()

    def fill(self, buffer: Array) -> int:
        """Read into a uint8 buffer and return the number of bytes, fewer at the end."""
        view = memoryview(buffer.data)
        filled = 0
        while filled < buffer.size:
            piece = self._next_piece(min(buffer.size - filled, _OUTPUT_BYTES))
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def _next_piece(self, limit: int) -> bytes:
        """Return 1 to `limit` bytes, or none after the last member, its checksum verified."""
        while True:
            if self._inflater.eof and not self._start_member():
                return b""
            if not self._input:
                self._input = self._file.read(_INPUT_BYTES)
            at_end = not self._input
            try:
                piece = self._inflater.decompress(self._input, limit)
            except zlib.error as error:
                raise _error(self._path, "gzip stream", "valid gzip data", error) from error
            ended = self._inflater.eof
            self._input = self._inflater.unused_data if ended else self._inflater.unconsumed_tail
            if piece:
                return piece
            if at_end and not ended:
                raise _error(self._path, "gzip stream", "a complete stream", "a truncated one")

    def _start_member(self) -> bool:
        """Begin the next gzip member; False when only padding with zeros, or nothing, is left."""
        self._input = self._input.lstrip(b"\0")
        while not self._input:
            block = self._file.read(_INPUT_BYTES)
            if not block:
                return False
            self._input = block.lstrip(b"\0")
        self._inflater = zlib.decompressobj(wbits=31)
        return True


_Source: TypeAlias = _PlainSource | _GzipSource


def _open_source(file: BufferedReader, path: str) -> _Source:
    size = os.fstat(file.fileno()).st_size
    is_gzip = file.read(2) == _GZIP_MAGIC
    file.seek(0)
    return _GzipSource(file, size, path) if is_gzip else _PlainSource(file, size)


def _read_header(source: _Source, path: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the big-endian dtype and the shape that the header declares."""
    magic = source.read(4)
    if len(magic) < 4:
        raise _error(path, "magic", "4 bytes", f"a file of {len(magic)}")
    if magic[:2] != b"\0\0":
        raise _error(path, "magic", "two zero bytes (an IDX file)", f"0x{magic[:2].hex()}")
    if magic[2] not in _DTYPES:
        known = ", ".join(f"0x{code:02x}" for code in _DTYPES)
        raise _error(path, "type code", f"one of {known}", f"0x{magic[2]:02x}")
    rank = magic[3]
    if not 1 <= rank <= _MAX_DIMENSIONS:
        raise _error(path, "number of dimensions", f"1 to {_MAX_DIMENSIONS}", rank)
    sizes = source.read(4 * rank)
    if len(sizes) < 4 * rank:
        got = f"a file that ends after {len(sizes)} of them"
        raise _error(path, "sizes of the dimensions", f"{4 * rank} bytes", got)
    return np.dtype(_DTYPES[magic[2]]), tuple(np.frombuffer(sizes, ">u4").tolist())


def _check_size(
    source: _Source, path: str, dtype: np.dtype[Any], shape: tuple[int, ...], max_bytes: int
) -> int:
    """Return the bytes that the elements take, once file and limit are known to allow them."""
    # Zeros are left out of the limit: NumPy cannot make (0, 2**32, 2**32) either.
    if dtype.itemsize * prod(size for size in shape if size) > max_bytes:
        got = f"shape {shape} of {dtype.newbyteorder('=')}"
        raise _error(path, "sizes of the dimensions", f"at most max_bytes={max_bytes} bytes", got)
    n_bytes = dtype.itemsize * prod(shape)
    header = 4 + 4 * len(shape)
    if isinstance(source, _PlainSource) and source.max_size != header + n_bytes:
        expected = f"{n_bytes} bytes for shape {shape}"
        raise _error(path, "elements", expected, f"{source.max_size - header} bytes")
    if header + n_bytes > source.max_size:
        expected = f"{n_bytes} bytes for shape {shape}"
        raise _error(path, "elements", expected, f"at most {source.max_size - header} bytes")
    return n_bytes


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = _DEFAULT_MAX_BYTES) -> Array:
    """Read one IDX file, plain or compressed with gzip (told by its content, not by its name).

    Parameters
    ----------
    path : path of a regular file
    max_bytes : int, default 4 GiB
        The most that the elements may take in memory. A header that claims more is refused before
        anything is allocated, and a gzip file is never decompressed beyond what its header
        announces, plus one byte to see that it ends there.

    Returns
    -------
    ndarray
        A fresh, writeable array in C order and native byte order: uint8, int8, int16, int32,
        float32 or float64.

    Raises
    ------
    DatasetError
        The file is no IDX file, is truncated, damaged, too large, or has bytes left over.
    OSError
        The file cannot be opened or read, FileNotFoundError among others.

    Notes
    -----
    The format is described by LeCun, Cortes and Burges, *The MNIST database of handwritten digits*.
    """
    whole("max_bytes", max_bytes, 0, "an integer >= 0")
    name = os.fspath(path)
    mode = os.stat(name).st_mode  # before opening: to open a pipe is to wait for its writer
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _error(name, "file", "a regular file", "a device, a pipe or a socket")
    with open(name, "rb") as file:
        source = _open_source(file, name)
        dtype, shape = _read_header(source, name)
        buffer = np.empty(_check_size(source, name, dtype, shape, max_bytes), np.uint8)
        filled = source.fill(buffer)
        if filled < buffer.size:
            expected = f"{buffer.size} bytes for shape {shape}"
            raise _error(name, "elements", expected, f"{filled} bytes")
        if source.read(1):
            raise _error(name, "elements", f"{buffer.size} bytes for shape {shape}", "more bytes")
    array = buffer.view(dtype).reshape(shape)
    if sys.byteorder == "little":
        array.byteswap(inplace=True)
    return array.view(dtype.newbyteorder("="))


def _find_file(folder: Path, part: str, rank: int) -> Path:
    names = [f"{part}{dot}idx{rank}-ubyte{end}" for end in ("", ".gz") for dot in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"no {part} file in {folder}: looked for {', '.join(names)}")


def _read_part(path: Path, rank: int, what: str) -> Array:
    array = read_idx(path)
    if array.ndim != rank:
        raise _error(str(path), "number of dimensions", f"{rank} for {what}", array.ndim)
    if array.dtype != np.uint8:
        raise _error(str(path), "type code", f"0x08 (uint8) for {what}", array.dtype)
    return array


def _read_split(images: Path, labels: Path, normalize: bool) -> tuple[Array, Array]:
    """Return the images (N, H, W) and labels (N,) of the training set or of the test set."""
    t = _read_part(labels, 1, "labels")
    x = _read_part(images, 3, "images")
    if len(t) != len(x):
        expected = f"{len(x)}, the number of images in {images.name}"
        raise _error(str(labels), "number of labels", expected, len(t))
    if normalize:
        # Divided in float32, as in the book: x * (1 / 255) would differ in the last bit.
        x = np.divide(x, np.float32(255), dtype=np.float32)
    return x, t


def _read_both(train: tuple[Path, Path], test: tuple[Path, Path], normalize: bool) -> Dataset:
    # Imported here, so that `import cnn_core` does not wait for it.
    from concurrent.futures import ThreadPoolExecutor

    # zlib lets go of the interpreter: to read the test set meanwhile saves a sixth of the time.
    with ThreadPoolExecutor(max_workers=1) as pool:
        task = pool.submit(_read_split, *test, normalize)
        return _read_split(*train, normalize), task.result()


def _one_hot(t: Array, n_classes: int) -> npt.NDArray[np.float64]:
    rows = np.zeros((len(t), n_classes))
    rows[np.arange(len(t)), t] = 1.0
    return rows


def load_idx(
    folder: str | os.PathLike[str],
    *,
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
) -> Dataset:
    """Load a data set of gray images stored as MNIST is: four IDX files in one folder.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, also spelled `train-images.idx3-ubyte` and so on, and also with `.gz`
    at the end. Where several spellings of one file are present, one without `.gz` is taken.

    Parameters
    ----------
    folder : path of the folder
    normalize : bool, default True
        True: float32 pixels from 0.0 to 1.0. False: uint8 pixels from 0 to 255.
    flatten : bool, default True
        True: images of shape (N, H * W). False: (N, 1, H, W), channels first.
    one_hot_label : bool, default False
        True: labels as float64 one-hot rows with 10 columns, or as many as the largest label of the
        two sets asks for. False: uint8 labels (N,).

    Returns
    -------
    (x_train, t_train), (x_test, t_test) : two pairs of arrays

    Raises
    ------
    DatasetError
        A file is damaged, or the files do not fit together (numbers of images and labels, sizes of
        the images).
    FileNotFoundError
        A file is missing; the message lists the names that were looked for.
    """
    place = Path(folder)
    train_files = _find_file(place, "train-images", 3), _find_file(place, "train-labels", 1)
    test_files = _find_file(place, "t10k-images", 3), _find_file(place, "t10k-labels", 1)
    (x_train, t_train), (x_test, t_test) = _read_both(train_files, test_files, normalize)
    if x_train.shape[1:] != x_test.shape[1:]:
        expected = f"{x_train.shape[1:]}, the size of the training images"
        raise _error(str(test_files[0]), "height and width", expected, x_test.shape[1:])
    n_train, height, width = x_train.shape
    size = (height * width,) if flatten else (1, height, width)
    x_train, x_test = x_train.reshape(n_train, *size), x_test.reshape(len(x_test), *size)
    if one_hot_label:
        n_classes = max(10, *(int(t.max(initial=0)) + 1 for t in (t_train, t_test)))
        t_train, t_test = _one_hot(t_train, n_classes), _one_hot(t_test, n_classes)
    return (x_train, t_train), (x_test, t_test)
