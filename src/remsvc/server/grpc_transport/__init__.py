"""gRPC's own server as the transport, and all that only it needs. To be deleted with it one day."""
