"""What the machine tells about itself."""
