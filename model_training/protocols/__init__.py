"""Benchmark protocols and error rates over an `embed` callable. Nothing here chooses a checkpoint or a setting."""
