"""Who calls: keys out of requests, over a small application with the real dependency."""

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from structlog.testing import capture_logs

from service.access import Access, FailureTable, KeyFile, LocalLimiter, NullLimiter, Scope
from service.api.security import Authenticated
from service.domain import DomainError, RateLimited

pytestmark = pytest.mark.anyio

WRONG = f"sf_00000000_{'A' * 43}"


class Ticking:
    """A clock that a test moves."""

    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


def application():
    app = FastAPI()

    @app.exception_handler(DomainError)
    async def on_domain_error(_, error):
        return JSONResponse({"code": error.code, **error.details}, status_code=400)

    @app.get("/who")
    async def who(request: Request, caller: Authenticated):
        structlog.get_logger().info("served")
        return {"caller": caller.actor, "state": request.state.actor}

    @app.get("/may/{scope}")
    async def may(scope: Scope, caller: Authenticated, gallery: str | None = None):
        caller.require(scope, gallery)
        return {"caller": caller.actor}

    return app


class Service:
    """An application, and what a client at some host gets from it: a key's id, or a problem's code."""

    def __init__(self, access):
        self.access = access
        self.app = application()

    async def __call__(self, scope, receive, send):
        scope["state"] = {"running": SimpleNamespace(access=self.access)}
        await self.app(scope, receive, send)

    async def get(self, path="/who", host="10.0.0.1", **headers):
        transport = httpx.ASGITransport(self, client=(host, 50000) if host else None)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await client.get(path, headers=named)).json()

    async def told(self, path="/who", host="10.0.0.1", **headers):
        answer = await self.get(path, host, **headers)
        return answer.get("code", answer.get("caller"))


@pytest.fixture
def clock():
    return Ticking()


@pytest.fixture
def keys(tmp_path, clock):
    return KeyFile(tmp_path / "keys.json", clock=clock)


@pytest.fixture
def serve(keys, clock):
    def start(*, required=True, limiter=None):
        return Service(
            Access(
                required=required,
                keys=keys,
                limiter=limiter or NullLimiter(),
                failures=FailureTable(clock=clock),
            )
        )

    return start


class TestKeys:
    async def test_either_header_will_do_and_both_if_they_agree(self, serve, keys):
        service = serve()
        key, token = keys.create(Scope.IDENTIFY)
        for headers in (
            {"x_api_key": token},
            {"authorization": f"Bearer {token}"},
            {"authorization": f"bearer {token}"},
            {"x_api_key": token, "authorization": f"Bearer {token}"},
            {"x_api_key": token, "authorization": "Basic dXNlcjpwYXNz"},
        ):
            assert await service.get(**headers) == {"caller": key.key_id, "state": key.key_id}

    async def test_without_one_right_key_nobody_gets_in(self, serve, keys):
        service = serve()
        _, token = keys.create(Scope.ADMIN)
        _, other = keys.create(Scope.ADMIN)
        for headers in (
            {},
            {"x_api_key": ""},
            {"authorization": ""},
            {"authorization": "Bearer"},
            {"authorization": token},
            {"authorization": f"Basic {token}"},
            {"x_api_key": WRONG},
            {"x_api_key": "ÿ".encode("latin-1")},
            {"x_api_key": token, "authorization": f"Bearer {other}"},
            {"x_api_key": token, "authorization": f"Bearer {WRONG}"},
        ):
            assert await service.get(**headers) == {"code": "unauthenticated"}

    async def test_where_no_key_is_needed_everybody_may_do_everything(self, serve):
        service = serve(required=False)
        assert await service.get() == {"caller": "anonymous", "state": "anonymous"}
        assert await service.told("/may/admin?gallery=any", x_api_key=WRONG) == "anonymous"

    async def test_a_key_may_do_what_its_scope_and_galleries_say(self, serve, keys):
        service = serve()
        key, token = keys.create(Scope.ENROLL, galleries=["staff"])

        async def answer(path):
            return await service.get(path, x_api_key=token)

        assert await answer("/may/enroll?gallery=staff") == {"caller": key.key_id}
        assert await answer("/may/identify") == {"caller": key.key_id}
        assert await answer("/may/admin?gallery=staff") == {"code": "forbidden", "needed_scope": "admin"}
        assert await answer("/may/identify?gallery=guests") == {"code": "forbidden", "gallery": "guests"}

    async def test_a_revoked_key_is_shut_out_within_a_second_and_the_file_is_read_off_the_event_loop(
        self, serve, keys, clock, tmp_path, monkeypatch
    ):
        service = serve()
        key, token = keys.create(Scope.ADMIN)
        KeyFile(tmp_path / "keys.json").revoke(key.key_id)
        assert await service.told(x_api_key=token) == key.key_id
        readers = []
        look = keys._look
        monkeypatch.setattr(keys, "_look", lambda: readers.append(threading.current_thread()) or look())
        clock.time += 1
        assert await service.told(x_api_key=token) == "unauthenticated"
        assert len(readers) == 1
        assert readers[0] is not threading.current_thread()

    async def test_an_expired_key_is_refused(self, serve, keys):
        service = serve()
        key, token = keys.create(Scope.ADMIN, expires_at=datetime.now(UTC) + timedelta(hours=1))
        assert await service.told(x_api_key=token) == key.key_id
        keys._now = lambda: datetime.now(UTC) + timedelta(hours=1)
        assert await service.told(x_api_key=token) == "unauthenticated"

    async def test_logs_name_the_key_by_its_id_alone(self, serve, keys):
        service = serve()
        key, token = keys.create(Scope.ADMIN, label="Ada Lovelace")
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
            await service.told(x_api_key=token)
            await service.told(x_api_key=WRONG)
        (line,) = logs
        assert line["actor"] == key.key_id
        assert token.split("_", 2)[2] not in str(line)
        assert "Lovelace" not in str(line)

    async def test_the_api_description_names_both_ways(self):
        description = application().openapi()
        schemes = description["components"]["securitySchemes"]
        assert {
            (scheme["type"], scheme.get("in"), scheme.get("name"), scheme.get("scheme")) for scheme in schemes.values()
        } == {
            ("apiKey", "header", "X-API-Key", None),
            ("http", None, None, "bearer"),
        }
        # A list is a choice: one of them is enough.
        assert description["paths"]["/who"]["get"]["security"] == [{name: []} for name in schemes]


class TestRates:
    async def test_each_key_has_its_own_rate_whatever_host_it_comes_from(self, serve, keys):
        service = serve(limiter=LocalLimiter(rate_per_s=0.3, burst_s=10))
        key, token = keys.create(Scope.ADMIN)
        other, other_token = keys.create(Scope.ADMIN)
        hosts = [f"10.0.0.{i}" for i in range(5)]
        told = [await service.told(host=host, x_api_key=token) for host in hosts]
        assert told == [key.key_id] * 3 + ["rate-limited"] * 2
        assert (await service.get(x_api_key=token))["retry_after_s"] >= 1
        assert await service.told(x_api_key=other_token) == other.key_id

    async def test_where_no_key_is_needed_each_host_has_its_own(self, serve):
        service = serve(required=False, limiter=LocalLimiter(rate_per_s=0.1, burst_s=10))
        for host in ("10.0.0.1", "10.0.0.2", None):
            assert [await service.told(host=host) for _ in range(2)] == ["anonymous", "rate-limited"]

    async def test_a_wrong_key_spends_nobodys_requests(self, serve, keys):
        service = serve(limiter=LocalLimiter(rate_per_s=0.1, burst_s=10))
        key, token = keys.create(Scope.ADMIN)
        for _ in range(5):
            await service.told(x_api_key=f"sf_{key.key_id}_{'A' * 43}")
        assert await service.told(x_api_key=token) == key.key_id

    async def test_closing_closes_the_limiter(self, keys):
        closed = []

        class Limiter(NullLimiter):
            async def close(self):
                closed.append(self)

        limiter = Limiter()
        await Access(required=True, keys=keys, limiter=limiter).close()
        assert closed == [limiter]


class TestFailures:
    async def test_after_ten_wrong_keys_a_host_is_turned_away_for_a_minute_but_a_right_key_passes(
        self, serve, keys, clock
    ):
        service = serve()
        key, token = keys.create(Scope.ADMIN)
        told = []
        for _ in range(12):
            told.append(await service.told(x_api_key=WRONG))
            clock.time += 1
        assert told == ["unauthenticated"] * 10 + ["rate-limited"] * 2
        assert await service.get(x_api_key=WRONG) == {"code": "rate-limited", "retry_after_s": 48}
        assert await service.told(x_api_key=token) == key.key_id
        assert await service.told(host="10.0.0.2", x_api_key=WRONG) == "unauthenticated"
        assert await service.told() == "unauthenticated"
        clock.time += 48
        assert await service.told(x_api_key=WRONG) == "unauthenticated"
        assert await service.told(x_api_key=WRONG) == "rate-limited"

    async def test_a_missing_key_is_not_a_guess(self, serve):
        service = serve()
        for _ in range(20):
            assert await service.told() == "unauthenticated"

    async def test_the_table_is_bounded(self, clock):
        table = FailureTable(limit=2, max_hosts=100, clock=clock)
        for i in range(1000):
            table.note(f"host {i}")
        assert len(table) == 100
        table.note("host 999")
        with pytest.raises(RateLimited):
            table.note("host 999")
        table.note("host 0")
        table.note("host 0")
