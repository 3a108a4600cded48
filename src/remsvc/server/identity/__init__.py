"""Who is calling: tokens, client certificates, local users."""
