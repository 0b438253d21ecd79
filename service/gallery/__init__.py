"""Where enrolled faces are kept and searched."""
