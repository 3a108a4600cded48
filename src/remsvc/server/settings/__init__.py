"""Reading configuration files and flags. Knows no section's owner."""
