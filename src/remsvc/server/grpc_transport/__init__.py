"""What the server needs only because gRPC carries its calls."""
