"""The server's certificate, key and authorities, checked before anything is served with them."""
