"""RemSvc: run commands on any host, never twice, watched live."""
