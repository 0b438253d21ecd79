"""Data sets in the forms that they are published in, written here byte by byte as their formats say."""

import io
import json
import struct
import tarfile

import pytest

from model_training.data import recordio
from model_training.data.faces import DataError
from model_training.data.pictures import Picture, person_of
from model_training.data.recordio import RecordFile
from model_training.data.sources import PictureFolder, open_source
from model_training.data.webdataset import WebDataset

MAGIC = struct.pack("<I", 0xCED7230A)


def parts_of(payload):
    """The payload cut at each aligned magic number, as dmlc-core's writer cuts it."""
    parts, start = [], 0
    for place in range(0, len(payload) - 3, 4):
        if payload[place : place + 4] == MAGIC:
            parts.append(payload[start:place])
            start = place + 4
    return [*parts, payload[start:]]


def written(payload):
    parts = parts_of(payload)
    out = b""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if last else 2
        out += MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def image_record(labels, picture):
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], 0, 0) + picture
    return struct.pack("<IfQQ", len(labels), 0.0, 0, 0) + struct.pack(f"<{len(labels)}f", *labels) + picture


def write_records(path, records):
    """A .rec of records by key, in this order, and its .idx."""
    index, data = "", b""
    for key, payload in records:
        index += f"{key}\t{len(data)}\n"
        data += written(payload)
    path.write_bytes(data)
    path.with_suffix(".idx").write_text(index)
    return path


CUT = b"\xff\xd8" + b"ab" + MAGIC + b"middle__" + MAGIC + MAGIC + b"end"
# As InsightFace lays them out: record 0 says that identities begin at 5; they say which pictures are theirs.
INSIGHTFACE = [
    (0, image_record([5.0, 7.0], b"")),
    (1, image_record([0.0], b"first")),
    (2, image_record([0.0, 9.0], b"second of two labels")),
    (3, image_record([1.0], CUT)),
    (4, image_record([70_000.0], b"")),
    (5, image_record([1.0, 3.0], b"")),
    (6, image_record([3.0, 5.0], b"")),
]


class TestRecordIO:
    def test_pictures_come_with_their_labels_and_identities_not_at_all(self, tmp_path):
        records = RecordFile(write_records(tmp_path / "train.rec", INSIGHTFACE))
        assert list(records.read()) == [
            Picture("0/1", b"first"),
            Picture("0/2", b"second of two labels"),
            Picture("1/3", CUT),
            Picture("70000/4", b""),
        ]
        assert len(records) == 4
        assert records.labels().tolist() == [0, 0, 1, 70_000]

    def test_a_payload_that_holds_the_magic_number_is_put_together_again(self):
        assert len(parts_of(struct.pack("<IfQQ", 0, 1.0, 0, 0) + CUT)) == 4

    def test_reading_begins_anywhere_and_repeats(self, tmp_path):
        records = RecordFile(write_records(tmp_path / "train.rec", INSIGHTFACE))
        assert [picture.source for picture in records.read(2)] == ["1/3", "70000/4"]
        assert records[2].picture == CUT
        assert records[0] == (0, b"first")

    def test_without_insightfaces_head_every_record_is_a_picture(self, tmp_path):
        path = write_records(tmp_path / "a.rec", [(0, image_record([3.0], b"x")), (1, image_record([4.0], b"y"))])
        assert [picture.source for picture in RecordFile(path).read()] == ["3/0", "4/1"]

    def test_the_order_is_that_of_keys_wherever_records_lie(self, tmp_path):
        path = write_records(tmp_path / "a.rec", [(2, image_record([0.0], b"b")), (1, image_record([0.0], b"a"))])
        assert [picture.data for picture in RecordFile(path).read()] == [b"a", b"b"]

    def test_a_picture_of_too_many_bytes_is_not_passed_on(self, tmp_path, monkeypatch):
        monkeypatch.setattr(recordio, "MAX_PICTURE_BYTES", 5)
        read = RecordFile(write_records(tmp_path / "train.rec", INSIGHTFACE)).read()
        assert [picture.data for picture in read] == [b"first", b"", b"", b""]

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda data: data[:-30], "ends within a record"),
            (lambda data: data[:80].replace(MAGIC, b"abcd") + data[80:], "no record at byte"),
        ],
        ids=["cut off", "no magic number"],
    )
    def test_a_damaged_file_is_an_error_that_names_it(self, tmp_path, damage, message):
        path = write_records(tmp_path / "train.rec", INSIGHTFACE[1:4])
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DataError, match=message) as caught:
            list(RecordFile(path).read())
        assert "train.rec" in str(caught.value)

    def test_a_record_that_announces_more_labels_than_it_has_is_an_error(self, tmp_path):
        path = write_records(tmp_path / "a.rec", [(1, struct.pack("<IfQQ", 4_000_000, 0.0, 0, 0) + b"x")])
        with pytest.raises(DataError, match="4000000 labels"):
            list(RecordFile(path).read())

    @pytest.mark.parametrize("index", ["1 2 3\n", "one\t0\n"])
    def test_an_index_that_is_none_is_an_error(self, tmp_path, index):
        path = write_records(tmp_path / "a.rec", INSIGHTFACE)
        path.with_suffix(".idx").write_text(index)
        with pytest.raises(DataError, match="no index"):
            RecordFile(path)

    def test_without_an_index_there_is_nothing_to_read(self, tmp_path):
        (tmp_path / "a.rec").write_bytes(b"")
        with pytest.raises(DataError, match=r"or its \.idx"):
            RecordFile(tmp_path / "a.rec")


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


SAMPLES = [
    ("000.jpg", b"a"),
    ("000.cls", b"17\n"),
    ("x/001.json", json.dumps({"identity": "Ada/Lovelace", "age": 36}).encode()),
    ("x/001.png", b"b"),
    ("bob/002.jpg", b"c"),
    ("bob/002.seg.png", b"another picture of the sample"),
    ("bob/003.txt", b"no picture"),
    ("bob/004.jpeg", b"d"),
]
READ = [
    Picture("17/shard-000", b"a"),
    Picture("Ada_Lovelace/shard-001", b"b"),
    Picture("bob/shard-002", b"c"),
    Picture("bob/shard-004", b"d"),
]


class TestWebDataset:
    @pytest.mark.parametrize(("name", "mode"), [("shard.tar", "w"), ("shard.tar.gz", "w:gz")])
    def test_each_sample_is_a_picture_of_the_person_it_names(self, tmp_path, name, mode):
        assert list(WebDataset(write_tar(tmp_path / name, SAMPLES, mode)).read()) == READ

    def test_shards_follow_each_other_by_name_and_reading_begins_anywhere(self, tmp_path):
        write_tar(tmp_path / "b.tar", [("1.jpg", b"3")])
        write_tar(tmp_path / "a.tar", [("1.jpg", b"1"), ("2.jpg", b"2")])
        (tmp_path / "notes.txt").touch()
        assert [picture.data for picture in WebDataset(tmp_path).read(1)] == [b"2", b"3"]

    def test_links_and_folders_are_passed_over(self, tmp_path):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            link = tarfile.TarInfo("1.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
            folder = tarfile.TarInfo("2.jpg")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        assert list(WebDataset(tmp_path).read()) == []

    def test_a_picture_of_too_many_bytes_is_not_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr("model_training.data.webdataset.MAX_PICTURE_BYTES", 5)
        write_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 6), ("2.jpg", b"x" * 5)])
        assert [picture.data for picture in WebDataset(tmp_path).read()] == [b"", b"xxxxx"]

    @pytest.mark.parametrize("label", [b"[1]", b"{", b'{"identity": [1]}', b"\xff"])
    def test_a_label_that_names_nobody_leaves_the_folder(self, tmp_path, label):
        write_tar(tmp_path / "a.tar", [("ada/1.json", label), ("ada/1.jpg", b"1")])
        assert [picture.source for picture in WebDataset(tmp_path).read()] == ["ada/a-1"]

    def test_a_truncated_file_is_an_error_that_names_it(self, tmp_path):
        path = write_tar(tmp_path / "a.tar", [("1.jpg", b"x" * 5000)])
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(DataError, match=r"a\.tar is no whole tar file"):
            list(WebDataset(path).read())

    def test_a_folder_without_any_is_an_error(self, tmp_path):
        with pytest.raises(DataError, match="no tar file"):
            WebDataset(tmp_path)


class TestOpening:
    def test_what_lies_there_says_what_it_is(self, tmp_path):
        for name in ("records", "tars", "pictures/Ada"):
            (tmp_path / name).mkdir(parents=True)
        write_records(tmp_path / "records" / "train.rec", INSIGHTFACE)
        write_tar(tmp_path / "tars" / "a.tar", [("1.jpg", b"1")])
        (tmp_path / "pictures" / "Ada" / "1.jpg").write_bytes(b"1")
        assert isinstance(open_source(tmp_path / "records"), RecordFile)
        assert isinstance(open_source(tmp_path / "records" / "train.rec"), RecordFile)
        assert isinstance(open_source(tmp_path / "tars"), WebDataset)
        assert isinstance(open_source(tmp_path / "tars" / "a.tar"), WebDataset)
        folder = open_source(tmp_path / "pictures")
        assert isinstance(folder, PictureFolder)
        assert list(folder.read()) == [Picture("Ada/1.jpg", b"1")]
        assert isinstance(open_source(tmp_path / "tars", "pictures"), PictureFolder)

    def test_of_two_record_files_one_must_be_named(self, tmp_path):
        for name in ("a.rec", "b.rec"):
            write_records(tmp_path / name, INSIGHTFACE)
        with pytest.raises(DataError, match=r"2 \.rec files"):
            open_source(tmp_path)

    def test_a_file_is_no_folder_of_pictures(self, tmp_path):
        (tmp_path / "a.jpg").touch()
        with pytest.raises(DataError, match="no folder of pictures"):
            open_source(tmp_path / "a.jpg", "pictures")

    def test_a_picture_too_large_to_be_one_is_not_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr("model_training.data.sources.MAX_PICTURE_BYTES", 2)
        (tmp_path / "1.jpg").write_bytes(b"123")
        assert [picture.data for picture in PictureFolder(tmp_path).read()] == [b""]


def test_the_folder_of_a_picture_names_its_person():
    assert person_of("lfw/Ada_Lovelace/Ada_Lovelace_0001.jpg") == "Ada_Lovelace"
    assert person_of("1.jpg") == ""
