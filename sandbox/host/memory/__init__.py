"""Memory of sessions, limited by the host: resident memory and cgroups."""
