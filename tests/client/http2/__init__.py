"""The client's side of the HTTP/2 transport, in parts."""
