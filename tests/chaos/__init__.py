"""The running service under faults: no wrong answer, nothing acknowledged lost, documented errors, back in seconds."""
