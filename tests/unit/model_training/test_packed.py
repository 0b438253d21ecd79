"""InsightFace's .bin files, as Python 2, Python 3 and NumPy write them, and files that want more than to be read."""

import os
import pickle
import pickletools
import struct

import numpy as np
import pytest

from model_training.protocols.embedding import ProtocolError
from model_training.protocols.packed import read_packed

PICTURES = [bytes(range(256)) * 2, b"\xff\xd8short", b"", b"\x00" * 300]
SAME = [True, False]


def written(tmp_path, data):
    path = tmp_path / "pairs.bin"
    path.write_bytes(data)
    return path


def read(tmp_path, data):
    pictures, same = read_packed(written(tmp_path, data))
    return [picture.read_bytes() for picture in pictures], same


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_python_3_is_read(tmp_path, protocol):
    assert read(tmp_path, pickle.dumps((PICTURES, SAME), protocol=protocol)) == (PICTURES, SAME)


def test_byte_strings_of_python_2_are_read(tmp_path):
    """What `cPickle.dump((bins, issame), f, 2)` writes: BINSTRING and SHORT_BINSTRING, booleans, memo."""
    strings = b"".join(
        b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data
        for data in PICTURES
    )
    data = b"\x80\x02]q\x00(" + strings + b"e]q\x01(\x88\x89e\x86q\x02."
    assert pickle.loads(data, encoding="bytes") == (PICTURES, SAME)
    assert read(tmp_path, data) == (PICTURES, SAME)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_bytes_and_numpy_booleans_are_read(tmp_path, protocol):
    arrays = [np.frombuffer(data, dtype=np.uint8) for data in PICTURES]
    labels = [np.bool_(True), np.bool_(False)]
    assert read(tmp_path, pickle.dumps((arrays, labels), protocol=protocol)) == (PICTURES, SAME)
    assert read(tmp_path, pickle.dumps((arrays, np.array(SAME)), protocol=protocol)) == (PICTURES, SAME)


def test_the_same_picture_may_be_in_several_pairs(tmp_path):
    array = np.frombuffer(b"again", dtype=np.uint8)
    assert read(tmp_path, pickle.dumps(([array] * 4, SAME), protocol=2)) == ([b"again"] * 4, SAME)


class RunsSomething:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_are_refused_and_not_made(tmp_path, protocol):
    trace = tmp_path / "trace"
    data = pickle.dumps((PICTURES, [*SAME, RunsSomething(os.mkdir, str(trace))]), protocol=protocol)
    with pytest.raises(ProtocolError, match=r"calls \w+\.mkdir, which is not run"):
        read(tmp_path, data)
    assert not trace.exists()
    # The file is what it seems to be: unpickled it does make the folder.
    pickle.loads(data)
    assert trace.is_dir()


@pytest.mark.parametrize(
    "thing",
    [RunsSomething(getattr, "a", "title"), RunsSomething(bytes, 10**12), RunsSomething(np.dtype, "O"), {"a": 1}, 1.5],
    ids=["getattr", "a trillion bytes", "object dtype", "dict", "float"],
)
def test_what_pictures_do_not_need_is_refused(tmp_path, thing):
    with pytest.raises(ProtocolError):
        read(tmp_path, pickle.dumps(([*PICTURES[:3], thing], SAME)))


@pytest.mark.parametrize(
    "content",
    [(PICTURES, [True]), ([], []), (PICTURES, SAME, 1), "text", (PICTURES, 3), ([1, 2, 3, 4], SAME)],
    ids=["one label", "nothing", "three parts", "text", "a number", "numbers"],
)
def test_other_content_is_refused(tmp_path, content):
    with pytest.raises(ProtocolError):
        read(tmp_path, pickle.dumps(content))


def test_files_cut_off_or_garbled_are_refused(tmp_path):
    arrays = [np.frombuffer(data, dtype=np.uint8) for data in PICTURES]
    whole = pickle.dumps((arrays, SAME), protocol=2)
    assert len(list(pickletools.genops(whole))) > 30
    rng = np.random.default_rng(0)
    for length in range(0, len(whole), 7):
        with pytest.raises(ProtocolError):
            read(tmp_path, whole[:length])
    for _ in range(500):
        garbled = bytearray(whole)
        garbled[rng.integers(len(whole))] = rng.integers(256)
        try:
            pictures, same = read(tmp_path, bytes(garbled))
        except ProtocolError:
            continue
        assert len(pictures) == 2 * len(same)


def test_a_claimed_length_takes_no_memory(tmp_path):
    with pytest.raises(ProtocolError):
        read(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"few.")
