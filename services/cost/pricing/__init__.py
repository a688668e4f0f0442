"""What models cost: the catalogue, a project's overrides, estimates, and pricing anew what is on record."""
