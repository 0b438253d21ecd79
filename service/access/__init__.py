"""API keys and rate limits: who may do what, and how often. Knows nothing of HTTP."""

from service.access.access import Access
from service.access.failures import FailureTable
from service.access.keys import ApiKey, KeyFile, Scope
from service.access.limits import LocalLimiter, NullLimiter, RateLimiter, RedisLimiter

__all__ = [
    "Access",
    "ApiKey",
    "FailureTable",
    "KeyFile",
    "LocalLimiter",
    "NullLimiter",
    "RateLimiter",
    "RedisLimiter",
    "Scope",
]
