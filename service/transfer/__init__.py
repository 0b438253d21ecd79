"""Galleries in and out in bulk: from folders of pictures, NDJSON files and arrays of embeddings, and back to NDJSON."""
