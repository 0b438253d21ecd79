import pytest

from tests.unit.identification.world import World


@pytest.fixture
def world():
    return World()


@pytest.fixture
def service(world):
    return world.services()
