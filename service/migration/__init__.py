"""Changing the embedding model of a running service: embed anew, compare, switch, go back."""

from service.migration.guard import Gate, GuardedGallery
from service.migration.links import LinkedCache, ServedJournal
from service.migration.migration import Migration, Side, Status

__all__ = ["Gate", "GuardedGallery", "LinkedCache", "Migration", "ServedJournal", "Side", "Status"]
