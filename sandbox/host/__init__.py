"""The host side of a session: its process, its frames, its clock, and what this machine offers."""
