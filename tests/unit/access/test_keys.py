"""API keys: their tokens, and what they allow."""

from datetime import UTC, datetime, timedelta

import pytest

from service.access import KeyFile, Scope, keys
from service.domain import Forbidden, InvalidRequest
from tests.unit.access.common import Ticking, refused, secret_of

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


class TestTokens:
    def test_a_key_opens_for_its_token_and_is_listed(self, key_file):
        key, token = key_file.create(Scope.ENROLL, galleries=["b", "a", "b"], label="door 3")
        assert key.galleries == ("a", "b")
        assert key.scope is Scope.ENROLL
        assert key_file.authenticate(token) == key
        assert key_file.list() == (key,)
        assert token.startswith(f"sf_{key.key_id}_")
        assert len(secret_of(token)) == 43

    def test_no_two_tokens_are_alike(self, key_file):
        made = [key_file.create(Scope.IDENTIFY) for _ in range(20)]
        assert len({key.key_id for key, _ in made}) == 20
        assert len({secret_of(token) for _, token in made}) == 20
        assert [key_file.authenticate(token) for _, token in made] == [key for key, _ in made]

    def test_an_id_that_is_taken_is_not_given_again(self, key_file, monkeypatch):
        ids = iter(["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
        monkeypatch.setattr(keys.secrets, "token_hex", lambda _: next(ids))
        _, first = key_file.create(Scope.IDENTIFY)
        second_key, second = key_file.create(Scope.ADMIN)
        assert second_key.key_id == "bbbbbbbb"
        assert key_file.authenticate(second) == second_key
        assert key_file.authenticate(first).scope is Scope.IDENTIFY

    def test_every_token_that_is_not_right_gets_one_and_the_same_answer(self, path):
        now = Ticking(NOW)
        key_file = KeyFile(path, now=now)
        key, token = key_file.create(Scope.ADMIN)
        _, short_lived = key_file.create(Scope.ADMIN, expires_at=NOW + timedelta(hours=1))
        now.time += timedelta(hours=1)
        wrong = [
            "",
            "sf_",
            token[:-1],
            token + "A",
            token.upper(),
            f" {token}",
            f"{token}\n",
            secret_of(token),
            f"sf_{key.key_id}_{'A' * 43}",
            f"sf_00000000_{secret_of(token)}",
            f"sf_{key.key_id}_{'é' * 43}",
            short_lived,
            "x" * 100_000,
        ]
        errors = [refused(key_file, each) for each in wrong]
        assert {(error.message, len(error.details)) for error in errors} == {("the API key is not valid", 0)}
        assert key_file.authenticate(token) == key

    def test_hashes_are_compared_for_an_unknown_id_too(self, key_file, monkeypatch):
        compared = []
        compare = keys.hmac.compare_digest
        monkeypatch.setattr(
            keys.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or compare(a, b)
        )
        refused(key_file, f"sf_00000000_{'A' * 43}")
        assert compared == [(64, 64)]

    def test_a_key_works_until_the_moment_it_expires(self, path):
        now = Ticking(NOW)
        key_file = KeyFile(path, now=now)
        key, token = key_file.create(Scope.ADMIN, expires_at=NOW + timedelta(seconds=10))
        now.time += timedelta(seconds=9, microseconds=999_999)
        assert key_file.authenticate(token) == key
        now.time += timedelta(microseconds=1)
        refused(key_file, token)
        assert key_file.list() == (key,)

    @pytest.mark.parametrize(
        ("asked", "field"),
        [
            ({"galleries": []}, "galleries"),
            ({"galleries": ["fine", "not fine"]}, "gallery"),
            ({"galleries": [f"g{i}" for i in range(1001)]}, "galleries"),
            ({"label": "x" * 101}, "label"),
            ({"label": "two\nlines"}, "label"),
            ({"expires_at": datetime(2999, 1, 1)}, "expires_at"),
            ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expires_at"),
        ],
    )
    def test_what_cannot_be_a_key_is_refused_and_leaves_no_file(self, key_file, path, asked, field):
        with pytest.raises(InvalidRequest) as caught:
            key_file.create(Scope.IDENTIFY, **asked)
        assert caught.value.details["field"] == field
        assert not path.exists()


class TestPermissions:
    @pytest.mark.parametrize(
        ("has", "may"),
        [
            (Scope.IDENTIFY, {Scope.IDENTIFY}),
            (Scope.ENROLL, {Scope.IDENTIFY, Scope.ENROLL}),
            (Scope.ADMIN, {Scope.IDENTIFY, Scope.ENROLL, Scope.ADMIN}),
        ],
    )
    def test_a_scope_includes_those_before_it(self, key_file, has, may):
        key, _ = key_file.create(has)
        for scope in Scope:
            if scope in may:
                key.allows(scope, "any")
                continue
            with pytest.raises(Forbidden) as caught:
                key.allows(scope, "any")
            assert caught.value.details == {"needed_scope": scope.value}
            assert scope in caught.value.message
            assert has not in caught.value.message

    def test_a_key_is_confined_to_its_galleries(self, key_file):
        key, _ = key_file.create(Scope.ADMIN, galleries=["staff", "guests"])
        key.allows(Scope.ADMIN, "staff")
        key.allows(Scope.IDENTIFY, "guests")
        key.allows(Scope.ADMIN)
        for other in ("visitors", "Staff", "staff2", ""):
            assert not key.admits(other)
            with pytest.raises(Forbidden) as caught:
                key.allows(Scope.IDENTIFY, other)
            assert caught.value.details == {"gallery": other}

    def test_a_key_for_all_galleries_is_for_new_ones_too(self, key_file):
        key, _ = key_file.create(Scope.IDENTIFY)
        assert key.admits("made-later")
