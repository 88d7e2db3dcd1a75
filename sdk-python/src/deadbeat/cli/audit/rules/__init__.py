"""The rules of an audit: one file a subject."""
