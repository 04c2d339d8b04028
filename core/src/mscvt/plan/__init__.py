"""The plan of a conversion: which files, which tensors in them, and which copies fill them.

A plan is made from headers alone and proven before anything is written. One planner makes all of them from links;
whatever runs a plan knows no direction.
"""
