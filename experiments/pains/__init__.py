"""The field's pains, tried side by side on ours, TRL, verl and verifiers."""
