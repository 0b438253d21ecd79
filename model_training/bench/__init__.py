"""`shrinkface bench`: protocols on raw pictures through the serving code and the shipped models."""
