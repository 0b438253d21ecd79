"""Frozen networks that say what a student should have said."""
