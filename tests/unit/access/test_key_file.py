"""The file that keeps API keys, alone, between processes and in trouble."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.access import KeyFile, Scope, files, keys
from service.domain import InvalidRequest, StorageFull, StorageUnusable
from tests.unit.access.common import refused, secret_of

ENTRY = {
    "id": "0123abcd",
    "sha256": "0" * 64,
    "scope": "admin",
    "galleries": None,
    "label": "",
    "created_at": "2026-05-01T12:00:00Z",
    "expires_at": None,
}


class TestTheFile:
    def test_it_holds_hashes_and_no_secret(self, key_file, path):
        made = [key_file.create(Scope.ADMIN, label="x") for _ in range(3)]
        text = "".join(each.read_text() for each in path.parent.iterdir())
        for key, token in made:
            assert key.key_id in text
            assert secret_of(token) not in text
            assert token not in text

    def test_only_its_owner_can_read_it_and_nothing_is_left_beside_it(self, key_file, path):
        key_file.create(Scope.ADMIN)
        path.chmod(0o644)
        path.with_name("api-keys.json.partial").write_text("left by a process that was killed")
        key_file.create(Scope.ADMIN)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert sorted(each.name for each in path.parent.iterdir()) == ["api-keys.json", "api-keys.json.lock"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
    def test_what_root_makes_belongs_to_the_folders_owner(self, key_file, path):
        path.parent.mkdir()
        os.chown(path.parent, 12345, 12346)
        key_file.create(Scope.ADMIN)
        for each in path.parent.iterdir():
            assert (each.stat().st_uid, each.stat().st_gid) == (12345, 12346)

    def test_a_link_to_it_stays_a_link(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        link = tmp_path / "keys.json"
        link.symlink_to(tmp_path / "elsewhere" / "real.json")
        key, _ = KeyFile(link).create(Scope.ADMIN)
        assert link.is_symlink()
        assert KeyFile(tmp_path / "elsewhere" / "real.json").list() == (key,)

    def test_revoking_takes_one_key_out(self, key_file):
        kept, kept_token = key_file.create(Scope.ADMIN)
        gone, gone_token = key_file.create(Scope.ADMIN)
        assert key_file.revoke(gone.key_id)
        assert not key_file.revoke(gone.key_id)
        assert not key_file.revoke("no-such-id")
        refused(key_file, gone_token)
        assert key_file.authenticate(kept_token) == kept
        assert key_file.list() == (kept,)

    def test_a_key_survives_a_restart(self, key_file, path):
        key, token = key_file.create(
            Scope.ENROLL, galleries=["a"], label="x", expires_at=datetime(2999, 1, 1, tzinfo=UTC)
        )
        assert KeyFile(path).authenticate(token) == key

    def test_a_full_disk_loses_nothing(self, key_file, path, monkeypatch):
        key, token = key_file.create(Scope.ADMIN)
        before = path.read_bytes()

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        with pytest.raises(StorageFull):
            key_file.create(Scope.ADMIN)
        with pytest.raises(StorageFull):
            key_file.revoke(key.key_id)
        assert path.read_bytes() == before
        assert not path.with_name("api-keys.json.partial").exists()
        assert key_file.authenticate(token) == key

    def test_a_place_that_cannot_be_written_is_said_to_be(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageUnusable, match="cannot be changed"):
            KeyFile(tmp_path / "file" / "keys.json").create(Scope.ADMIN)

    def test_a_full_file_takes_no_more(self, key_file, path, monkeypatch):
        key, _ = key_file.create(Scope.ADMIN)
        monkeypatch.setattr(keys, "MAX_KEYS", 1)
        with pytest.raises(InvalidRequest, match="full"):
            key_file.create(Scope.ADMIN)
        monkeypatch.setattr(keys, "MAX_KEYS", 10)
        monkeypatch.setattr(keys, "MAX_FILE_BYTES", path.stat().st_size + 10)
        with pytest.raises(InvalidRequest, match="full"):
            key_file.create(Scope.ADMIN)
        assert key_file.list() == (key,)


class TestSeveralProcesses:
    def test_a_revocation_elsewhere_is_seen_within_a_second(self, key_file, path, clock):
        key, token = key_file.create(Scope.ADMIN)
        clock.time += 1
        key_file.authenticate(token)
        KeyFile(path).revoke(key.key_id)
        clock.time += 0.99
        assert key_file.authenticate(token) == key
        clock.time += 0.01
        refused(key_file, token)

    def test_a_key_made_elsewhere_opens_within_a_second(self, key_file, path, clock):
        key, token = KeyFile(path).create(Scope.ADMIN)
        refused(key_file, token)
        clock.time += 1
        assert key_file.authenticate(token) == key

    def test_the_file_is_looked_at_once_a_second_however_many_ask(self, key_file, clock, monkeypatch):
        _, token = key_file.create(Scope.ADMIN)
        looks = []
        read = keys.read_bounded
        monkeypatch.setattr(keys, "read_bounded", lambda *args: looks.append(clock.time) or read(*args))
        for _ in range(30):
            clock.time += 0.125
            key_file.authenticate(token)
        assert looks == [1001.0, 1002.0, 1003.0]

    def test_a_mounted_secret_that_is_swapped_is_read_again(self, tmp_path, clock):
        for version in ("one", "two"):
            (tmp_path / version).mkdir()
        _, first = KeyFile(tmp_path / "one" / "keys.json").create(Scope.ADMIN)
        _, second = KeyFile(tmp_path / "two" / "keys.json").create(Scope.ADMIN)
        (tmp_path / "..data").symlink_to("one")
        (tmp_path / "keys.json").symlink_to("..data/keys.json")
        key_file = KeyFile(tmp_path / "keys.json", clock=clock)
        key_file.authenticate(first)
        (tmp_path / "..new").symlink_to("two")
        (tmp_path / "..new").rename(tmp_path / "..data")
        clock.time += 1
        key_file.authenticate(second)
        refused(key_file, first)

    def test_creating_and_revoking_in_two_processes_loses_nothing_and_no_reader_sees_half_a_file(self, path):
        program = (
            "import sys; from pathlib import Path; from service.access.keys import KeyFile, Scope\n"
            "keys = KeyFile(Path(sys.argv[1]))\n"
            "for i in range(25):\n"
            "    key, token = keys.create(Scope.IDENTIFY)\n"
            "    print(token)\n"
            "    assert i % 5 or keys.revoke(key.key_id)\n"
        )
        working = [
            subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        reader = KeyFile(path)
        while any(process.poll() is None for process in working):
            reader.list()
        tokens = [token for process in working for token in process.communicate()[0].split()]
        assert [process.returncode for process in working] == [0, 0]
        assert len(tokens) == 50
        after = KeyFile(path)
        kept = [token for i, token in enumerate(tokens) if i % 5]
        assert {after.authenticate(token).key_id for token in kept} == {key.key_id for key in after.list()}
        assert len(after.list()) == 40

    def test_threads_lose_nothing_either(self, key_file):
        threads = [
            threading.Thread(target=lambda: [key_file.create(Scope.IDENTIFY) for _ in range(5)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(key_file.list()) == 20

    def test_a_change_that_never_ends_holds_up_others_for_a_bounded_time(self, key_file, path, monkeypatch):
        key, _ = key_file.create(Scope.ADMIN)
        monkeypatch.setattr(files, "_LOCK_WAIT_S", 0.05)
        with path.with_name("api-keys.json.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StorageUnusable, match="another process"):
                key_file.create(Scope.ADMIN)
        assert key_file.revoke(key.key_id)


def document(*entries, **members):
    return json.dumps({"format": 1, "keys": entries, **members}).encode()


DAMAGED = {
    "empty": b"",
    "cut short": document(ENTRY)[:-20],
    "binary": b"\x00\xff\xfe",
    "a list": b"[]",
    "newer format": b'{"format": 2, "keys": []}',
    "unknown member": document(ENTRY, rules=[]),
    "unknown member of a key": document({**ENTRY, "addresses": ["10.0.0.0/8"]}),
    "no galleries": document({name: value for name, value in ENTRY.items() if name != "galleries"}),
    "scope": document({**ENTRY, "scope": "root"}),
    "hash": document({**ENTRY, "sha256": "ABC"}),
    "id": document({**ENTRY, "id": "0123abc"}),
    "no time zone": document({**ENTRY, "expires_at": "2030-01-01T00:00:00"}),
    "two of one id": document(ENTRY, {**ENTRY, "scope": "identify"}),
    "deep": b"[" * 100_000,
    "too large": b" " * 4_000_001,
}


class TestTrouble:
    def test_no_file_is_no_keys(self, key_file, path):
        assert key_file.list() == ()
        refused(key_file, f"sf_00000000_{'A' * 43}")
        assert not path.parent.exists()

    def test_a_file_that_goes_takes_its_keys_along(self, key_file, path, clock):
        _, token = key_file.create(Scope.ADMIN)
        path.unlink()
        clock.time += 1
        refused(key_file, token)

    @pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
    def test_a_damaged_file_changes_nothing_is_logged_once_and_is_not_written_over(
        self, key_file, path, clock, content
    ):
        key, token = key_file.create(Scope.ADMIN)
        good = path.read_bytes()
        path.write_bytes(content)
        with capture_logs() as logs:
            for _ in range(3):
                clock.time += 1
                assert key_file.authenticate(token) == key
        (line,) = logs
        assert line["log_level"] == "error"
        assert line["keys_kept"] == 1
        for change in (key_file.list, lambda: key_file.create(Scope.ADMIN), lambda: key_file.revoke(key.key_id)):
            with pytest.raises(StorageUnusable):
                change()
        assert path.read_bytes() == content
        refused(KeyFile(path), token)
        path.write_bytes(good)
        assert key_file.revoke(key.key_id)
        refused(key_file, token)

    def test_a_file_that_cannot_be_read_changes_nothing(self, key_file, path, clock):
        key, token = key_file.create(Scope.ADMIN)
        good = path.read_bytes()
        path.unlink()
        path.mkdir()
        with capture_logs() as logs:
            for _ in range(3):
                clock.time += 1
                assert key_file.authenticate(token) == key
        assert [line["event"] for line in logs] == ["api keys not read"]
        path.rmdir()
        path.write_bytes(good)
        clock.time += 1
        with capture_logs() as logs:
            assert key_file.authenticate(token) == key
        assert [line["event"] for line in logs] == ["api keys have changed"]

    def test_a_good_entry_by_hand_is_read(self, path, clock):
        secret = "A" * 43
        path.parent.mkdir()
        path.write_bytes(document({**ENTRY, "sha256": keys._hash(secret)}))
        assert KeyFile(path, clock=clock).authenticate(f"sf_0123abcd_{secret}").key_id == "0123abcd"

    def test_no_log_line_and_no_error_holds_a_secret(self, path, clock):
        with capture_logs() as logs:
            key_file = KeyFile(path, clock=clock)
            _, token = key_file.create(Scope.ADMIN, label="Ada Lovelace")
            refused(key_file, token[:-1] + "-")
            content = path.read_bytes()
            path.write_bytes(content.replace(b"admin", token.encode()))
            clock.time += 1
            key_file.authenticate(token)
            with pytest.raises(StorageUnusable) as caught:
                key_file.list()
        assert [line["log_level"] for line in logs] == ["error"]
        told = str(logs) + str(caught.value) + str(caught.value.details)
        for hidden in (secret_of(token), keys._hash(secret_of(token)), "Lovelace"):
            assert hidden not in told


def test_the_file_is_put_in_place_in_one_step(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_bytes(b"before")
    seen = []
    rename = Path.rename

    def spy(self, to):
        seen.append((target.read_bytes(), self.read_bytes()))
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", spy)
    files.replace_file(target, b"after")
    assert seen == [(b"before", b"after")]
    assert target.read_bytes() == b"after"
