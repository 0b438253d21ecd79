"""The mask classifier: whether a face wears one, read off its aligned crop."""
