"""What can be asked for, as functions that print nothing."""
