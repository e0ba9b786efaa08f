"""One run on disk: its directory, checkpoints, progress, and how it resumes."""
