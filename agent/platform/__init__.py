"""What the machine is and what it offers: accounts, the volume."""
