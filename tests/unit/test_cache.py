"""The embedding cache against a real server, healthy, frozen, dead and confused."""

import asyncio
import time

import numpy as np
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from service.cache import NullCache, RedisCache
from service.domain import Box, Detection, FaceQuality
from service.ports import KnownFace, KnownPicture
from tests.redis_fixture import free_port

pytestmark = pytest.mark.anyio

SPACE = "sf1-test"
DIMENSION = 8
TIMEOUT_S = 0.15
# What scheduling on a busy core may add to a timeout.
SLACK_S = 0.35
# For a healthy server: no test of what it answers may turn on how busy the machine is.
PATIENT_S = 10.0


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=DIMENSION)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def cache_at(url, **options):
    settings = {"space_id": SPACE, "dimension": DIMENSION, "timeout_s": TIMEOUT_S, "ttl_s": 60, "rest_s": 30.0}
    return RedisCache(url, **{**settings, **options})


def key(seed):
    """As the digest of a crop is."""
    return f"{seed:040x}"


def picture(*seeds):
    """One that shows a face for each seed."""
    faces = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        quality = FaceQuality(*rng.normal(size=5).tolist(), ("face-blurred",), *rng.normal(size=2).tolist())
        detection = Detection(Box(*rng.normal(size=4).tolist()), rng.normal(size=(5, 2)).astype(np.float32), 0.9)
        faces.append(KnownFace(detection, quality, ("face-too-small", "face-blurred"), key(seed), unit(seed)))
    return KnownPicture(640, 480, tuple(faces), len(faces) + 1)


async def seconds(call):
    started = time.perf_counter()
    result = await call
    return result, time.perf_counter() - started


@pytest.fixture
async def raw(redis_server):
    client = Redis.from_url(redis_server.url)
    yield client
    await client.aclose()


@pytest.fixture
async def cache(redis_server):
    cache = cache_at(redis_server.url, timeout_s=PATIENT_S)
    yield cache
    await cache.close()


@pytest.mark.redis
class TestWithAServer:
    async def test_what_was_put_comes_back_in_the_order_asked_for(self, cache):
        await cache.put({"a": unit(1), "b": unit(2)})
        second, missing, first = await cache.get(["b", "nobody", "a"])
        np.testing.assert_array_equal(first, unit(1))
        np.testing.assert_array_equal(second, unit(2))
        assert first.dtype == np.float32
        assert first.flags.writeable
        assert missing is None

    async def test_nothing_asked_is_nothing_answered(self, cache):
        assert await cache.get([]) == []
        assert await cache.remove([]) == 0
        await cache.put({})

    async def test_another_space_meets_no_old_vectors(self, cache, redis_server):
        await cache.put({"a": unit(1)})
        other = cache_at(redis_server.url, space_id="sf1-other", timeout_s=PATIENT_S)
        assert await other.get(["a"]) == [None]
        await other.close()

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"rubbish",
            unit(1)[:-1].tobytes(),
            np.concatenate([unit(1), unit(2)]).tobytes(),
            np.zeros(DIMENSION, np.float32).tobytes(),
            (unit(1) * 1.1).astype(np.float32).tobytes(),
            np.full(DIMENSION, np.nan, np.float32).tobytes(),
            np.full(DIMENSION, np.inf, np.float32).tobytes(),
        ],
        ids=["empty", "text", "short", "long", "zero", "not unit", "nan", "infinite"],
    )
    async def test_a_garbage_value_is_a_miss_and_spoils_no_other(self, cache, raw, value):
        await cache.put({"good": unit(1)})
        await raw.set(f"shrinkface:{SPACE}:bad", value)
        bad, good = await cache.get(["bad", "good"])
        assert bad is None
        np.testing.assert_array_equal(good, unit(1))

    async def test_a_key_of_another_type_is_a_miss(self, cache, raw):
        await raw.lpush(f"shrinkface:{SPACE}:list", "x")
        assert await cache.get(["list"]) == [None]

    async def test_entries_expire(self, cache, raw):
        await cache.put({"a": unit(1), "b": unit(2)})
        for key in ("a", "b"):
            assert 55 <= await raw.ttl(f"shrinkface:{SPACE}:{key}") <= 60

    async def test_remove_counts_what_was_there(self, cache):
        await cache.put({"a": unit(1), "b": unit(2), "c": unit(3)})
        assert await cache.remove(["a", "c", "nobody"]) == 2
        assert [vector is None for vector in await cache.get(["a", "b", "c"])] == [True, False, True]

    async def test_a_frozen_server_costs_one_timeout_and_is_then_left_alone(self, redis_server):
        cache = cache_at(redis_server.url)
        redis_server.freeze()
        found, first_s = await seconds(cache.get(["a"]))
        assert found == [None]
        assert TIMEOUT_S * 0.9 <= first_s < TIMEOUT_S + SLACK_S

        async def everything():
            assert await cache.get(["a"]) == [None]
            await cache.put({"b": unit(2)})
            assert await cache.remove(["a"]) is None

        _, rest_s = await seconds(everything())
        assert rest_s < TIMEOUT_S / 2
        await cache.close()

    async def test_after_its_rest_a_thawed_server_answers_again_and_never_with_an_old_reply(self, raw, redis_server):
        cache = cache_at(redis_server.url, timeout_s=1.0, rest_s=0.05)
        for key, vector in (("a", unit(1)), ("b", unit(2))):
            await raw.set(f"shrinkface:{SPACE}:{key}", vector.tobytes())
        np.testing.assert_array_equal((await cache.get(["a"]))[0], unit(1))
        redis_server.freeze()
        assert await cache.get(["a"]) == [None]
        redis_server.thaw()
        await asyncio.sleep(0.1)
        (found,) = await cache.get(["b"])
        np.testing.assert_array_equal(found, unit(2))
        await cache.close()

    async def test_a_killed_server_is_a_miss(self, cache, redis_server):
        await cache.put({"a": unit(1)})
        redis_server.kill()
        found, took_s = await seconds(cache.get(["a"]))
        assert found == [None]
        assert took_s < TIMEOUT_S + SLACK_S
        assert await cache.remove(["a"]) is None

    async def test_what_could_not_be_forgotten_is_never_believed_and_goes_as_soon_as_it_can(self, raw, redis_server):
        cache = cache_at(redis_server.url, timeout_s=1.0, rest_s=0.05)
        await cache.put({"a": unit(1), "b": unit(2)})
        redis_server.freeze()
        assert await cache.remove(["a"]) is None
        redis_server.thaw()
        await asyncio.sleep(0.1)
        absent, there = await cache.get(["a", "b"])
        assert absent is None
        np.testing.assert_array_equal(there, unit(2))
        assert await raw.keys("*") == [f"shrinkface:{SPACE}:b".encode()]
        await cache.close()

    async def test_more_callers_than_connections_are_no_trouble(self, redis_server):
        cache = cache_at(redis_server.url, timeout_s=PATIENT_S)
        await cache.put({"a": unit(1)})
        found = await asyncio.gather(*(cache.get(["a"]) for _ in range(200)))
        assert all(vector is not None for (vector,) in found)
        await cache.close()

    async def test_closing_over_a_frozen_server_does_not_hang(self, redis_server):
        cache = cache_at(redis_server.url)
        await cache.put({"a": unit(1)})
        redis_server.freeze()
        _, took_s = await seconds(cache.close())
        assert took_s < TIMEOUT_S + SLACK_S


def counted(outcome):
    return REGISTRY.get_sample_value("shrinkface_cache_picture_lookups_total", {"outcome": outcome}) or 0.0


@pytest.mark.redis
class TestPictures:
    async def test_what_was_seen_comes_back_whole(self, cache):
        known = picture(3, 1)
        await cache.saw("p", known)
        hits = counted("hit")
        found = await cache.seen("p")
        assert (found.width, found.height, found.faces_total) == (known.width, known.height, known.faces_total)
        for got, put in zip(found.faces, known.faces, strict=True):
            assert (got.key, got.quality, got.strict_issues) == (put.key, put.quality, put.strict_issues)
            assert (got.detection.box, got.detection.score) == (put.detection.box, put.detection.score)
            np.testing.assert_array_equal(got.detection.landmarks, put.detection.landmarks)
            np.testing.assert_array_equal(got.embedding, put.embedding)
        assert counted("hit") == hits + 1

    async def test_a_picture_of_nobody_is_known_too(self, cache):
        await cache.saw("p", picture())
        assert (await cache.seen("p")).faces == ()

    async def test_what_was_not_seen_is_a_miss(self, cache):
        misses = counted("miss")
        assert await cache.seen("p") is None
        assert counted("miss") == misses + 1

    async def test_another_space_knows_nothing_of_it(self, cache, redis_server):
        await cache.saw("p", picture(1))
        other = cache_at(redis_server.url, space_id="sf1-other", timeout_s=PATIENT_S)
        assert await other.seen("p") is None
        await other.close()

    async def test_embeddings_of_a_picture_are_those_of_its_crops(self, cache):
        await cache.saw("p", picture(1))
        (found,) = await cache.get([key(1)])
        np.testing.assert_array_equal(found, unit(1))

    async def test_all_of_it_expires(self, cache, raw):
        await cache.saw("p", picture(1, 2))
        names = await raw.keys("*")
        assert len(names) == 5
        for name in names:
            assert 55 <= await raw.ttl(name) <= 60

    @pytest.mark.parametrize("spoilt", ["gone", "garbage"])
    async def test_without_one_of_its_embeddings_a_picture_is_a_miss(self, cache, raw, spoilt):
        await cache.saw("p", picture(1, 2))
        name = f"shrinkface:{SPACE}:{key(2)}"
        await (raw.delete(name) if spoilt == "gone" else raw.set(name, b"garbage"))
        assert await cache.seen("p") is None

    async def test_garbage_in_its_place_is_a_miss_and_no_trouble(self, cache, raw):
        await cache.saw("p", picture(1))
        name = f"shrinkface:{SPACE}:picture:p"
        content = await raw.get(name)
        await cache.saw("other", picture(2))
        for garbage in (b"", b"\x01", content[:-1], content + b"x", b"\x02" + content[1:], b"\xff" * len(content)):
            await raw.set(name, garbage)
            assert await cache.seen("p") is None
        await raw.delete(name)
        await raw.lpush(name, "a list")
        assert await cache.seen("p") is None
        assert await cache.seen("other") is not None

    async def test_forgetting_a_face_takes_every_picture_of_it_and_no_other(self, cache, raw):
        for name, known in (("a", picture(1)), ("b", picture(1, 2)), ("c", picture(2)), ("d", picture(3))):
            await cache.saw(name, known)
        # One embedding and two pictures.
        assert await cache.remove([key(1)]) == 3
        left = {name.decode().removeprefix(f"shrinkface:{SPACE}:") for name in await raw.keys("*")}
        assert left == {"picture:c", "picture:d", key(2), key(3), f"shown:{key(2)}", f"shown:{key(3)}"}
        assert [await cache.seen(name) is not None for name in "abcd"] == [False, False, True, True]
        assert await cache.remove([key(1), key(2), key(3)]) == 4
        assert await raw.keys("*") == []

    async def test_a_face_that_thousands_of_pictures_show(self, cache, raw):
        pipeline = raw.pipeline(transaction=False)
        for number in range(5_000):
            pipeline.set(f"shrinkface:{SPACE}:picture:{number}", b"x")
            pipeline.sadd(f"shrinkface:{SPACE}:shown:{key(1)}", f"shrinkface:{SPACE}:picture:{number}")
        await pipeline.execute()
        assert await cache.remove([key(1)]) == 5_000
        assert await raw.keys("*") == []

    async def test_only_pictures_are_deleted_whatever_a_set_holds(self, cache, raw):
        await cache.put({key(2): unit(2)})
        await raw.set("precious", b"1")
        await raw.sadd(f"shrinkface:{SPACE}:shown:{key(1)}", "precious", f"shrinkface:{SPACE}:{key(2)}")
        assert await cache.remove([key(1)]) == 0
        assert (await raw.get("precious"), (await cache.get([key(2)]))[0] is not None) == (b"1", True)

    async def test_a_set_of_another_type_is_in_nobodys_way(self, cache, raw):
        await cache.put({key(1): unit(1)})
        await raw.set(f"shrinkface:{SPACE}:shown:{key(1)}", b"text")
        assert await cache.remove([key(1)]) == 1
        assert await raw.keys("*") == []

    async def test_a_frozen_server_costs_one_timeout_and_what_was_to_go_is_never_believed(self, redis_server, raw):
        cache = cache_at(redis_server.url, timeout_s=1.0, rest_s=0.05)
        await cache.saw("p", picture(1))
        errors = counted("error")
        redis_server.freeze()
        found, took_s = await seconds(cache.seen("p"))
        assert found is None
        assert 0.9 <= took_s < 1.0 + SLACK_S
        assert counted("error") == errors + 1
        assert await cache.remove([key(1)]) is None
        redis_server.thaw()
        await asyncio.sleep(0.1)
        assert await cache.seen("p") is None
        assert await raw.keys("*") == []
        await cache.close()


class TestWithoutAServer:
    async def test_nobody_listening_is_a_miss(self):
        cache = cache_at(f"redis://127.0.0.1:{free_port()}/0", rest_s=0.0)
        assert await cache.get(["a", "b"]) == [None, None]
        await cache.put({"a": unit(1)})
        await cache.saw("p", picture(1))
        assert await cache.seen("p") is None
        assert await cache.remove(["a"]) is None
        await cache.close()

    @pytest.mark.parametrize(
        "reply",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x00\xff\xfe\x80\r\n",
            b"$notanumber\r\n",
            b"*-7\r\n",
            b"*3\r\n:1\r\n",
            b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
            b":12345\r\n" * 8,
            b"%1\r\n+a\r\n",
            b"",
        ],
        ids=["http", "binary", "length", "negative array", "cut short", "ok", "integers", "map", "hangs up"],
    )
    async def test_a_server_that_answers_rubbish_is_a_miss(self, reply):
        async def confuse(reader, writer):
            while reply and await reader.read(4096):
                writer.write(reply)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(confuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        cache = cache_at(f"redis://127.0.0.1:{port}/0", rest_s=0.0)
        found, took_s = await seconds(cache.get(["a", "b"]))
        assert found == [None, None]
        assert took_s < TIMEOUT_S + SLACK_S
        await cache.saw("p", picture(1))
        found, took_s = await seconds(cache.seen("p"))
        assert found is None
        assert took_s < TIMEOUT_S + SLACK_S
        await cache.put({"a": unit(1)})
        assert not await cache.remove(["a"]) or reply.startswith(b":")
        await cache.close()
        server.close()

    async def test_the_null_cache_remembers_nothing(self):
        cache = NullCache()
        await cache.put({"a": unit(1)})
        assert await cache.get(["a", "b"]) == [None, None]
        await cache.saw("p", picture(1))
        assert await cache.seen("p") is None
        assert await cache.remove(["a"]) == 0
        await cache.close()
