"""One run of the agent: starting, serving, ending, and re-executing in place."""
