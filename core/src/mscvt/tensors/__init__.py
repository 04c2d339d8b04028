"""What a file says of a tensor, and what something to copy from can do."""
