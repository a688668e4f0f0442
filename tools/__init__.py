"""Commands of the house: what `make` runs besides installed programs. Not part of the distribution."""
