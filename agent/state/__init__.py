"""What outlives the machine: a SQLite database in our folder on the volume."""
