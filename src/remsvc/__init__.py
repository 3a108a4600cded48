"""RemSvc: run commands on any host, exactly once, watched live."""
