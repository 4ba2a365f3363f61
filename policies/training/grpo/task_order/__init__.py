"""Which task comes next: order, curriculum, and expected length."""
