"""What the tests of keys share."""

from __future__ import annotations

import pytest

from service.domain import Unauthenticated


class Ticking:
    """A clock that a test moves."""

    def __init__(self, start):
        self.time = start

    def __call__(self):
        return self.time


def secret_of(token):
    return token.split("_", 2)[2]


def refused(key_file, token):
    with pytest.raises(Unauthenticated) as caught:
        key_file.authenticate(token)
    return caught.value
