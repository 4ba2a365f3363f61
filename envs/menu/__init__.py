"""The fixed-shape view of the environment, for SB3 and other algorithms on vectors."""
