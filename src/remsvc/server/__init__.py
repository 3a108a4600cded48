"""The RemSvc server. Needs the ``server`` extra."""
