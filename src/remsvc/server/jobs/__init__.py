"""The service of durable jobs, and its messages."""
