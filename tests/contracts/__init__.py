"""What every part of a kind must obey, one module per kind."""
