"""A stand-in for Fly.io and flyctl on this computer: `swarm` works without an account."""
