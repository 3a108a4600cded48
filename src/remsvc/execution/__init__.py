"""Running processes: starting, watching and ending them. Knows nothing of gRPC."""
