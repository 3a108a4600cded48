"""Version-1 commands: the service, its streams, and one command's way through them."""
