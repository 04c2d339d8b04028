"""Hubs that models are downloaded from: what a repository holds, and the bytes of its files."""
