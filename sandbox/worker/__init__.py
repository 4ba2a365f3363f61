"""The isolated side: zygote, session, block.

Standard library only, until the zygote has loaded the libraries.

The zygote executes `start.py` with a bare interpreter, which loads this folder as the package
``codedance_worker``; nothing here may import from the rest of codedance. Model code shares its
process with these modules and may break them for itself: isolation is enforced by the kernel, and
the host validates every frame.
"""
