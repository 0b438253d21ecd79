"""What is asked of the service, how often, and by whom."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scenario:
    """One load.

    Attributes:
        callers: so many ask again as soon as they have their answer (closed); 0 where requests come at a rate.
        rate_per_s: requests begin at this rate whatever becomes of those before them (open), as a Poisson process.
        seconds: how long it is counted; `warm_up_s` comes before.
        pictures: how many different ones; 0 for all there are, each once until they run out.
        redis: with an embedding cache.
        enrol_share, delete_share: of all requests; the rest identify.
    """

    name: str
    described: str
    seconds: float
    callers: int = 0
    rate_per_s: float = 0.0
    pictures: int = 0
    redis: bool = False
    enrol_share: float = 0.0
    delete_share: float = 0.0
    warm_up_s: float = 5.0

    def __post_init__(self) -> None:
        if (self.callers > 0) == (self.rate_per_s > 0):
            raise ValueError(f"{self.name} needs either callers or a rate")
        if not 0 <= self.enrol_share + self.delete_share < 1:
            raise ValueError(f"{self.name} leaves no share for identifying")


_MIX = {"enrol_share": 0.04, "delete_share": 0.01}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("closed", "8 callers, different pictures, no Redis", 60, callers=8),
        Scenario("rate-50", "50 requests/s, different pictures, no Redis", 60, rate_per_s=50),
        Scenario("rate-100", "100 requests/s, different pictures, no Redis", 60, rate_per_s=100),
        Scenario("repeated", "8 callers, 300 pictures again and again, Redis", 60, callers=8, pictures=300, redis=True),
        Scenario(
            "mix", "50 requests/s: 95 % identify, 4 % enrol, 1 % delete; Redis", 60, rate_per_s=50, redis=True, **_MIX
        ),
        Scenario("soak", "10 minutes of the mix at 80 requests/s; Redis", 600, rate_per_s=80, redis=True, **_MIX),
    )
}

# Short loads on a small gallery, for CI: whether everything works, not how fast.
SMOKE = (
    Scenario("smoke-closed", "4 callers", 12, callers=4, warm_up_s=1),
    Scenario("smoke-mix", "10 requests/s: 70 % identify, 20 % enrol, 10 % delete; Redis", 12, rate_per_s=10, redis=True,
             enrol_share=0.2, delete_share=0.1, warm_up_s=1),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What the load generator's process is told. Paths are text, for JSON.

    Attributes:
        service: which protocol the service at `host`:`port` speaks, a name in `protocols.PROTOCOLS`.
        probes: path of a picture and who is in it; an empty name is somebody who is not enrolled.
        newcomers: path of a picture and who is in it, for enrolments.
    """

    scenario: Scenario
    service: str
    host: str
    port: int
    probes: list[tuple[str, str]]
    newcomers: list[tuple[str, str]] = field(default_factory=list)
    seed: int = 0
