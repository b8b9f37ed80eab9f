"""The reader of safetensors files: equal to that of the safetensors package, and never fooled."""

import json
import os
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_core._tensors import MOST_HEADER, open_tensors, pack_tensors
from reference import same_bits

CODES = {
    "F16": "f2",
    "F32": "f4",
    "F64": "f8",
    "BOOL": "?",
    **{f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}


class Refused(ValueError):
    pass


def join(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read(path):
    with open_tensors(path, Refused) as file:
        return {name: file.read(name) for name in file.shapes()}, file.metadata


def read_bytes(tmp_path, data):
    path = tmp_path / "hostile"
    path.write_bytes(data)
    return read(path)


def tensor(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# ---- what is right -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tensors") / "file"


@given(st.data())
def test_what_safetensors_writes_is_read(scratch, data):
    shapes = st.lists(st.integers(0, 4), max_size=3)
    entries = st.tuples(st.sampled_from(sorted(CODES)), shapes)
    names = st.text(max_size=5).filter(lambda name: name != "__metadata__")
    asked = data.draw(st.dictionaries(names, entries, max_size=4))
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.integers(0, 2, shape).astype(CODES[code]) for name, (code, shape) in asked.items()
    }
    metadata = data.draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
    scratch.write_bytes(pack_tensors(tensors, metadata))
    found, texts = read(scratch)
    assert found.keys() == tensors.keys() and texts == metadata
    for name, array in tensors.items():
        assert same_bits(found[name], array) and found[name].flags.writeable


def test_spaces_behind_the_header_are_padding(tmp_path):
    header = json.dumps({"a": tensor([1], 0, 4)}).encode() + b"   "
    assert read_bytes(tmp_path, join(header, bytes(4)))[0]["a"].tolist() == [0]


def test_a_header_that_could_not_be_read_again_is_not_written():
    with pytest.raises(ValueError, match="header: expected at most"):
        pack_tensors({"a": np.zeros(1)}, {"long": "x" * MOST_HEADER})


# ---- what is refused -----------------------------------------------------------------------------

ONE = {"a": tensor([1], 0, 4)}
TWICE = b'{"a":%s,"a":%s}' % ((json.dumps(ONE["a"]).encode(),) * 2)
REFUSED = {
    "empty": (b"", "header length"),
    "seven bytes": (bytes(7), "header length"),
    "no header": (bytes(8), "header: expected JSON"),
    "a header of 2**63": (struct.pack("<Q", 2**63) + b"{}", "header length: expected at most"),
    "a long header": (struct.pack("<Q", MOST_HEADER + 1), "header length: expected at most"),
    "a header that is not there": (struct.pack("<Q", 1000) + b"{}", "a file that ends after 2"),
    "no JSON": (join(b"{"), "JSON"),
    "no UTF-8": (join(b'{"\xff": 1}'), "UTF-8"),
    "UTF-16": (join("{}".encode("utf-16")), "UTF-8"),
    "a list": (join([]), "a JSON object"),
    "deep nesting": (join(b"[" * 100_000), "JSON"),
    "NaN": (join(b'{"a": NaN}'), "NaN is not JSON"),
    "a number of 5000 digits": (join(b'{"a": %s}' % (b"9" * 5000)), "JSON"),
    "a name twice": (join(TWICE, bytes(4)), "'a' stands twice"),
    "metadata twice": (join(b'{"__metadata__":{"x":"1","x":"2"}}'), "'x' stands twice"),
    "metadata a text": (join({"__metadata__": "text"}), "__metadata__: expected an object"),
    "metadata of numbers": (join({"__metadata__": {"x": 1}}), "__metadata__: expected an object"),
    "a tensor of nothing": (join({"a": {}}), "tensor 'a': expected an object of data_offsets"),
    "a tensor with more": (join({"a": ONE["a"] | {"b": 1}}, bytes(4)), "tensor 'a': expected an"),
    "a tensor a list": (join({"a": [1]}), "tensor 'a': expected an object"),
    "an unknown dtype": (join({"a": tensor([1], 0, 4, "F8_E4M3")}, bytes(4)), "'a': dtype"),
    "a dtype a list": (join({"a": tensor([1], 0, 4, ["F32"])}, bytes(4)), "'a': dtype"),
    "a negative size": (join({"a": tensor([-1], 0, 4)}, bytes(4)), "'a': shape"),
    "negative sizes": (join({"a": tensor([-1, -1], 0, 4)}, bytes(4)), "'a': shape"),
    "a real size": (join({"a": tensor([1.0], 0, 4)}, bytes(4)), "'a': shape"),
    "a true size": (join({"a": tensor([True], 0, 4)}, bytes(4)), "'a': shape"),
    "a shape that is a number": (join({"a": tensor(1, 0, 4)}, bytes(4)), "'a': shape"),
    "33 axes": (join({"a": tensor([1] * 33, 0, 4)}, bytes(4)), "'a': shape"),
    "a product beyond 64 bits": (join({"a": tensor([2**32] * 2, 0, 4)}, bytes(4)), "'a': data_off"),
    "a product of 0 and more": (join({"a": tensor([0, 2**70], 0, 4)}, bytes(4)), "'a': data_off"),
    "a claim of a terabyte": (join({"a": tensor([2**38], 0, 2**40)}), "elements: expected"),
    "one offset": (join({"a": {**ONE["a"], "data_offsets": [4]}}, bytes(4)), "two integers"),
    "a negative offset": (join({"a": tensor([1], -4, 0)}, bytes(4)), "two integers"),
    "offsets reversed": (join({"a": tensor([1], 4, 0)}, bytes(4)), "'a': data_offsets"),
    "a gap in front": (join({"a": tensor([1], 4, 8)}, bytes(8)), "to begin at 0"),
    "a gap": (join({**ONE, "b": tensor([1], 8, 12)}, bytes(12)), "to begin at 4"),
    "an overlap": (join({**ONE, "b": tensor([1], 2, 6)}, bytes(6)), "to begin at 4"),
    "the same bytes": (join({**ONE, "b": tensor([1], 0, 4)}, bytes(4)), "to begin at 4"),
    "an empty tensor inside": (join({**ONE, "b": tensor([0], 2, 2)}, bytes(4)), "to begin at"),
    "too few bytes": (join(ONE, bytes(3)), "elements: expected 4 bytes"),
    "too many bytes": (join(ONE, bytes(5)), "elements: expected 4 bytes"),
    "a long name": (join({"n" * 10**6: 3}), "tensor 'nnn"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_lies_are_refused_in_one_short_line(name, tmp_path):
    data, words = REFUSED[name]
    with pytest.raises(Refused) as caught:
        read_bytes(tmp_path, data)
    message = str(caught.value)
    assert "hostile: not a safetensors file: " in message and words in message, message
    assert len(message) < 700 and "\n" not in message


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path):
    """A mapped file would end the process here."""
    path = tmp_path / "hostile"
    path.write_bytes(pack_tensors({"a": np.zeros(2**20, np.float32)}, {}))
    with pytest.raises(Refused, match="hostile: tensor 'a': expected 4194304 bytes"):  # noqa: SIM117
        with open_tensors(path, Refused) as file:
            os.truncate(path, 4096)
            file.read("a")


def test_hostile_headers_take_little_time_and_memory(tmp_path):
    many = {str(i): tensor([0], 0, 0) for i in range(60_000)}
    names = b'{"a":1' + b',"a":1' * 600_000 + b"}"
    attempts = [join(many), join(names), join({"a": [[[[]]]] * 300_000}), join(b"[" * MOST_HEADER)]
    tracemalloc.start()
    began = time.process_time()
    try:
        for data in attempts:
            assert len(data) < MOST_HEADER + 20
            try:
                with open_tensors(_write(tmp_path, data), Refused) as file:
                    assert len(file.shapes()) == len(many)
            except Refused:
                continue
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000_000 and time.process_time() - began < 60


def _write(tmp_path, data):
    path = tmp_path / "hostile"
    path.write_bytes(data)
    return path


# ---- fuzzing -------------------------------------------------------------------------------------

HEADER = {
    "__metadata__": {"x": "text"},
    "W1": tensor([2, 3], 0, 24),
    "b1": tensor([3], 24, 36),
    "n": tensor([], 36, 44, "I64"),
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["F32", "F64", "I64", "BOOL", 0, 1, 4, 24, 36, 44]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def places(value, path=()):
    """The path to every value inside nested objects and lists."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    return [path, *(found for key, item in items for found in places(item, (*path, key)))]


@given(st.data())
def test_a_header_with_other_values_is_read_in_full_or_refused(scratch, data):
    header = json.loads(json.dumps(HEADER))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(header)[1:]))
        inside = header
        for key in path:
            inside = inside[key]
        if data.draw(st.booleans()):
            del inside[last]
        else:
            inside[last] = data.draw(values)
        if len(places(header)) == 1:
            break
    body = bytes(data.draw(st.sampled_from([0, 24, 36, 44, 44, 44, 48])))
    scratch.write_bytes(join(header, body))
    try:
        tensors, _ = read(scratch)
    except Refused:
        return
    # What is accepted accounts for every byte.
    assert sum(array.nbytes for array in tensors.values()) == len(body)
    for name, array in tensors.items():
        assert list(array.shape) == header[name]["shape"]


@given(st.data())
def test_any_bytes_are_refused_or_read(scratch, data):
    content = bytearray(join(HEADER, bytes(44)))
    for _ in range(data.draw(st.integers(1, 5))):
        if not content:
            break
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["change", "remove", "insert", "cut"]))
        if kind == "change":
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "remove":
            del content[at]
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(max_size=9))
        else:
            del content[max(at, 1) :]
    scratch.write_bytes(content)
    try:
        tensors, _ = read(scratch)
    except Refused:
        return
    length = int.from_bytes(content[:8], "little")
    assert sum(array.nbytes for array in tensors.values()) == len(content) - 8 - length
