"""Configuration: settings, presets, flows.yaml, and the folder where all state lives."""
