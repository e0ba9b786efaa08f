"""The layers made fast for a backend, each equal to a definition that stands elsewhere."""
