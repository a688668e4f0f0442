"""The scorers, a module for each subject. `services.metrics.registry` lists them."""
