"""Code fences in a reply, and text that is not valid Unicode."""
