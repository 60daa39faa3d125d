"""Benchmarks: swarm-agent against what people use today, side by side in the same run."""
