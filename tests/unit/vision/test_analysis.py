"""The bounded way from bytes to aligned faces."""

import asyncio
import io
import threading

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from service.contract import TEMPLATE, align
from service.domain import Box, Detection, EmptyImage, NotReady, Overloaded
from service.ports import BoxView
from service.vision.analysis import ThreadedAnalyser
from service.vision.attributes.views import box_view
from service.vision.imaging import ImageLimits, decode
from service.vision.quality import QualityGate

pytestmark = pytest.mark.anyio

PATIENCE_S = 5.0


def picture(seed=0, side=160):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue(), pixels[..., ::-1]


PICTURE, PIXELS = picture()
# Of skimage's astronaut, 512 x 512.
LANDMARKS = np.array([[203, 101], [247, 103], [223, 127], [204, 140], [244, 140]], dtype=float)


def jpeg(pixels, quarter_turns=0):
    """BGR pixels as a JPEG file; turned, its EXIF orientation turns it back."""
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6 if quarter_turns else 1
    turned = np.ascontiguousarray(np.rot90(pixels, quarter_turns)[..., ::-1])
    Image.fromarray(turned).save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def detection(side, landmarks=TEMPLATE):
    return Detection(Box(5, 5, side, side), np.asarray(landmarks, dtype=np.float32), 0.9)


class HeldDetector:
    """Finds what it was told; while held, it makes its thread wait."""

    identity = "held"

    def __init__(self, found=()):
        self.found = list(found)
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        self.running = 0
        self.most_running = 0
        self.calls = 0
        self.shapes = []
        self._lock = threading.Lock()

    def detect(self, image):
        with self._lock:
            self.shapes.append(image.shape)
            self.calls += 1
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.started.release()
        released = self.gate.wait(PATIENCE_S)
        with self._lock:
            self.running -= 1
        if not released:
            raise TimeoutError("the test never released the detector")
        return list(self.found)

    async def wait_started(self):
        assert await asyncio.to_thread(self.started.acquire, timeout=PATIENCE_S)


@pytest.fixture
def detector():
    return HeldDetector()


@pytest.fixture
async def make(detector):
    made = []

    def analyser(**options):
        made.append(ThreadedAnalyser(detector, **{"limits": ImageLimits(), "gate": QualityGate(), **options}))
        return made[-1]

    yield analyser
    detector.gate.set()
    for each in made:
        await each.close()


async def settle():
    await asyncio.sleep(0.02)


class TestAnswer:
    @pytest.fixture(autouse=True)
    def released(self, detector):
        detector.gate.set()

    async def test_faces_come_largest_first_and_bounded_but_all_are_counted(self, make, detector):
        detector.found = [detection(30), detection(90), detection(60)]
        answer = await make().analyse(PICTURE, max_faces=2)
        assert [found.detection.box.width for found in answer.faces] == [90, 60]
        assert answer.faces_total == 3
        assert (answer.width, answer.height) == (160, 160)
        assert answer.timings_ms.keys() == {"decode", "detect", "align"}

    async def test_a_face_is_cut_out_by_the_contract_and_measured(self, make, detector):
        detector.found = [detection(10, TEMPLATE + 20)]
        (found,) = (await make().analyse(PICTURE, max_faces=5)).faces
        np.testing.assert_array_equal(found.crop, align(PIXELS, TEMPLATE + 20))
        assert found.quality.side_px == 10.0
        assert found.quality.issues == ("face-too-small",)

    async def test_landmarks_in_one_place_are_no_face(self, make, detector):
        detector.found = [detection(90, np.full((5, 2), 50.0)), detection(60)]
        answer = await make().analyse(PICTURE, max_faces=5)
        assert [found.detection.box.width for found in answer.faces] == [60]

    async def test_no_face_is_an_empty_answer(self, make):
        answer = await make().analyse(PICTURE, max_faces=5)
        assert (answer.faces, answer.faces_total) == ((), 0)

    @pytest.mark.parametrize("turned", [False, True])
    async def test_a_large_jpeg_is_searched_smaller_and_answered_in_its_own_pixels(self, make, detector, turned):
        pixels = cv2.resize(np.ascontiguousarray(data.astronaut()[..., ::-1]), (2048, 1536))
        picture = jpeg(pixels, quarter_turns=int(turned))
        # Where the face is, as a detector would tell for a picture that was decoded at a quarter of its size.
        eyes_to_mouth = LANDMARKS * [1, 0.75]
        detector.found = [Detection(Box(175, 40, 95, 93), eyes_to_mouth.astype(np.float32), 0.9)]
        answer = await make(search_side_px=512).analyse(picture, max_faces=5)
        assert detector.shapes == [(384, 512, 3)]
        assert (answer.width, answer.height) == (2048, 1536)
        (found,) = answer.faces
        np.testing.assert_allclose(found.detection.landmarks, eyes_to_mouth * 4 + 1.5, atol=1e-3)
        assert found.detection.box == Box(701.5, 161.5, 380, 372)
        assert found.quality.side_px == pytest.approx(np.sqrt(380 * 372), abs=0.1)
        whole = align(decode(picture, ImageLimits()), found.detection.landmarks)
        # The eyes are 44 of the searched pixels apart and 35 of the crop's, so those were fine enough.
        assert answer.timings_ms["decode"] > 0
        assert np.abs(found.crop.astype(int) - whole).mean() < 3

    async def test_a_small_face_of_a_large_jpeg_is_cut_out_of_the_whole_picture(self, make, detector):
        pixels = np.zeros((2400, 3200, 3), np.uint8)
        pixels[1000:1512, 1200:1712] = data.astronaut()[..., ::-1]
        picture = jpeg(pixels)
        # Decoded at a quarter of its size the face is 24 pixels wide, far less than the crop.
        searched = ((LANDMARKS + np.array([1200, 1000])) / 4).astype(np.float32)
        large = searched * 3 - 500
        detector.found = [
            Detection(Box(340, 263, 24, 31), searched, 0.9),
            Detection(Box(10, 10, 200, 200), large.astype(np.float32), 0.9),
        ]
        answer = await make(search_side_px=640).analyse(picture, max_faces=5)
        assert detector.shapes == [(600, 800, 3)]
        assert [found.detection.box.width for found in answer.faces] == [800, 96]
        small = answer.faces[1]
        np.testing.assert_array_equal(small.crop, align(decode(picture, ImageLimits()), searched * 4 + 1.5))
        # The same face, also when the larger one is not asked for, or it alone is.
        detector.found = detector.found[:1]
        (alone,) = (await make(search_side_px=640).analyse(picture, max_faces=1)).faces
        np.testing.assert_array_equal(alone.crop, small.crop)

    async def test_views_are_of_the_whole_picture_even_where_it_is_searched_smaller(self, make, detector):
        pixels = np.zeros((1600, 1600, 3), np.uint8)
        pixels[::4] = pixels[1::4] = 200
        picture = jpeg(pixels)
        # Searched at a quarter, where the lines are one grey.
        detector.found = [Detection(Box(100, 100, 80, 60), (TEMPLATE * 2 + 50).astype(np.float32), 0.9)]
        views = [BoxView(1.0, 320), BoxView(2.0, 80, "box", "inside")]
        (found,) = (await make(search_side_px=400).analyse(picture, max_faces=1, views=views)).faces
        assert set(found.views) == set(views)
        whole = decode(picture, ImageLimits())
        for view in views:
            np.testing.assert_array_equal(found.views[view], box_view(whole, found.detection.box, view))
        assert found.views[views[0]].std() > 50

    async def test_a_bad_picture_frees_its_slot(self, make):
        analyser = make(workers=1, max_pending=1)
        for _ in range(3):
            with pytest.raises(EmptyImage):
                await analyser.analyse(b"", max_faces=1)
        assert (await analyser.analyse(PICTURE, max_faces=1)).width == 160


class TestIdentity:
    async def test_everything_that_decides_is_in_it(self, make, detector):
        same, again = make().identity, make(workers=3, max_pending=7, deadline_s=1.0).identity
        assert same == again
        others = [
            make(search_side_px=320).identity,
            make(gate=QualityGate(min_side_px=25)).identity,
            make(strict_gate=QualityGate()).identity,
            make(limits=ImageLimits(max_pixels=1_000_000)).identity,
        ]
        detector.identity = "another"
        others.append(make().identity)
        assert len({same, *others}) == 6


class TestBounds:
    async def test_more_pictures_than_may_wait_are_refused_at_once(self, make, detector):
        analyser = make(workers=1, max_pending=2)
        tasks = [asyncio.create_task(analyser.analyse(PICTURE, max_faces=1)) for _ in range(2)]
        await detector.wait_started()
        with pytest.raises(Overloaded):
            await analyser.analyse(PICTURE, max_faces=1)
        detector.gate.set()
        await asyncio.gather(*tasks)
        assert detector.calls == 2
        await analyser.analyse(PICTURE, max_faces=1)

    async def test_no_more_pictures_are_worked_on_than_there_are_workers(self, make, detector):
        analyser = make(workers=2)
        tasks = [asyncio.create_task(analyser.analyse(PICTURE, max_faces=1)) for _ in range(6)]
        await detector.wait_started()
        await detector.wait_started()
        await settle()
        assert detector.calls == 2
        detector.gate.set()
        await asyncio.gather(*tasks)
        assert (detector.calls, detector.most_running) == (6, 2)

    async def test_a_picture_that_waits_too_long_is_refused(self, make, detector):
        analyser = make(workers=1, deadline_s=0.05)
        first = asyncio.create_task(analyser.analyse(PICTURE, max_faces=1))
        await detector.wait_started()
        with pytest.raises(Overloaded) as caught:
            await analyser.analyse(PICTURE, max_faces=1)
        assert caught.value.details == {"retry_after_s": 1}
        detector.gate.set()
        await first
        await analyser.analyse(PICTURE, max_faces=1)
        assert detector.calls == 2


class TestCancellation:
    async def test_a_caller_who_leaves_keeps_the_slot_until_the_thread_is_done(self, make, detector):
        analyser = make(workers=1, deadline_s=0.05)
        gone = asyncio.create_task(analyser.analyse(PICTURE, max_faces=1))
        await detector.wait_started()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        # With the slot given back too early this one would lie behind the thread, past its deadline and uncounted.
        async with asyncio.timeout(1):
            with pytest.raises(Overloaded):
                await analyser.analyse(PICTURE, max_faces=1)
        detector.gate.set()
        await settle()
        await analyser.analyse(PICTURE, max_faces=1)
        assert (detector.calls, detector.most_running) == (2, 1)

    async def test_callers_who_leave_while_waiting_leak_nothing(self, make, detector):
        analyser = make(workers=1, max_pending=4)
        first = asyncio.create_task(analyser.analyse(PICTURE, max_faces=1))
        await detector.wait_started()
        for _ in range(5):
            waiting = [asyncio.create_task(analyser.analyse(PICTURE, max_faces=1)) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 3
        detector.gate.set()
        await first
        await asyncio.gather(*(analyser.analyse(PICTURE, max_faces=1) for _ in range(4)))
        assert detector.calls == 5
        assert detector.most_running == 1


class TestClose:
    async def test_close_waits_for_work_in_progress_and_refuses_more(self, make, detector):
        analyser = make(workers=1)
        running = asyncio.create_task(analyser.analyse(PICTURE, max_faces=1))
        await detector.wait_started()
        closing = asyncio.create_task(analyser.close())
        await settle()
        assert not closing.done()
        with pytest.raises(NotReady):
            await analyser.analyse(PICTURE, max_faces=1)
        detector.gate.set()
        assert (await running).width == 160
        await closing

    async def test_pictures_that_still_wait_at_close_are_told_so(self, make, detector):
        analyser = make(workers=1)
        running = asyncio.create_task(analyser.analyse(PICTURE, max_faces=1))
        await detector.wait_started()
        waiting = [asyncio.create_task(analyser.analyse(PICTURE, max_faces=1)) for _ in range(2)]
        await settle()
        closing = asyncio.create_task(analyser.close())
        await settle()
        detector.gate.set()
        await running
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady] * 2
        await closing
        assert detector.calls == 1
