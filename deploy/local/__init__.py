"""A stand-in for flyctl and its platform on this computer: `swarm` works with no account."""
