"""The loop that makes a student, and what it starts from."""
