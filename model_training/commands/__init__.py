"""The commands of `python -m model_training`, a module for each group."""
