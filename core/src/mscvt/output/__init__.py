"""A folder that is whole or not there."""
