"""Checkpoints of the work: restic's, on the volume and away from it."""
