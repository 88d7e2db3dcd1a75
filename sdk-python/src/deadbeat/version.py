"""The version of this package, sent with each batch so that the server knows whom it talks to."""

__version__ = "0.1.0"
