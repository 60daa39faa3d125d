"""Whether anything happens on the machine, and putting it to sleep when nothing does."""
