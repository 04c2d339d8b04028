"""Making a plugin out of what a checkpoint shows: roles by usual names, fields by values, and its text."""
