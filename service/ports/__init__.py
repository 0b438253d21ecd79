"""What the use cases need from the outside, as protocols with their semantics. Adapters live one level up."""

from service.ports.cache import EmbeddingCache, KnownFace, KnownPicture
from service.ports.gallery import Gallery, GallerySummary, SearchResult
from service.ports.journal import Journal, JournalEntry, Replay
from service.ports.vision import (
    AnalysedPicture,
    AttributeReader,
    AttributesTold,
    BoxView,
    Detector,
    Embedder,
    FoundFace,
    PictureAnalyser,
)

__all__ = [
    "AnalysedPicture",
    "AttributeReader",
    "AttributesTold",
    "BoxView",
    "Detector",
    "Embedder",
    "EmbeddingCache",
    "FoundFace",
    "Gallery",
    "GallerySummary",
    "Journal",
    "JournalEntry",
    "KnownFace",
    "KnownPicture",
    "PictureAnalyser",
    "Replay",
    "SearchResult",
]
