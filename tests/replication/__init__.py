"""The core on several machines, as an engine brings it to them."""
