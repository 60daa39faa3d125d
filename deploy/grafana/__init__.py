"""Dashboard and alert rules for the metrics of swarm-agent."""
