"""The host side of a session: process, frames, clock, and the capabilities of the machine."""
