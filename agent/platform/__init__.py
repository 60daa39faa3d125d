"""The machine and its platform: the account, the home, the volume, Fly.io."""
