"""What RemSvc costs, measured in interleaved rounds beside a reference; ``make bench`` runs all of it."""
