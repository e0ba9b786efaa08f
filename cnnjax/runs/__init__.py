"""A training run on disk: its directory, checkpoints and progress, and how it resumes."""
