"""What bounds how much, and how often, callers may take: shared by all rooms of the server."""
