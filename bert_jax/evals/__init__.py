"""Evaluation of trained models: scores, predictions and text generation."""
