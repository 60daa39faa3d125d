"""State that survives the machine: a SQLite database and small files on the volume."""
