"""The embedded suite: seven families in three bands, drawn from seeds, answered from pixels.

Whether a task needs code can be seen in its picture only: the questions are the same on every
band. On the easy band the answer is plain to a model that sees 112 by 112 pixels; on the hard band
the detail is lost when the picture is shrunk to that.
"""
