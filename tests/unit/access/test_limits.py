"""Rate limits in one process, and over a real Redis that is healthy, frozen, dead and confused."""

import asyncio
import random
import time
from types import SimpleNamespace

import limits.aio.storage.memory
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from service.access import LocalLimiter, NullLimiter, RedisLimiter
from service.domain import RateLimited
from tests.redis_fixture import free_port

pytestmark = pytest.mark.anyio

TIMEOUT_S = 0.15
# What scheduling on a busy core may add to a timeout.
SLACK_S = 0.35
# For a healthy server: no test of what it answers may turn on how busy the machine is.
PATIENT_S = 10.0


async def spent(limiter, key_id="k", cost=1):
    """0 when it was allowed, else the wait that was asked for."""
    try:
        await limiter.spend(key_id, cost)
    except RateLimited as refusal:
        assert isinstance(refusal.details["retry_after_s"], int)
        return refusal.details["retry_after_s"]
    return 0


async def allowed(limiter, tries, key_id="k"):
    return sum([await spent(limiter, key_id) == 0 for _ in range(tries)])


async def seconds(call):
    started = time.perf_counter()
    result = await call
    return result, time.perf_counter() - started


@pytest.fixture
def clock(monkeypatch):
    """The library's time of day, moved by the test; at a border between windows of up to a thousand seconds."""
    clock = SimpleNamespace(now=1_700_000_000.0)
    monkeypatch.setattr(limits.aio.storage.memory, "time", SimpleNamespace(time=lambda: clock.now))
    return clock


class TestWithinOneProcess:
    async def test_a_burst_is_as_many_as_the_rate_allows_in_the_window(self, clock):
        limiter = LocalLimiter(rate_per_s=50, burst_s=10)
        assert await allowed(limiter, 600) == 500
        assert await allowed(limiter, 600, "another") == 500

    @pytest.mark.parametrize(
        ("rate", "burst_s", "at_once"),
        [(0.004, 10, 1), (0.05, 10, 1), (1 / 3, 10, 4), (1, 10, 10), (2.5, 1, 5), (2.5, 10, 25), (33.3, 1.5, 67)],
    )
    async def test_who_never_stops_gets_the_rate(self, clock, rate, burst_s, at_once):
        limiter = LocalLimiter(rate_per_s=rate, burst_s=burst_s)
        assert await allowed(limiter, 2 * at_once) == at_once
        got, expected = 0, 500
        for _ in range(10 * expected):
            clock.now += 0.1 / rate
            got += await spent(limiter) == 0
        assert 0.98 * expected - at_once <= got <= 1.02 * expected

    async def test_after_the_wait_that_was_asked_for_it_is_allowed_and_a_second_sooner_it_is_not(self, clock):
        draw = random.Random(1)
        refusals = 0
        for _ in range(150):
            limiter = LocalLimiter(rate_per_s=draw.choice([0.2, 1.5, 7]), burst_s=draw.choice([1, 4, 10]))
            cost = draw.randint(1, 3)
            wait_s = 0
            for _ in range(200):
                if wait_s := await spent(limiter, cost=cost):
                    break
                clock.now += draw.uniform(0, 0.2)
            if not wait_s:
                continue
            refusals += 1
            clock.now += wait_s - 1
            if wait_s > 1:
                assert await spent(limiter, cost=cost) == 1
            clock.now += 1
            assert await spent(limiter, cost=cost) == 0
        assert refusals > 100

    async def test_a_refusal_costs_nothing(self, clock):
        limiter = LocalLimiter(rate_per_s=1, burst_s=10)
        assert await allowed(limiter, 10) == 10
        for _ in range(50):
            await spent(limiter)
        clock.now += 20
        assert await allowed(limiter, 20) == 10

    async def test_a_cost_counts_as_that_many_and_one_over_the_whole_window_takes_the_window(self, clock):
        limiter = LocalLimiter(rate_per_s=1, burst_s=10)
        assert await spent(limiter, cost=7) == 0
        assert await spent(limiter, cost=4) > 0
        assert await spent(limiter, cost=3) == 0
        assert await spent(limiter, "other", cost=1000) == 0
        assert await spent(limiter, "other") > 0

    async def test_memory_is_bounded_and_what_is_forgotten_is_the_caller_not_heard_of_for_longest(self, clock):
        limiter = LocalLimiter(rate_per_s=1, burst_s=1, max_ids=100)
        for i in range(100):
            assert await spent(limiter, f"host:{i}") == 0
        assert await spent(limiter, "host:0") > 0
        for i in range(100, 150):
            await spent(limiter, f"host:{i}")
        assert await spent(limiter, "host:0") > 0
        assert await spent(limiter, "host:1") == 0
        for i in range(2000):
            await spent(limiter, f"flood:{i}")
        assert len(limiter._ids) == 100
        assert sum(len(each.storage) for each in limiter._storages) <= 100
        assert sum(len(each.locks) for each in limiter._storages) <= 100

    async def test_no_limit_is_no_limit(self):
        limiter = NullLimiter()
        assert await allowed(limiter, 1000) == 1000
        await limiter.close()


@pytest.fixture
async def raw(redis_server):
    client = Redis.from_url(redis_server.url)
    yield client
    await client.aclose()


def limiter_at(url, *, rate_per_s=0.5, burst_s=10.0, timeout_s=PATIENT_S, rest_s=30.0):
    return RedisLimiter(url, rate_per_s=rate_per_s, burst_s=burst_s, timeout_s=timeout_s, rest_s=rest_s)


@pytest.mark.redis
class TestOverRedis:
    async def test_processes_share_what_a_caller_may_spend(self, redis_server):
        one, two = limiter_at(redis_server.url), limiter_at(redis_server.url)
        assert [await spent(limiter) for limiter in (one, two, one, two, one)] == [0] * 5
        assert await spent(one) > 0
        assert await spent(two) > 0
        assert await spent(two, "another") == 0
        await one.close()
        await two.close()

    async def test_more_at_once_than_there_are_connections_are_still_counted_together(self, redis_server):
        limiter = limiter_at(redis_server.url)
        waits = await asyncio.gather(*(spent(limiter) for _ in range(300)))
        assert sum(wait == 0 for wait in waits) == 5
        await limiter.close()

    async def test_after_the_wait_that_was_asked_for_it_is_allowed(self, redis_server, raw):
        limiter = limiter_at(redis_server.url, rate_per_s=1.1)
        assert await spent(limiter, cost=11) == 0
        # Ten seconds until the window turns, and 0.91 until of its eleven less than ten count.
        assert await spent(limiter, cost=2) == 11
        await age(raw, 10)
        assert await spent(limiter, cost=2) == 1
        await age(raw, 1)
        assert await spent(limiter, cost=2) == 0
        await limiter.close()

    async def test_what_it_keeps_is_two_short_lived_keys_with_its_own_prefix(self, redis_server, raw):
        limiter = limiter_at(redis_server.url)
        await limiter.spend("key:0123abcd")
        await age(raw, 12)
        await limiter.spend("key:0123abcd")
        keys = await raw.keys()
        assert len(keys) == 2
        for key in keys:
            assert key.startswith(b"shrinkface:rate:")
            assert 0 < await raw.ttl(key) <= 20
        await limiter.close()

    async def test_a_value_of_a_wrong_kind_is_trouble_and_the_process_counts_alone(self, redis_server, raw):
        limiter = limiter_at(redis_server.url)
        await limiter.spend("k")
        (key,) = await raw.keys()
        for rubbish in (b"rubbish", None):
            await raw.delete(key)
            if rubbish is None:
                await raw.lpush(key, "x")
            else:
                await raw.set(key, rubbish)
            fresh = limiter_at(redis_server.url)
            assert await allowed(fresh, 8) == 5
            await fresh.close()
        await limiter.close()

    async def test_a_frozen_server_costs_one_timeout_and_is_then_left_alone(self, redis_server, clock):
        limiter = limiter_at(redis_server.url, timeout_s=TIMEOUT_S)
        redis_server.freeze()
        wait, first_s = await seconds(spent(limiter))
        assert wait == 0
        assert TIMEOUT_S * 0.9 <= first_s < TIMEOUT_S + SLACK_S
        got, rest_s = await seconds(allowed(limiter, 50))
        assert got == 4
        assert rest_s < TIMEOUT_S / 2
        _, close_s = await seconds(limiter.close())
        assert close_s < TIMEOUT_S + SLACK_S

    async def test_a_frozen_server_holds_up_many_at_once_no_longer_than_one(self, redis_server, clock):
        limiter = limiter_at(redis_server.url, timeout_s=0.5)
        redis_server.freeze()
        waits, took_s = await seconds(asyncio.gather(*(spent(limiter) for _ in range(200))))
        assert sum(wait == 0 for wait in waits) == 5
        # Were those without a connection to wait for one and then for the server, it would be four timeouts.
        assert took_s < 3 * 0.5
        await limiter.close()

    async def test_one_that_freezes_between_calls_is_a_fallback_and_thawed_it_counts_again(self, redis_server):
        limiter = limiter_at(redis_server.url, timeout_s=1.0, rest_s=0.05)
        assert await allowed(limiter, 3) == 3
        redis_server.freeze()
        with capture_logs() as logs:
            assert await spent(limiter) == 0
            redis_server.thaw()
            await asyncio.sleep(0.1)
            assert 1 <= await allowed(limiter, 8) <= 2
        assert [line["log_level"] for line in logs] == ["warning", "info"]
        await limiter.close()

    async def test_a_killed_server_is_a_fallback(self, redis_server, clock):
        limiter = limiter_at(redis_server.url)
        assert await spent(limiter) == 0
        redis_server.kill()
        got, took_s = await seconds(allowed(limiter, 8))
        assert got == 5
        assert took_s < TIMEOUT_S + SLACK_S
        await limiter.close()


class TestWithoutAServer:
    async def test_nobody_listening_is_a_fallback_and_the_log_keeps_the_password_to_itself(self, clock):
        limiter = limiter_at(f"redis://user:hunter2@127.0.0.1:{free_port()}/0", rest_s=0.0)
        with capture_logs() as logs:
            assert await allowed(limiter, 8) == 5
        assert [line["event"] for line in logs] == ["rate limits are counted in this process alone"]
        assert "hunter2" not in str(logs)
        await limiter.close()

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
            b"*4\r\n+a\r\n+b\r\n+c\r\n+d\r\n",
            b"",
        ],
        ids=["http", "binary", "length", "negative array", "cut short", "ok", "integers", "map", "texts", "hangs up"],
    )
    async def test_a_server_that_answers_rubbish_is_a_fallback(self, reply, clock):
        async def confuse(reader, writer):
            while reply and await reader.read(4096):
                writer.write(reply)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(confuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        limiter = limiter_at(f"redis://127.0.0.1:{port}/0", timeout_s=TIMEOUT_S)
        got, took_s = await seconds(allowed(limiter, 8))
        assert got == 5
        assert took_s < TIMEOUT_S + SLACK_S
        await limiter.close()
        server.close()


async def age(raw, by_s):
    """Let the server's keys be that much older, instead of waiting."""
    for key in await raw.keys():
        left_ms = await raw.pttl(key) - by_s * 1000
        if left_ms > 0:
            await raw.pexpire(key, left_ms)
        else:
            await raw.delete(key)
