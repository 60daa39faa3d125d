"""Being init: starting processes, waiting for all of them, ending all of them."""
