"""Run the training commands."""

# The processes of a pool import this module too, and have no use for all that the commands need.
if __name__ == "__main__":
    from model_training.cli import app

    app()
