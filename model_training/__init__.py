"""The distillation pipeline that makes the models the service runs."""
