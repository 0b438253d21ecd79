"""IJB's files in both packings, written here as small as they can be."""

import pytest

from model_training.protocols.embedding import ProtocolError
from model_training.protocols.ijb import read_insightface, read_nist

HEAD = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT,FRAME_NUM\n"


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def nist(tmp_path):
    files = {
        "ijbc_1N_gallery_G1.csv": HEAD + "1,100,img/1.jpg,7,10,20,30,40,\n1,100,frames/2.png,8,1,2,3,4,5\n",
        "ijbc_1N_gallery_G2.csv": HEAD + "2,200,img/3.jpg,9,,,,,\n",
        "ijbc_1N_probe_mixed.csv": HEAD + "3,100,frames/4.png,10,1,1,2.5,2,0\n3,100,frames/5.png,10,1,1,2,2,1\n",
        "ijbc_11_G1_G2_matches.csv": "1,3\n2,3\n",
    }
    (tmp_path / "protocols").mkdir()
    for name, text in files.items():
        (tmp_path / "protocols" / name).write_text(text)
    touch(
        *(
            tmp_path / "images" / name
            for name in ("img/1.jpg", "frames/2.png", "img/3.jpg", "frames/4.png", "frames/5.png")
        )
    )
    return tmp_path


class TestNist:
    def test_templates_media_boxes_and_persons(self, nist):
        read = read_nist(nist, "ijbc")
        assert read.listed.template.tolist() == [1, 1, 2, 3, 3]
        media = read.listed.media.tolist()
        # Two frames of one sighting are one medium.
        assert media[3] == media[4]
        assert len(set(media)) == 4
        assert [face.box for face in read.listed.faces] == [
            (10, 20, 30, 40), (1, 2, 3, 4), None, (1, 1, 2.5, 2), (1, 1, 2, 2),
        ]  # fmt: skip
        assert read.listed.faces[0].path == nist / "images/img/1.jpg"
        assert read.galleries == {"G1": {1: 100}, "G2": {2: 200}}
        assert read.probes == {3: 100}

    def test_comparisons_are_of_one_person_where_subjects_agree(self, nist):
        read = read_nist(nist, "ijbc")
        assert (read.first.tolist(), read.second.tolist(), read.same.tolist()) == ([1, 2], [3, 3], [True, False])

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("ijbc_1N_gallery_G2.csv", HEAD, "no rows"),
            ("ijbc_1N_gallery_G2.csv", "TEMPLATE_ID,FILENAME\n2,img/3.jpg\n", "SUBJECT_ID"),
            ("ijbc_1N_gallery_G2.csv", HEAD + "two,200,img/3.jpg,9,,,,,\n", "no number"),
            ("ijbc_1N_gallery_G2.csv", HEAD + "2,200,../protocols/x,9,,,,,\n", "not a picture of this data set"),
            ("ijbc_1N_gallery_G2.csv", HEAD + "2,200,img/3.jpg,9,a,b,c,d,\n", "something else than numbers"),
            ("ijbc_1N_gallery_G2.csv", HEAD + "2,200,img/9.jpg,9,,,,,\n", "no picture at"),
            ("ijbc_11_G1_G2_matches.csv", "1,9\n", "something else than these templates"),
            ("ijbc_11_G1_G2_matches.csv", "1,3,1\n", "no 2 fields in line 1"),
        ],
    )
    def test_other_content_is_refused(self, nist, name, text, said):
        (nist / "protocols" / name).write_text(text)
        with pytest.raises(ProtocolError, match=said):
            read_nist(nist, "ijbc")

    def test_a_missing_file_is_named(self, nist):
        (nist / "protocols/ijbc_1N_probe_mixed.csv").unlink()
        with pytest.raises(ProtocolError, match=r"probe_mixed\.csv cannot be read"):
            read_nist(nist, "ijbc")


POINTS = "{} 38 52 74 52 56 72 42 92 71 92 0.99\n"


@pytest.fixture
def insightface(tmp_path):
    meta = tmp_path / "meta"
    meta.mkdir()
    names = ("1.jpg", "2.jpg", "3.jpg")
    (meta / "ijbb_face_tid_mid.txt").write_text("1.jpg 1 69\n2.jpg 1 70\n3.jpg 5 70\n")
    (meta / "ijbb_name_5pts_score.txt").write_text("".join(POINTS.format(name) for name in names))
    (meta / "ijbb_template_pair_label.txt").write_text("1 5 0\n5 1 1\n")
    touch(*(tmp_path / "loose_crop" / name for name in names))
    return tmp_path


class TestInsightFace:
    def test_templates_media_and_landmarks(self, insightface):
        read = read_insightface(insightface, "ijbb")
        assert (read.listed.template.tolist(), read.listed.media.tolist()) == ([1, 1, 5], [69, 70, 70])
        assert read.listed.faces[2].landmarks == ((38, 52), (74, 52), (56, 72), (42, 92), (71, 92))
        assert (read.first.tolist(), read.second.tolist(), read.same.tolist()) == ([1, 5], [5, 1], [False, True])
        assert (read.galleries, read.probes) == ({}, {})

    def test_the_search_protocol_is_read_where_it_is_there(self, insightface):
        meta = insightface / "meta"
        for name, row in (("gallery_S1", "1,100,a,1"), ("gallery_S2", "5,200,b,1"), ("probe_mixed", "5,200,c,1")):
            (meta / f"ijbb_1N_{name}.csv").write_text(f"TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID\n{row}\n")
        read = read_insightface(insightface, "ijbb")
        assert (read.galleries, read.probes) == ({"S1": {1: 100}, "S2": {5: 200}}, {5: 200})

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("face_tid_mid", "1.jpg 1 69\n", "other pictures"),
            ("face_tid_mid", "1.jpg 1\n", "no 3 fields in line 1"),
            ("face_tid_mid", "1.jpg one 69\n2.jpg 1 70\n3.jpg 5 70\n", "where numbers should be"),
            ("template_pair_label", "", "no 3 fields in line 1"),
        ],
    )
    def test_other_content_is_refused(self, insightface, name, text, said):
        (insightface / "meta" / f"ijbb_{name}.txt").write_text(text)
        with pytest.raises(ProtocolError, match=said):
            read_insightface(insightface, "ijbb")

    def test_a_missing_picture_is_named(self, insightface):
        (insightface / "loose_crop/2.jpg").unlink()
        with pytest.raises(ProtocolError, match=r"no picture at .*2\.jpg"):
            read_insightface(insightface, "ijbb")
