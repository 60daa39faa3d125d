"""The signals of activity: each checks one thing and says in words what it saw."""
