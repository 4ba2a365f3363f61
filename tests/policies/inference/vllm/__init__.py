"""Tests of rollouts on vLLM, against a small fake of its interface."""
