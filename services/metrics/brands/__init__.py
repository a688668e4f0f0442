"""Brands in answers: where they are mentioned, in which order and light, and how visible that makes them."""
