"""Routes, grouped by what they are for."""
