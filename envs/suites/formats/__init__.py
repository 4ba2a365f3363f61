"""Rows of a file of tasks: their answers, their images, and errors that name the row."""
