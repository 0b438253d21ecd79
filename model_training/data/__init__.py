"""Faces on disk: pictures, aligned crops, augmented views, and the bank of views that a teacher has labelled."""
