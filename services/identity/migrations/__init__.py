"""The revisions of identity's schema."""
