"""Pictures: hostile bytes to pixels, faces, quality, embeddings."""
