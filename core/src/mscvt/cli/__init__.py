"""The command line. Nothing below this package prints, exits or reads the terminal."""
