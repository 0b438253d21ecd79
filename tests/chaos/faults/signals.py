"""The service itself, killed or told to end, and started again."""

from __future__ import annotations

from tests.chaos.fault import GONE, Fault, Scene
from tests.chaos.load import REFUSED


class ServiceKilled(Fault):
    name = "service-killed"
    what = "the service gets SIGKILL under load; later it is started again"
    allowed = GONE
    shows = frozenset((REFUSED,))
    during_s = 2.0

    def begin(self, scene: Scene) -> None:
        scene.service.kill()

    def end(self, scene: Scene) -> None:
        scene.service.start(wait=False)


class ServiceTerminated(Fault):
    name = "service-terminated"
    what = "the service gets SIGTERM under load and ends; later it is started again. No request may be dropped"
    # Nobody listens; whoever was connected has been answered.
    allowed = shows = frozenset((REFUSED,))
    during_s = 1.0

    def begin(self, scene: Scene) -> None:
        scene.service.terminate()

    def end(self, scene: Scene) -> None:
        scene.service.start(wait=False)


FAULTS: tuple[type[Fault], ...] = (ServiceKilled, ServiceTerminated)
