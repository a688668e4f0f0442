"""The providers behind one small port. Only this package knows wire formats and provider SDKs."""
