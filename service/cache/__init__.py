"""Caches: Redis, or none. A cache may only ever save time; it cannot fail a request."""

from service.cache.null import NullCache
from service.cache.redis import RedisCache

__all__ = ["NullCache", "RedisCache"]
