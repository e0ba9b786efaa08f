"""Using a trained network: evaluation, prediction and export."""
