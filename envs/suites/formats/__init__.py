"""Rows of a task file: answers, images, and errors that name the row."""
