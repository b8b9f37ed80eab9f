"""IDX files: every type, gzip or not, damaged in every way, and folders of four of them."""

import gzip
import itertools
import math
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cnn_core.datasets import DatasetError, load_idx, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "t_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "t_test": "t10k-labels-idx1-ubyte",
}


def header(code, shape):
    """The bytes before the elements."""
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


def encode(array):
    """The IDX file of an array, written independently of the reader."""
    code = CODES[array.dtype.str[1:]]
    return header(code, array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One file that the examples of a property overwrite."""
    return tmp_path_factory.mktemp("idx") / "some-file"


arrays = st.sampled_from(sorted(CODES)).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=1, max_dims=4, min_side=0))
)
compressions = st.sampled_from((bytes, gzip.compress))


class TestReadIdx:
    @given(array=arrays, compress=compressions)
    def test_round_trip(self, scratch, array, compress):
        got = read_idx(write(scratch, compress(encode(array))))
        assert got.dtype == array.dtype
        assert got.dtype.isnative
        assert got.shape == array.shape
        assert got.tobytes() == array.tobytes()  # bytes: a NaN must keep its bits
        assert got.flags.writeable
        assert got.flags.c_contiguous

    def test_big_endian_by_hand(self, tmp_path):
        content = bytes.fromhex("00000b02 00000001 00000002 0102 fffe")
        got = read_idx(write(tmp_path / "a", content))
        assert got.tolist() == [[258, -2]]
        assert got.dtype == np.int16

    def test_path_as_string(self, tmp_path):
        path = write(tmp_path / "a", encode(np.arange(3, dtype=np.uint8)))
        assert read_idx(str(path)).tolist() == [0, 1, 2]

    def test_gzip_is_told_by_content(self, tmp_path):
        content = encode(np.arange(3, dtype=np.uint8))
        assert read_idx(write(tmp_path / "plain.gz", content)).tolist() == [0, 1, 2]
        assert read_idx(write(tmp_path / "packed", gzip.compress(content))).tolist() == [0, 1, 2]

    @pytest.mark.parametrize("n", [2**16, 2**18 - 5, 2**18 - 4, 2**20 + 1])
    def test_longer_than_one_piece(self, tmp_path, n):
        array = np.random.default_rng(n).integers(0, 4, n).astype(np.uint8)
        got = read_idx(write(tmp_path / "a", gzip.compress(encode(array), 1)))
        assert np.array_equal(got, array)

    @given(cuts=st.lists(st.integers(0, 60), max_size=4), padding=st.integers(0, 70))
    def test_gzip_members_and_zero_padding(self, scratch, cuts, padding):
        array = np.arange(49, dtype=np.uint8)
        content = encode(array)
        edges = [0, *sorted(cuts), len(content)]
        members = [content[a:b] for a, b in itertools.pairwise(edges)]
        packed = b"".join(map(gzip.compress, members)) + bytes(padding)
        assert np.array_equal(read_idx(write(scratch, packed)), array)

    def test_padding_longer_than_one_piece(self, tmp_path):
        first, second = encode(np.arange(9, dtype=np.uint8)), gzip.compress(b"")
        content = gzip.compress(first) + bytes(200_001) + second + bytes(70_000)
        assert read_idx(write(tmp_path / "a", content)).tolist() == list(range(9))

    def test_missing_file_and_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read_idx(tmp_path / "nowhere")
        with pytest.raises(IsADirectoryError):
            read_idx(tmp_path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_pipe_is_refused_without_waiting(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DatasetError, match="pipe: file: expected a regular file"):
            read_idx(tmp_path / "pipe")


FIELDS = {
    "magic too short": (b"\0\0\x08", "magic: expected 4 bytes, got a file of 3"),
    "empty": (b"", "magic: expected 4 bytes, got a file of 0"),
    "magic": (b"\x89PNG....", "magic: expected two zero bytes .*, got 0x8950"),
    "type code": (header(0x0A, (1,)) + b"1", "type code: expected one of 0x08, .*, got 0x0a"),
    "rank 0": (header(0x08, ()) + b"1", "number of dimensions: expected 1 to 32, got 0"),
    "rank 33": (header(0x08, (1,) * 33) + b"1", "number of dimensions: expected 1 to 32, got 33"),
    "sizes": (header(0x08, (1, 2))[:-1], "sizes of the dimensions: expected 8 bytes, .* after 7"),
    "too large": (
        header(0x0E, (2**29 + 1,)),
        r"sizes .* max_bytes=4294967296 .*\(536870913,\) of float64",
    ),
    "overflow": (header(0x08, (2**32 - 1,) * 32), "sizes of the dimensions: .*max_bytes"),
    "zero hides overflow": (header(0x08, (0, *(2**32 - 1,) * 3)), "sizes of .*: .*max_bytes"),
    "one short": (header(0x0C, (2,)) + bytes(7), r"elements: expected 8 bytes for .*\(2,\), got 7"),
    "one over": (header(0x0C, (2,)) + bytes(9), r"elements: expected 8 bytes for .*\(2,\), got "),
}


class TestDamage:
    @pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
    @pytest.mark.parametrize("case", FIELDS)
    def test_message_names_file_and_field(self, tmp_path, case, compress):
        content, message = FIELDS[case]
        path = write(tmp_path / "damaged-file", compress(content))
        with pytest.raises(DatasetError, match=f"damaged-file: {message}") as error:
            read_idx(path)
        assert isinstance(error.value, ValueError)

    @pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
    def test_every_truncation(self, tmp_path, compress):
        content = compress(encode(np.arange(24, dtype=np.int16).reshape(2, 3, 4)))
        for length in range(len(content)):
            with pytest.raises(DatasetError, match="cut"):
                read_idx(write(tmp_path / "cut", content[:length]))

    def test_every_byte_of_the_header(self, tmp_path):
        array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        content = encode(array)
        loaded = 0
        for at in range(16):
            for value in range(256):
                changed = content[:at] + bytes([value]) + content[at + 1 :]
                path = write(tmp_path / "changed", changed)
                try:
                    got = read_idx(path)
                except DatasetError:
                    continue
                # Only uint8 read as int8, another spelling of the same elements, can pass.
                assert changed == content or (at, value) == (2, 0x09)
                assert got.shape == array.shape
                assert got.tobytes() == array.tobytes()
                loaded += 1
        assert loaded == 16 + 1

    def test_every_byte_of_a_gzip_file(self, tmp_path):
        array = np.arange(40, dtype=np.uint8).reshape(5, 8)
        content = gzip.compress(encode(array), mtime=0)
        for at in range(len(content)):
            for bit in range(8):
                changed = bytearray(content)
                changed[at] ^= 1 << bit
                try:
                    got = read_idx(write(tmp_path / "changed", bytes(changed)))
                except DatasetError:
                    continue
                # What says nothing about the content: the flags, time, level and system of the
                # header, and the bits that fill the last byte before the checksum and length.
                assert at in (*range(3, 10), len(content) - 9)
                assert np.array_equal(got, array)

    @given(
        dtype=st.sampled_from([*CODES.values(), 0, 0x0A, 0x0F, 0xFF]),
        sizes=st.lists(st.integers(0, 5) | st.integers(0, 2**32 - 1), max_size=4),
        rank=st.none() | st.integers(0, 255),
        body=st.binary(max_size=40),
        damage=st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=4),
        compress=compressions,
    )
    def test_any_header_and_any_bytes(self, scratch, dtype, sizes, rank, body, damage, compress):
        content = bytearray(compress(header(dtype, sizes) + body))
        if compress is bytes and rank is not None:
            content[3] = rank
        for at, value in damage:
            if at < len(content):
                content[at] = value
        try:
            got = read_idx(write(scratch, bytes(content)), max_bytes=2**20)
        except DatasetError as error:
            assert str(error).startswith(str(scratch))
            return
        # What is accepted accounts for every byte.
        plain = content if compress is bytes else gzip.decompress(content)
        assert got.nbytes == len(plain) - 4 - 4 * got.ndim
        stored = np.frombuffer(plain, got.dtype.newbyteorder(">"), offset=len(plain) - got.nbytes)
        assert got.tobytes() == stored.astype(got.dtype).tobytes()

    def test_bytes_after_the_gzip_data(self, tmp_path):
        content = gzip.compress(encode(np.arange(3, dtype=np.uint8)))
        with pytest.raises(DatasetError, match="gzip stream"):
            read_idx(write(tmp_path / "a", content + b"junk"))
        with pytest.raises(DatasetError, match="elements"):
            read_idx(write(tmp_path / "a", content + gzip.compress(b"x")))

    def test_checksum_of_the_last_member_is_verified(self, tmp_path):
        content = bytearray(gzip.compress(encode(np.arange(3, dtype=np.uint8))))
        content[-8] ^= 1
        with pytest.raises(DatasetError, match="gzip stream: expected valid gzip data"):
            read_idx(write(tmp_path / "a", bytes(content)))


def peak_of_refusal(path, match, **keywords):
    """The most memory that read_idx takes until it refuses a file."""
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=match):
            read_idx(path, **keywords)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


class TestBoundedMemory:
    LITTLE = 2**20

    def test_claim_of_a_short_plain_file(self, tmp_path):
        path = write(tmp_path / "a", header(0x08, (2**31,)) + bytes(100))
        assert peak_of_refusal(path, "elements: expected 2147483648 bytes") < self.LITTLE

    def test_claim_of_a_short_gzip_file(self, tmp_path):
        path = write(tmp_path / "a", gzip.compress(header(0x08, (2**31,)) + bytes(100)))
        assert peak_of_refusal(path, "elements: .*got at most") < self.LITTLE

    def test_gzip_bomb(self, tmp_path):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        parts = [packer.compress(header(0x08, (10,)))]
        parts += [packer.compress(bytes(2**20)) for _ in range(200)]
        path = write(tmp_path / "a", b"".join([*parts, packer.flush()]))
        assert path.stat().st_size < 2**18
        assert peak_of_refusal(path, "elements: expected 10 bytes .* got more") < self.LITTLE

    def test_honest_extreme_ratio_is_read(self, tmp_path):
        # Zeros reach deflate's best ratio, on which the refusal of short gzip files rests.
        array = np.zeros(2**24, np.uint8)
        path = write(tmp_path / "a", gzip.compress(encode(array)))
        assert array.size / path.stat().st_size > 1000
        assert np.array_equal(read_idx(path), array)

    @pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
    def test_limit(self, tmp_path, compress):
        path = write(tmp_path / "a", compress(encode(np.zeros((3, 4), np.float64))))
        assert read_idx(path, max_bytes=96).shape == (3, 4)
        with pytest.raises(DatasetError, match="at most max_bytes=95 bytes, got shape"):
            read_idx(path, max_bytes=95)


def sample(n_train=7, n_test=4, height=5, width=3, top=9):
    """A small data set as uint8 arrays, by the keys of NAMES."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (n_train, height, width)).astype(np.uint8),
        "t_train": np.linspace(0, top, n_train).astype(np.uint8),
        "x_test": rng.integers(0, 256, (n_test, height, width)).astype(np.uint8),
        "t_test": np.arange(n_test, dtype=np.uint8),
    }


def save(folder, data, rename=str, compress=bytes):
    for key, array in data.items():
        write(folder / rename(NAMES[key]), compress(encode(array)))
    return folder


class TestLoadIdx:
    def test_default_is_normalized_and_flat(self, tmp_path):
        data = sample()
        (x_train, t_train), (x_test, t_test) = load_idx(save(tmp_path, data))
        for got, raw in ((x_train, data["x_train"]), (x_test, data["x_test"])):
            assert got.dtype == np.float32
            expected = raw.reshape(len(raw), 15).astype(np.float32)
            expected /= 255.0
            assert np.array_equal(got, expected)  # to the last bit, as the book computes it
        for got, raw in ((t_train, data["t_train"]), (t_test, data["t_test"])):
            assert got.dtype == np.uint8
            assert np.array_equal(got, raw)

    def test_raw_images(self, tmp_path):
        data = sample()
        (x_train, _), (x_test, _) = load_idx(save(tmp_path, data), normalize=False, flatten=False)
        assert x_train.dtype == np.uint8
        assert x_train.flags.writeable
        assert np.array_equal(x_train, data["x_train"][:, np.newaxis])
        assert np.array_equal(x_test, data["x_test"][:, np.newaxis])

    @pytest.mark.parametrize(("top", "classes"), [(0, 10), (9, 10), (10, 11), (255, 256)])
    def test_one_hot(self, tmp_path, top, classes):
        data = sample(top=top)
        (_, t_train), (_, t_test) = load_idx(save(tmp_path, data), one_hot_label=True)
        assert t_train.dtype == t_test.dtype == np.float64
        assert np.array_equal(t_train, np.eye(classes)[data["t_train"]])
        assert np.array_equal(t_test, np.eye(classes)[data["t_test"]])

    @pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
    @pytest.mark.parametrize("end", ["", ".gz"])
    @pytest.mark.parametrize("dot", ["-", "."])
    def test_names(self, tmp_path, dot, end, compress):
        data = sample()

        def rename(name):
            return name.replace("-idx", f"{dot}idx") + end

        (x_train, _), _ = load_idx(save(tmp_path, data, rename, compress), normalize=False)
        assert np.array_equal(x_train, data["x_train"].reshape(7, 15))

    def test_plain_name_wins(self, tmp_path):
        data = sample()
        save(tmp_path, data)
        save(tmp_path, sample(top=3), lambda name: f"{name}.gz", gzip.compress)
        assert np.array_equal(load_idx(tmp_path)[0][1], data["t_train"])

    def test_folder_as_string_and_keywords_only(self, tmp_path):
        save(tmp_path, sample())
        assert load_idx(str(tmp_path))[0][0].shape == (7, 15)
        with pytest.raises(TypeError):
            load_idx(tmp_path, True)

    def test_no_images(self, tmp_path):
        data = sample(n_test=0)
        (_, _), (x_test, t_test) = load_idx(save(tmp_path, data), one_hot_label=True)
        assert x_test.shape == (0, 15)
        assert t_test.shape == (0, 10)

    @pytest.mark.parametrize("key", NAMES)
    def test_missing_file(self, tmp_path, key):
        save(tmp_path, sample())
        (tmp_path / NAMES[key]).unlink()
        with pytest.raises(FileNotFoundError) as error:
            load_idx(tmp_path)
        message = str(error.value)
        stem, kind = NAMES[key].rsplit("-idx", 1)
        assert str(tmp_path) in message
        for name in (f"{stem}-idx{kind}", f"{stem}.idx{kind}"):
            assert name in message
            assert f"{name}.gz" in message

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_idx(tmp_path / "nowhere")


class TestFilesThatDoNotFit:
    @pytest.mark.parametrize("key", ["t_train", "t_test"])
    @pytest.mark.parametrize("extra", [-1, 1])
    def test_number_of_labels(self, tmp_path, key, extra):
        data = sample()
        n = len(data[key])
        data[key] = np.zeros(n + extra, np.uint8)
        message = f"{NAMES[key]}: number of labels: expected {n}, .*, got {n + extra}"
        with pytest.raises(DatasetError, match=message):
            load_idx(save(tmp_path, data))

    @pytest.mark.parametrize("key", NAMES)
    def test_rank(self, tmp_path, key):
        data = sample()
        rank = data[key].ndim
        data[key] = data[key][..., np.newaxis]
        message = f"{NAMES[key]}: number of dimensions: expected {rank} for .*, got {rank + 1}"
        with pytest.raises(DatasetError, match=message):
            load_idx(save(tmp_path, data))

    @pytest.mark.parametrize("key", NAMES)
    def test_type(self, tmp_path, key):
        data = sample()
        data[key] = data[key].astype(np.float32)
        message = f"{NAMES[key]}: type code: expected 0x08 .*, got float32"
        with pytest.raises(DatasetError, match=message):
            load_idx(save(tmp_path, data))

    def test_size_of_the_images(self, tmp_path):
        data = sample()
        data["x_test"] = data["x_test"].transpose(0, 2, 1)
        assert math.prod(data["x_test"].shape[1:]) == math.prod(data["x_train"].shape[1:])
        message = r"height and width: expected \(5, 3\), .*, got \(3, 5\)"
        with pytest.raises(DatasetError, match=message):
            load_idx(save(tmp_path, data))

    @pytest.mark.parametrize("key", NAMES)
    def test_damage_in_any_of_the_four(self, tmp_path, key):
        save(tmp_path, sample())
        path = tmp_path / NAMES[key]
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DatasetError, match=f"{NAMES[key]}: elements"):
            load_idx(tmp_path)
