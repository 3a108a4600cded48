"""Running a plan on a server: as durable jobs, or over a stream of version 1."""
