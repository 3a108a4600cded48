"""``remsvc jobs``: one module a verb."""
