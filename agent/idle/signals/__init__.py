"""The signals of activity: each looks at one thing and says in words what it saw."""
