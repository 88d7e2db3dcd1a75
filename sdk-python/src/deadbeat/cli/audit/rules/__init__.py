"""What an audit judges by: one file a subject."""
