"""Checkpoints of the user's work with restic, on the volume and away from it."""
