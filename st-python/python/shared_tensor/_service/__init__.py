"""What the modules of the service share. Nothing here is public."""
