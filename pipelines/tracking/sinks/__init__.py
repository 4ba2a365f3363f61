"""Metrics in TensorBoard, W&B and trackio, besides MLflow."""
