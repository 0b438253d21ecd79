"""When a key is needed, and where keys are."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


def settings(**values):
    return Settings(_env_file=None, **values)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.255.3.4", "::1", "0:0:0:0:0:0:0:1"])
def test_on_a_loopback_address_no_key_is_needed_unless_asked_for(host):
    assert not settings(host=host).auth_required
    assert settings(host=host, auth="on").auth_required


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "0", "10.0.0.1", "128.0.0.1", "::2", "::ffff:127.0.0.1", "127.0.0.1.example", "face.local"],
)
def test_anywhere_else_a_key_is_needed_unless_turned_off(host):
    assert settings(host=host).auth_required
    assert not settings(host=host, auth="off").auth_required


def test_by_default_no_key_is_needed_for_the_default_host():
    assert not settings().auth_required


def test_keys_are_in_the_data_folder_unless_they_have_a_file_of_their_own():
    assert settings(data_dir=Path("/srv/faces")).keys_path == Path("/srv/faces/api-keys.json")
    assert settings(keys_file=Path("/run/secrets/keys.json")).keys_path == Path("/run/secrets/keys.json")


@pytest.mark.parametrize(
    "values",
    [{"auth": "maybe"}, {"rate_limit_per_s": 0}, {"rate_limit_per_s": float("nan")}, {"rate_limit_burst_s": 0}],
)
def test_what_cannot_be_is_refused(values):
    with pytest.raises(ValidationError):
        settings(**values)
