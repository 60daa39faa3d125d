"""Benchmarks: swarm-agent compared with the usual programs, side by side in the same run."""
